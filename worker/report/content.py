"""The audit report as values: what one period's cancels came to, and whether the audit can be trusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from worker.audit.verify import Verification
from worker.job import Outcome
from worker.report.figures import Spread
from worker.settings import names_live

# Unresolved ones need a person: they lead every list. Jobs that are still open follow.
OPEN = "open"
ORDER = (
    Outcome.UNRESOLVED.value,
    Outcome.REFUSED.value,
    OPEN,
    Outcome.ACCEPTED.value,
    Outcome.FILLED.value,
    Outcome.GONE.value,
    Outcome.CANCELED.value,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which jobs are reported: enqueued from `since` on, before `until`; None is no limit. `zone` is for showing."""

    since: datetime | None = None
    until: datetime | None = None
    account: str | None = None
    zone: tzinfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One job."""

    job_id: str
    account: str
    order_id: int
    cl_ord_id: str | None
    requested_by: str | None
    request_id: str
    joiners: int
    enqueued_at: datetime
    first_sent_at: datetime | None
    last_answered_at: datetime | None
    finished_at: datetime | None
    attempts: int
    command_id: int | None
    reason: str | None  # of the latest attempt
    outcome: str | None
    evidence: str | None
    detail: str | None
    filled_qty: int | None
    redrive_of: str | None
    environment: str

    @property
    def end(self) -> str:
        return self.outcome or OPEN

    @property
    def to_wire(self) -> timedelta | None:
        return _between(self.enqueued_at, self.first_sent_at)

    @property
    def to_end(self) -> timedelta | None:
        return _between(self.enqueued_at, self.finished_at)

    @property
    def proof(self) -> timedelta | None:
        """From the last answer to the proven end."""
        return _between(self.last_answered_at, self.finished_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """The stages of a cancel: enqueue → wire → answer → end."""

    enqueue_to_wire: Spread
    wire_to_answer: Spread  # of each attempt that was answered
    answer_to_end: Spread
    enqueue_to_end: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a rendering shows; `lines` has the unresolved first, then by time of enqueue."""

    scope: Scope
    made_at: datetime
    environments: tuple[str, ...]
    policy_versions: tuple[str, ...]
    verification: Verification
    outcomes: Mapping[str, int]  # in the order in which they are shown
    reasons: Mapping[
        str, int
    ]  # attempts that were not accepted, by what the exchange said; most frequent first
    attempts: Mapping[int, int]  # attempts → jobs that took so many
    filled_contracts: int  # while a cancel was under way
    latency: Latency
    slowest: tuple[Line, ...]
    lines: tuple[Line, ...]

    @property
    def live(self) -> bool:
        return any(names_live(environment) for environment in self.environments)

    @property
    def unresolved(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.outcome == Outcome.UNRESOLVED)


def _between(start: datetime | None, end: datetime | None) -> timedelta | None:
    return None if start is None or end is None else end - start
