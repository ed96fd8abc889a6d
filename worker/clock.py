"""Time: aware UTC datetimes for people, whole microseconds for the ledger, nothing else."""

import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


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
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[: -len("+00:00")] + "Z"


def monotonic() -> timedelta:
    """A clock that never jumps; only differences mean anything."""
    return timedelta(seconds=time.monotonic())
