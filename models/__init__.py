"""The audit's tables: one insert-only, past-tense fact each. Knows nothing of the worker."""

from models.base import Base, Chained, UtcDateTime
from models.facts import Ended, Enqueued, Joined, Judged, Looked, Replied, Started

__all__ = [
    "Base",
    "Chained",
    "Ended",
    "Enqueued",
    "Joined",
    "Judged",
    "Looked",
    "Replied",
    "Started",
    "UtcDateTime",
]
