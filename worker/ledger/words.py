"""What a worker and the ledger tell each other: claims, settlements, sweeps, holds of logins. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from worker.clock import from_micros, span_micros
from worker.job import ClaimId, Job, JobId, Outcome, State, Step
from worker.rate_limit import Limit


class Call(StrEnum):
    """Calls that are counted one by one; POSTs are counted by their claim."""

    READ = "read"
    TOKEN = "token"  # noqa: S105 - a kind of call


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a worker brings to the ledger."""

    dedupe_life: timedelta
    limits: Sequence[Limit] = ()  # of each login's calls
    logins: Mapping[str, str] | None = None  # account → login, all others are of "default"; None: as they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a login stands. Spans in µs, summed up since the ledger began: budgets are moved by what was added."""

    locked_until: datetime | None
    stood_still: int  # holds, the present one to its end
    held_back: int  # pauses, holds apart
    ran_dry: int  # reads that were due waited for their budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What one claim brought; `asked_at` (monotonic, before the call) is where the lease counts from."""

    now: datetime
    asked_at: timedelta
    jobs: tuple[Job, ...]
    due_left: bool
    next_due: datetime | None
    held: bool  # nothing may be POSTed
    for_budget: bool  # what is due next waits for its login's budget
    logins: Mapping[str, Standing]

    @property
    def lockouts(self) -> dict[str, datetime]:
        """The logins that are locked out, and until when."""
        until = {name: standing.locked_until for name, standing in self.logins.items()}
        return {name: end for name, end in until.items() if end is not None and end > self.now}


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """Whether one call may be made, and what the ledger knows of all logins."""

    now: datetime
    granted: bool
    lockouts: Mapping[str, datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """A job given back: what to do next and when; a field of None is removed."""

    job: JobId
    claim: ClaimId
    step: Step
    state: State
    delay: timedelta
    fields: Mapping[str, str | None]
    posts: int = 0  # made under this claim
    activation: str | None = (
        None  # of an armed cancel: µs, the time that the holder knew to be wanted; "" for none
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """A held job whose end is decided; `deadline` is the one that the decision knew of."""

    job: JobId
    claim: ClaimId
    outcome: Outcome
    evidence: str
    deadline: datetime | None
    fields: Mapping[str, str | None]
    posts: int = 0  # made under this claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep found; counts are zero when another process swept within the interval."""

    ran: bool
    now: datetime
    held: bool  # nothing may be POSTed: paused, or not compared with the audit
    drained: bool
    lapsed: int
    due: int
    oldest_due: datetime | None
    next_due: datetime | None
    bells: int
    uncompared: bool
    lockouts: Mapping[str, datetime] = field(default_factory=dict)
    oldest_unknown: datetime | None = (
        None  # since when it is not known whether a POST arrived, at the longest
    )


def lockouts_from(flat: Sequence[str]) -> dict[str, datetime]:
    return {name: from_micros(int(until)) for name, until in zip(flat[::2], flat[1::2], strict=True)}


def standings_from(flat: Sequence[str]) -> dict[str, Standing]:
    rows = [flat[start : start + 5] for start in range(0, len(flat), 5)]
    return {
        name: Standing(
            locked_until=from_micros(int(until)) if until != "0" else None,
            stood_still=int(stood_still),
            held_back=int(held_back),
            ran_dry=int(ran_dry),
        )
        for name, until, stood_still, held_back, ran_dry in rows
    }


def limits_text(limits: Sequence[Limit]) -> str:
    return ",".join(f"{limit.calls}/{span_micros(limit.window)}" for limit in limits)
