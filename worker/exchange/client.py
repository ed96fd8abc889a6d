"""The exchange's REST calls: one cancel, and the reads that prove it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import SecretStr
from requests import PreparedRequest, Request

from worker.exchange.accounts import Accounts
from worker.exchange.line import Line, Timeouts
from worker.exchange.wire import Wire
from worker.job import Job, OrderId
from worker.reply import Answered, Reply, Unanswered
from worker.verdict import LOCKED_OUT, read_json

Id = TypeVar("Id", bound=int)
# A CommandResult is below 9 KB (failureText is capped at 8,192 characters) …
CANCEL_BODY_CAP = 64 * 1024
# … and one order is about 300 bytes, 100 of them make a batch.
READ_BODY_CAP = 1024 * 1024
# Orders asked for in one read.
READ_BATCH = 100
# No order has more contracts; a larger number is no number of contracts.
MOST_CONTRACTS = 10**9
UNREADABLE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class OrdersRead:
    """One read of several orders: the rows found of each, and the reply they came from."""

    reply: Reply
    found: Mapping[OrderId, Sequence[Mapping[str, Any]]]
    conclusive: bool  # the token was taken and the list was readable: what is not found is missing


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportsRead:
    """One read of several commands' reports, by command id, and the reply they came from."""

    reply: Reply
    found: Mapping[int, Sequence[Mapping[str, Any]]]


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
        self.accounts = Accounts(self._account_list)

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
        found = _rows_of([entity], ids)
        if not found and _says_nothing(reply, entity):
            return self._items(ids)
        return OrdersRead(reply=reply, found=found, conclusive=bool(found))

    def command_reports(self, ids: Sequence[int]) -> ReportsRead:
        """The reports of the commands: a cancel that was accepted may still be rejected there."""
        reply = self._get(f"/commandReport/ldeps?masterids={_joined(ids)}")
        return ReportsRead(reply=reply, found=_rows_of(_json(reply), ids, key="commandId"))

    def fills(self, ids: Sequence[OrderId]) -> Mapping[OrderId, int]:
        """Contracts filled of each order, by its active fills; orders of which that could not be read are left out.

        One more try after an answer that could not be read, unless it forbids one: an end must not wait long for a
        number beside it.
        """
        path = f"/fill/ldeps?masterids={_joined(ids)}"
        reply = self._get(path)
        rows = _json(reply)
        if (
            not isinstance(rows, list)
            and not isinstance(reply, Unanswered)
            and _status(reply) not in LOCKED_OUT
        ):
            rows = _json(self._get(path))
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            return {}
        found = _rows_of(rows, ids, key="orderId")
        counted = {order: [_contracts(row) for row in found.get(order, ())] for order in ids}
        return {order: sum(parts) for order, parts in counted.items() if min(parts, default=0) >= 0}

    def _items(self, ids: Sequence[OrderId]) -> OrdersRead:
        """An answered list proves the token; a 404 alone may be a missing session, so the accounts are asked then."""
        reply = self._get(f"/order/items?ids={_joined(ids)}")
        rows = _json(reply)
        found = _rows_of(rows, ids)
        listed = isinstance(rows, list) and all(_key_of(row, "id") in found for row in rows)
        unknown = len(ids) == 1 and _status(reply) == 404 and isinstance(self._account_list(), list)
        return OrdersRead(reply=reply, found=found, conclusive=listed or unknown)

    def _account_list(self) -> Any:
        return _json(self._get("/account/list"))

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


def _status(reply: Reply) -> int | None:
    return reply.status if isinstance(reply, Answered) else None


def _says_nothing(reply: Reply, entity: Any) -> bool:
    """Neither the order nor a penalty: a 404, a null, another order. The list may tell."""
    penalised = isinstance(entity, dict) and not entity.keys().isdisjoint({"p-ticket", "p-captcha"})
    status = _status(reply) or 0
    return (200 <= status < 300 or status == 404) and not penalised


def _contracts(row: Mapping[str, Any]) -> int:
    """How many contracts this fill counts; none when it was taken back, less than none when it is unreadable."""
    quantity = row.get("qty")
    if row.get("active") is False:
        return 0
    known = isinstance(quantity, int) and not isinstance(quantity, bool) and 0 <= quantity <= MOST_CONTRACTS
    return quantity if known and isinstance(quantity, int) else UNREADABLE


def _rows_of(rows: Any, ids: Sequence[Id], *, key: str = "id") -> Mapping[Id, Sequence[Mapping[str, Any]]]:
    """The rows of each id that has any; rows that nobody asked for are left out."""
    found: dict[Id, list[Mapping[str, Any]]] = {}
    asked = set(ids)
    for row in rows if isinstance(rows, list) else ():
        of = _key_of(row, key)
        if of in asked:
            found.setdefault(of, []).append(row)
    return found


def _key_of(row: Any, key: str) -> Any:
    """The row's id, None where it has none."""
    value = row.get(key) if isinstance(row, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _joined(ids: Sequence[int]) -> str:
    return ",".join(map(str, ids))
