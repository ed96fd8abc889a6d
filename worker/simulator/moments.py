"""The simulator's clock and its seeded chance: both the same for everyone who asks about one order."""

import time
from datetime import UTC, datetime
from hashlib import blake2b

Span = tuple[float, float]

WALL_OFFSET = time.time() - time.monotonic()


def now() -> float:
    """Seconds on a clock that never jumps."""
    return time.monotonic()


def micros(moment: float) -> int:
    """The moment as microseconds since 1970."""
    return int((moment + WALL_OFFSET) * 1_000_000)


def iso(moment: float) -> str:
    """The moment as the exchange writes it: UTC with milliseconds."""
    text = datetime.fromtimestamp(moment + WALL_OFFSET, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def from_iso(text: str) -> float:
    """A moment on our clock; text without an offset is UTC."""
    stamp = datetime.fromisoformat(text)
    if stamp.tzinfo is None:
        stamp = stamp.replace(tzinfo=UTC)
    return stamp.timestamp() - WALL_OFFSET


def chance(seed: int, order_id: int, topic: str) -> float:
    """A number in [0, 1) that depends on seed, order and topic alone, never on who came first."""
    digest = blake2b(f"{seed}:{order_id}:{topic}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def within(span: Span, share: float) -> float:
    """The number that lies at `share` of the way through the span."""
    low, high = span
    return low + (high - low) * share
