"""A mass cancel as values: what is asked for, within which bounds, and what it came to. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from worker.exchange.listing import Listed
from worker.job import OrderId
from worker.work.listing import Account, Contract
from worker.work.mass_order import MassOrder


class Result(StrEnum):
    """How a mass cancel came to its end (the words are public)."""

    NONE_LEFT = "none_left"
    LEFT = "left"  # each of them explained
    KEEPS_PLACING = "keeps_placing"  # orders appeared in every round that was allowed
    TIME_UP = "time_up"
    NOT_READ = "not_read"
    DRY_RUN = "dry_run"


# The wish has had its answer; after any other result the same command goes on with it.
CONCLUDED = frozenset({Result.NONE_LEFT, Result.LEFT, Result.KEEPS_PLACING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which orders are meant. `account` is written as producers write it: by it their cancels are joined."""

    account: str
    at_exchange: Account
    contract: Contract | None = None

    @property
    def key(self) -> str:
        return f"{self.account}/{self.contract.id if self.contract is not None else 'all'}"

    def has(self, order: Listed) -> bool:
        return self.contract is None or order.contract_id == self.contract.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """`rounds`: how often orders that were not seen before are taken up; `span`: how long in all."""

    rounds: int
    span: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who asks, why, and whether a person's hand does."""

    by: str
    because: str | None = None
    manual: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What a mass cancel came to; `asked_at` is None for a dry run, of which nothing is kept."""

    scope: Scope
    result: Result
    began_at: datetime
    ended_at: datetime
    by: str
    id: str | None = None
    asked_at: datetime | None = None
    resumed: bool = False
    rounds: int = 0
    looks: int = 0
    last_look_at: datetime | None = None
    orders: Sequence[MassOrder] = ()
    listed: Mapping[OrderId, Listed] = field(default_factory=dict)  # the whole last list, linked orders too
    notes: Sequence[str] = ()

    @property
    def left(self) -> list[MassOrder]:
        return [order for order in self.orders if order.is_left]

    def why_left(self, order: MassOrder) -> str:
        """In words; "" for an order that is not left."""
        return order.why_left(dry_run=self.result is Result.DRY_RUN)
