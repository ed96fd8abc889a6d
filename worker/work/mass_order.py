"""One order of a mass cancel: how it was seen, which jobs worked on it, and why it is left if it is. No I/O."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Self

from worker.exchange.listing import Listed
from worker.job import OrderId, Outcome

# The exchange may show its own writes late, by seconds: only a list that was asked for this long after a job's end
# can be at odds with it.
SETTLE = timedelta(seconds=3)
# Jobs of one order within one mass cancel: after the third end that the list contradicts a person is needed.
MOST_TRIES = 3
# What a worker saw and the list may contradict; any other end is an answer that the order may be left with.
OVER = frozenset({Outcome.CANCELED, Outcome.FILLED, Outcome.GONE, Outcome.ACCEPTED})
PROVEN = OVER - {Outcome.ACCEPTED}


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """How an order was first seen open; kept in the ledger as JSON."""

    at: str
    round: int
    status: str
    contract_id: int | None = None
    action: str | None = None
    links: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))


@dataclass(slots=True, kw_only=True)
class Try:
    """One job for the order: its receipt, and what is known of it by now (the status answer)."""

    request_id: str
    fate: str
    job_id: str | None = None
    error: str | None = None
    known: Mapping[str, Any] = field(default_factory=dict)
    asked_at: timedelta = timedelta(0)  # monotonic: when we last asked how it stands
    ended_at: timedelta | None = None  # monotonic: when we learned of its end
    contradicted: str | None = None  # what a later list showed

    @property
    def is_running(self) -> bool:
        return self.job_id is not None and self.ended_at is None

    @property
    def outcome(self) -> str | None:
        return self.known.get("outcome")

    @property
    def is_proven(self) -> bool:
        return self.outcome in PROVEN

    def settles(self, asked_at: timedelta) -> bool:
        """Whether a list that was asked for then may still show the order as it was before this job's end."""
        return self.outcome in OVER and self.ended_at is not None and asked_at < self.ended_at + SETTLE


@dataclass(slots=True, kw_only=True)
class MassOrder:
    """What one mass cancel knows of one order."""

    order_id: OrderId
    first: First
    looked: bool = False  # whether this run has read a list since it knows of the order
    listed: Listed | None = None  # in the last list; None: it was not there
    tries: list[Try] = field(default_factory=list)

    @property
    def contradictions(self) -> list[str]:
        return [one.contradicted for one in self.tries if one.contradicted is not None]

    @property
    def last(self) -> Try | None:
        return self.tries[-1] if self.tries else None

    @property
    def is_running(self) -> bool:
        return self.last is not None and self.last.is_running

    @property
    def is_listed_open(self) -> bool:
        return self.listed is not None and self.listed.is_open

    @property
    def is_left(self) -> bool:
        """Open as far as anybody knows: listed so, or not listed and no job has proved its end."""
        if self.listed is not None:
            return self.listed.is_open
        return self.last is None or not self.last.is_proven

    def wants_job(self, asked_at: timedelta) -> bool:
        """Whether a list that was asked for then calls for a (further) job."""
        last = self.last
        if last is None:
            return True
        contradicted = self.is_listed_open and last.outcome in OVER and not last.settles(asked_at)
        forgotten = self.is_listed_open and last.ended_at is not None and last.known.get("jobId") is None
        return (contradicted or forgotten) and not last.is_running and len(self.tries) < MOST_TRIES

    def is_stuck(self, asked_at: timedelta) -> bool:
        """Left, and nothing that runs or may still show will change that."""
        last = self.last
        waiting = last is not None and (last.is_running or (self.is_listed_open and last.settles(asked_at)))
        return self.is_left and not waiting and not self.wants_job(asked_at)

    def notice(self, asked_at: timedelta) -> None:
        """Note that the list shows as open what a job has seen end."""
        last = self.last
        if self.is_listed_open and last is not None and last.outcome in OVER and not last.settles(asked_at):
            status = self.listed.status if self.listed is not None else ""
            ended = f"had ended {last.outcome} by {last.known.get('evidence')}"
            last.contradicted = f"listed as {status} after job {last.job_id} {ended}"

    def why_left(self, *, dry_run: bool = False) -> str:
        """In words, from the last job; "" for an order that is not left."""
        if not self.is_left:
            return ""
        missing = "not in the exchange's list" if self.looked else "the exchange's list was not read"
        seen = f"listed as {self.listed.status}" if self.listed is not None else missing
        why = "a dry run: without it the order would be canceled" if dry_run else _why(self)
        return f"{seen}; {why}"


def _why(order: MassOrder) -> str:
    last = order.last
    if last is None:
        return "it appeared after the last round, and no cancel was asked for"
    if last.job_id is None:
        return f"its cancel was not taken: {last.error or last.fate}"
    if last.is_running:
        state, reason = last.known.get("state"), last.known.get("reason")
        return f"its cancel is still open ({state}{f', {reason}' if reason else ''}) and goes on"
    if order.contradictions:
        return f"its cancels ended {last.outcome} by {last.known.get('evidence')}: a contradiction"
    if last.outcome is None:
        return "what became of its cancel is not known"
    reason = last.known.get("reason")
    return f"its cancel ended {last.outcome}: {last.known.get('evidence')}{f', {reason}' if reason else ''}"
