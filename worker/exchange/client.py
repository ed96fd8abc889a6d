"""The exchange's REST calls: one cancel, and the reads that prove it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr
from requests import PreparedRequest, Request

from worker.exchange.line import Line, Timeouts
from worker.exchange.wire import Wire
from worker.job import Job, OrderId
from worker.reply import Answered, Reply
from worker.verdict import read_json

# A CommandResult is below 9 KB (failureText is capped at 8,192 characters) …
CANCEL_BODY_CAP = 64 * 1024
# … and one order is about 300 bytes, 100 of them make a batch.
READ_BODY_CAP = 1024 * 1024
# Orders asked for in one read.
READ_BATCH = 100
# No order has more contracts; a larger number is no number of contracts.
MOST_CONTRACTS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class OrdersRead:
    """One read of several orders: what was found, by id, and the reply it came from."""

    reply: Reply
    found: Mapping[OrderId, Mapping[str, Any]]
    conclusive: bool  # the token was taken and the list was readable: what is not found is missing


def always() -> bool:
    """Whose claim nobody else could have."""
    return True


def no_permit() -> None:
    """Reads need none: they change nothing."""


class Exchange:
    """A pool of guarded connections to one base URL, under one token."""

    def __init__(self, base_url: str, token: SecretStr, *, timeouts: Timeouts, connections: int) -> None:
        self._base = base_url
        self._token = token
        self._total = timeouts.total
        self._line = Line(timeouts, connections=connections)
        self._cancel = self._prepared("POST", "/order/cancelorder")

    def close(self) -> None:
        self._line.close()

    def cancel(self, body: bytes, permit: Callable[[], None], held: Callable[[], bool] = always) -> Reply:
        """POST one cancel; `permit` is asked right before the first byte and may raise LeaseLapsed.

        Once `held` says no the request is cut, answered or not.
        """
        request = self._cancel.copy()
        request.body = body
        request.headers["Content-Length"] = str(len(body))
        return self._line.send(request, Wire(permit, self._total, held), CANCEL_BODY_CAP)

    def orders(self, ids: Sequence[OrderId]) -> OrdersRead:
        """Read the orders; one id goes to /order/item, more to /order/items (at most READ_BATCH)."""
        if len(ids) > 1:
            return self._items(ids)
        reply = self._get(f"/order/item?id={ids[0]}")
        entity = _json(reply)
        if isinstance(reply, Answered) and reply.status == 404:
            # 404 is also how a missing session may look: the list tells, because an answer proves the token.
            return self._items(ids)
        found = _by_id([entity] if isinstance(entity, dict) else [])
        return OrdersRead(reply=reply, found=found, conclusive=ids[0] in found)

    def command_reports(self, command_id: int) -> tuple[Reply, list[Mapping[str, Any]]]:
        """The reports of one command: a cancel that was accepted may still be rejected there."""
        reply = self._get(f"/commandReport/deps?masterid={command_id}")
        reports = _json(reply)
        return reply, [r for r in reports if isinstance(r, dict)] if isinstance(reports, list) else []

    def fills(self, ids: Sequence[OrderId]) -> Mapping[OrderId, int] | None:
        """Contracts filled of each order, by its active fills; None when that could not be read."""
        rows = _json(self._get(f"/fill/ldeps?masterids={','.join(map(str, ids))}"))
        if not isinstance(rows, list):
            return None
        filled = dict.fromkeys(ids, 0)
        for row in rows:
            order, quantity = _fill(row)
            if order in filled:
                filled[order] += quantity
        return filled

    def _items(self, ids: Sequence[OrderId]) -> OrdersRead:
        reply = self._get(f"/order/items?ids={','.join(map(str, ids))}")
        rows = _json(reply)
        found = _by_id(rows) if isinstance(rows, list) else {}
        return OrdersRead(reply=reply, found=found, conclusive=isinstance(rows, list))

    def _get(self, path: str) -> Reply:
        return self._line.send(self._prepared("GET", path), Wire(no_permit, self._total), READ_BODY_CAP)

    def _prepared(self, method: str, path: str) -> PreparedRequest:
        headers = {
            "Authorization": f"Bearer {self._token.get_secret_value()}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # nothing compressed: nothing to blow up
            "User-Agent": "cancelq",
        }
        if method == "POST":
            headers["Content-Type"] = "application/json"
        return Request(method, self._base + path, headers=headers).prepare()


def cancel_body(job: Job) -> bytes:
    """The JSON of CancelOrder: exactly what the producer asked for, plus a penalty's ticket."""
    request = job.request
    armed = request.activation_time
    fields: dict[str, object | None] = {
        "orderId": request.order_id,
        "clOrdId": request.cl_ord_id,
        "activationTime": armed.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if armed is not None else None,
        "customTag50": request.custom_tag50,
        "isAutomated": request.is_automated,
        "p-ticket": job.memory.ticket or None,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(given, separators=(",", ":")).encode()


def _json(reply: Reply) -> Any:
    """What a 2xx answer carries; None for anything else."""
    ok = isinstance(reply, Answered) and 200 <= reply.status < 300
    return read_json(reply) if ok and isinstance(reply, Answered) else None


def _fill(row: Any) -> tuple[OrderId, int]:
    """Of which order, and how many contracts; nothing where the row is of odd types or was taken back."""
    match row:
        case {"orderId": int(order), "qty": int(quantity)} if (
            row.get("active") is not False and quantity is not True and 0 <= quantity <= MOST_CONTRACTS
        ):
            return OrderId(order), quantity
        case _:
            return OrderId(0), 0


def _by_id(rows: Sequence[Any]) -> Mapping[OrderId, Mapping[str, Any]]:
    return {
        OrderId(row["id"]): row for row in rows if isinstance(row, dict) and isinstance(row.get("id"), int)
    }
