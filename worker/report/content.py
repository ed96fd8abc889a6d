"""The audit report as values: what one period's cancels came to, and whether the audit can be trusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum
from typing import NamedTuple

from worker.audit.verify import Verification
from worker.job import Evidence, Outcome
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


class Line(NamedTuple):
    """One job; a tuple, because a day has tens of thousands. First what its attempts come to, then what the job says."""

    first_sent_at: datetime | None
    last_answered_at: datetime | None
    attempts: int
    command_id: int | None
    reason: str | None  # of the latest attempt
    job_id: str
    account: str
    order_id: int
    cl_ord_id: str | None
    requested_by: str | None
    request_id: str
    joiners: int
    enqueued_at: datetime
    finished_at: datetime | None
    outcome: str | None
    evidence: str | None
    detail: str | None
    filled_qty: int | None
    redrive_of: str | None
    environment: str
    # A person's finding about an unresolved job, once there is one.
    resolved_as: str | None = None
    resolved_by: str | None = None
    resolved_at: datetime | None = None
    resolved_because: str | None = None

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
class Total:
    """What the jobs of one group came to."""

    jobs: int
    attempts: int
    outcomes: Mapping[str, int]  # in the order in which they are shown
    filled_contracts: int


class Happening(StrEnum):
    """What an event of a job's story is."""

    ENQUEUED = "enqueued"
    JOINED = "joined"
    ATTEMPT = "attempt"
    READ = "read"
    LATE_REPLY = "late reply"
    FINISHED = "finished"
    FOUND = "found"  # by a person, after an end without proof


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry of a job's story."""

    kind: Happening
    at: datetime  # of an attempt: sent, or started when no byte left
    until: datetime | None = None  # an attempt's answer
    number: int | None = None  # of an attempt, or of the one that a late reply belongs to
    said: str | None = None  # who asked, a verdict, the status seen, the outcome; None: nothing came back
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """One job with all that happened to it, in order of time."""

    line: Line
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a rendering shows; `lines` has the unresolved first, then by time of enqueue."""

    scope: Scope
    made_at: datetime
    owner: str | None  # the exchange that the audit belongs to
    environments: tuple[str, ...]
    policy_versions: tuple[str, ...]
    verification: Verification
    witnessed: bool  # whether the chains were also held against the heads that the ledger saw
    outcomes: Mapping[str, int]  # in the order in which they are shown
    reasons: Mapping[str, int]  # attempts that were not accepted, by what was said; most frequent first
    attempts: Mapping[int, int]  # attempts → jobs that took so many
    filled_contracts: int  # while a cancel was under way
    latency: Latency
    by_account: Mapping[str, Total]  # most jobs first
    by_strategy: Mapping[str | None, Total]  # by who asked first; most jobs first
    by_hour: Mapping[datetime, Total]  # by the start (UTC) of the zone's hour of their enqueue
    slowest: tuple[Line, ...]
    timelines: tuple[Timeline, ...]  # of the slowest
    lines: tuple[Line, ...]

    @property
    def live(self) -> bool:
        exchanges = (self.owner, *self.environments)
        return any(exchange is not None and names_live(exchange) for exchange in exchanges)

    @property
    def dry_run(self) -> int:
        """The cancels that were not to be sent: an open order stayed open, as was meant."""
        return sum((line.evidence or "").partition(" ")[0] == Evidence.DRY_RUN for line in self.lines)

    @property
    def unresolved(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.outcome == Outcome.UNRESOLVED)

    @property
    def filled(self) -> tuple[Line, ...]:
        """The jobs whose orders filled, wholly or in part."""
        return tuple(line for line in self.lines if line.filled_qty)


def _between(start: datetime | None, end: datetime | None) -> timedelta | None:
    return None if start is None or end is None else end - start
