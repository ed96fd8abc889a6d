"""The audit's tables: one insert-only, past-tense fact each. Knows nothing of the worker."""

from models.base import Base, Chained, UtcDateTime
from models.facts import (
    Acted,
    Ended,
    Enqueued,
    Found,
    Joined,
    Judged,
    Looked,
    Replied,
    RepliedLate,
    Stamped,
    Started,
)

__all__ = [
    "Acted",
    "Base",
    "Chained",
    "Ended",
    "Enqueued",
    "Found",
    "Joined",
    "Judged",
    "Looked",
    "Replied",
    "RepliedLate",
    "Stamped",
    "Started",
    "UtcDateTime",
]
