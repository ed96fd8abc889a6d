"""The audit's tables: one insert-only, past-tense fact each, and the seals. Knows nothing of the worker."""

from models.base import Base, Chained, UtcDateTime
from models.facts import (
    Acted,
    Conflicted,
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
from models.seals import Sealed

__all__ = [
    "Acted",
    "Base",
    "Chained",
    "Conflicted",
    "Ended",
    "Enqueued",
    "Found",
    "Joined",
    "Judged",
    "Looked",
    "Replied",
    "RepliedLate",
    "Sealed",
    "Stamped",
    "Started",
    "UtcDateTime",
]
