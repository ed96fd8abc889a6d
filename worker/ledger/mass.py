"""A mass cancel as the ledger keeps it until it has ended: who asked, when, and every order that was seen open."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from worker.job import OrderId
from worker.ledger.encoding import instant, pairs, storable

ORDER = "order "
# Orders noted in one call: bounds the time that other clients wait.
CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class MassWish:
    """One that has not ended; `noted` has a text for each order that was seen open so far."""

    id: str
    by: str
    asked_at: datetime  # the ledger's clock
    noted: Mapping[OrderId, str]


class MassWishes:
    """The mass cancel of one scope. Errors: LedgerUnavailable."""

    def __init__(self, call: Callable[..., Any], scope: str) -> None:
        self._call = call
        self._scope = storable(scope)

    def begin(self, new_id: str, *, by: str, told: str) -> MassWish:
        """The one that has not ended, else a new one under `new_id`; `told` goes on record as its why."""
        found = pairs(self._call("cancelq_mass_begin", self._scope, new_id, storable(by), storable(told)))
        noted = {
            OrderId(int(name.removeprefix(ORDER))): text
            for name, text in found.items()
            if name.startswith(ORDER)
        }
        return MassWish(id=found["id"], by=found["by"], asked_at=instant(found["at"]), noted=noted)

    def note(self, mass_id: str, seen: Mapping[OrderId, str]) -> bool:
        """Keep what was seen of these orders, durably; False if somebody has ended this mass cancel."""
        return all(
            bool(self._call("cancelq_mass_note", self._scope, mass_id, *flat)) for flat in _chunks(seen)
        )

    def end(self, mass_id: str, *, by: str, told: str) -> None:
        """It has ended, as `told`; harmless to repeat."""
        self._call("cancelq_mass_end", self._scope, mass_id, storable(by), storable(told))


def _chunks(seen: Mapping[OrderId, str]) -> Iterator[Sequence[str]]:
    rest = iter(seen.items())
    while chunk := list(islice(rest, CHUNK)):
        yield [part for order, text in chunk for part in (str(order), storable(text))]
