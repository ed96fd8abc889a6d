"""Reads many orders in one request, and apart where one of them spoils the answer for all."""

import random
from collections.abc import Callable, Mapping, Sequence

from worker.exchange.client import OrdersRead
from worker.job import OrderId
from worker.reasons import Meaning
from worker.reply import Answered
from worker.verdict import classify

# A failing group of so few is read one by one.
SINGLY = 4

Read = Callable[[Sequence[OrderId]], OrdersRead]


def read_apart(read: Read, ids: Sequence[OrderId]) -> Mapping[OrderId, OrdersRead]:
    """For each order the read that speaks of it.

    Halves that both fail are the exchange's trouble, not an order's: then nothing more is asked this time. Which
    orders come together is left to chance, so that two that spoil their halves are told apart by a later round.
    """
    asked = list(dict.fromkeys(ids))
    random.shuffle(asked)
    return _told(read, asked, read(asked))


def _told(read: Read, ids: Sequence[OrderId], found: OrdersRead) -> dict[OrderId, OrdersRead]:
    if len(ids) < 2 or not _may_be_spoiled(found):
        return dict.fromkeys(ids, found)
    if len(ids) <= SINGLY:
        return {order: read([order]) for order in ids}
    middle = len(ids) // 2
    halves = [(half, read(half)) for half in (ids[:middle], ids[middle:])]
    if all(_may_be_spoiled(answer) for _, answer in halves) and len(ids) > 2 * SINGLY:
        return {order: answer for half, answer in halves for order in half}
    return {order: told for half, answer in halves for order, told in _told(read, half, answer).items()}


def _may_be_spoiled(found: OrdersRead) -> bool:
    """An answer without any row that proves nothing, and no word on the token, a penalty or a lock-out."""
    if found.conclusive or found.found or not isinstance(found.reply, Answered):
        return False
    return classify(found.reply).meaning not in {Meaning.THROTTLED, Meaning.UNAUTHORIZED}
