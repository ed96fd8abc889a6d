"""cancelq: durable cancel requests. All that a producer imports; the rest is loaded when it is used."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.errors import EnqueueError, MaybeStored, NotStored
    from worker.ledger.producer import CancelQueue
    from worker.ledger.receipt import Receipt

__all__ = ["CancelQueue", "EnqueueError", "MaybeStored", "NotStored", "Receipt"]

_HOMES = {
    "CancelQueue": "worker.ledger.producer",
    "Receipt": "worker.ledger.receipt",
    "EnqueueError": "worker.errors",
    "MaybeStored": "worker.errors",
    "NotStored": "worker.errors",
}


def __getattr__(name: str) -> object:
    """Import on first use: redis alone costs a tenth of a second."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
