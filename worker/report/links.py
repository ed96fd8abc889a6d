"""The orders that an order names (its parent, its OCO partner, its linked order), and which of them still work."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from worker.audit.order_story import JobFacts, ReadRow
from worker.errors import CancelqError
from worker.exchange.client import Exchange, OrdersRead
from worker.exchange.line import Timeouts
from worker.exchange.listing import RELATIONS
from worker.exchange.token import Bearer
from worker.job import OrderId
from worker.reply import Answered
from worker.secret import SecretStr
from worker.settings import Settings
from worker.verdict import ENDS, MAX_ID, OrderState, state_of
from worker.work.borrowed import token_for

# One missing order costs three requests: together they stay below five seconds.
REQUEST_BOUND = timedelta(seconds=1.6)
# The body on record is cut; what stands before the cut still counts.
NAMED = re.compile(r'"(parentId|ocoId|linkedId)": ?([1-9][0-9]{0,18})\b')


@dataclass(frozen=True, slots=True, kw_only=True)
class Linked:
    """One linked order; `is_open` is None while that is not known, `note` says why."""

    order_id: int
    relation: str
    ord_status: str | None = None
    is_open: bool | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """What the read of `as_of` named; None: no read on record showed the order, so nothing is known."""

    orders: tuple[Linked, ...] = ()
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    order_id: OrderId
    relation: str
    environment: str | None


def linked_orders(recorded: Sequence[JobFacts], settings: Settings) -> dict[str, Links]:
    """By account; read live where this program's own exchange and a token allow it."""
    newest = {account: _newest_read(recorded, account) for account in {f.job.account for f in recorded}}
    reads = {account: read for account, read in newest.items() if read is not None}
    links = {account: _links(*read) for account, read in reads.items()}
    return {
        account: Links(orders=_all_linked(account, found, settings), as_of=reads[account][1].read_at)
        for account, found in links.items()
    }


def _all_linked(account: str, links: Sequence[Link], settings: Settings) -> tuple[Linked, ...]:
    askable = sorted({link.order_id for link in links if _refusal(link, settings) is None})
    read: OrdersRead | None = None
    refusal: str | None = None
    if askable:
        try:
            read = _read(askable, settings, token_for(account, settings))
        except CancelqError as error:
            refusal = f"not read: {error}"
    return tuple(_linked(link, _refusal(link, settings) or refusal, read) for link in links)


def _newest_read(recorded: Sequence[JobFacts], account: str) -> tuple[JobFacts, ReadRow] | None:
    """The last read on record that showed the order."""
    found = [
        (facts, row)
        for facts in recorded
        if facts.job.account == account
        for row in facts.reads
        if row.kind == "order" and row.body
    ]
    return max(found, key=lambda pair: pair[1].read_at) if found else None


def _links(facts: JobFacts, read: ReadRow) -> list[Link]:
    return [
        Link(order_id=OrderId(order_id), relation=RELATIONS[key], environment=facts.job.environment)
        for key, order_id in _named(read)
        if order_id != facts.job.order_id
    ]


def _named(row: ReadRow) -> Iterator[tuple[str, int]]:
    body = row.body or ""
    try:
        order = json.loads(body)
    except (ValueError, RecursionError):
        order = {key: int(digits) for key, digits in NAMED.findall(body)}
    for key in RELATIONS if isinstance(order, dict) else ():
        value = order.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_ID:
            yield key, value


def _refusal(link: Link, settings: Settings) -> str | None:
    """Why this order is not asked for."""
    if link.environment != settings.environment:
        return f"not read: it is at {link.environment}, CANCELQ_EXCHANGE_URL is {settings.environment}"
    return None


def _read(ids: Sequence[OrderId], settings: Settings, token: SecretStr) -> OrdersRead:
    timeouts = Timeouts(
        connect=min(settings.connect_timeout, REQUEST_BOUND),
        read=min(settings.read_timeout, REQUEST_BOUND),
        total=min(settings.total_timeout, REQUEST_BOUND),
    )
    exchange = Exchange(settings.exchange_url, Bearer.fixed(token), timeouts=timeouts)
    try:
        return exchange.orders(ids)
    finally:
        exchange.close()


def _linked(link: Link, refusal: str | None, read: OrdersRead | None) -> Linked:
    known: dict[str, Any] = {"order_id": link.order_id, "relation": link.relation}
    if refusal is not None or read is None:
        return Linked(**known, note=refusal)
    rows = read.found.get(link.order_id)
    if not rows:
        missing = "not found at the exchange" if read.conclusive else f"not read: {_trouble(read)}"
        return Linked(**known, note=missing)
    return Linked(**known, **_state([row.get("ordStatus") for row in rows]))


def _state(statuses: Sequence[object]) -> dict[str, Any]:
    status = " and ".join(dict.fromkeys(str(status)[:64] for status in statuses))
    state = state_of(statuses)
    if state is OrderState.UNCLEAR:
        return {"ord_status": status, "note": "a status that does not say whether it is open"}
    return {"ord_status": status, "is_open": state not in ENDS}


def _trouble(read: OrdersRead) -> str:
    reply = read.reply
    return f"HTTP {reply.status}" if isinstance(reply, Answered) else reply.error
