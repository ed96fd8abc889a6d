"""Time: aware UTC datetimes for people, whole microseconds for the ledger, nothing else."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Offset:
    """How far another clock is ahead of this host's; the truth lies within `error`."""

    ahead: timedelta
    error: timedelta


def offset(theirs: datetime, before: datetime, after: datetime) -> Offset:
    """Their clock was read between two readings of ours."""
    half = (after - before) / 2
    return Offset(ahead=theirs - (before + half), error=half)


def utc_now() -> datetime:
    return datetime.now(UTC)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970; exact, where `timestamp()` would go through a float."""
    return (moment - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


def span_micros(span: timedelta) -> int:
    return span // MICROSECOND


def iso(moment: datetime) -> str:
    """`2026-11-23T20:00:00.000000Z`: always UTC, always microseconds, sorts as text."""
    at = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return at.isoformat(timespec="microseconds")[: -len("+00:00")] + "Z"


def monotonic() -> timedelta:
    """A clock that never jumps; only differences mean anything."""
    return timedelta(seconds=time.monotonic())
