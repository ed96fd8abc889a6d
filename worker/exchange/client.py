"""The exchange's REST calls: one cancel, and the reads that prove it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import quote

import orjson
from requests import PreparedRequest
from requests.structures import CaseInsensitiveDict

from worker.exchange.accounts import Accounts
from worker.exchange.governor import Gate
from worker.exchange.line import Line, Timeouts
from worker.exchange.token import Bearer
from worker.exchange.trust import trusted
from worker.exchange.wire import Wire
from worker.job import Job, OrderId
from worker.policy import armed_for, label_of
from worker.reply import Answered, NotSent, Reply, Unanswered
from worker.verdict import LOCKED_OUT, read_json

Id = TypeVar("Id", bound=int)
# A CommandResult is below 9 KB (failureText is capped at 8,192 characters) …
CANCEL_BODY_CAP = 64 * 1024
# … and one order is about 300 bytes, 100 of them make a batch.
READ_BODY_CAP = 1024 * 1024
# A day's orders of a busy account: some 50,000, ended ones included.
LIST_BODY_CAP = 16 * 1024 * 1024
# Orders asked for in one read.
READ_BATCH = 100
# No order has more contracts; a larger number is no number of contracts.
MOST_CONTRACTS = 10**9
UNREADABLE = -1
HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # nothing compressed: nothing to blow up
    "User-Agent": "cancelq",
}
HEADERS_OF_POST = {**HEADERS, "Content-Type": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OrdersRead:
    """One read of several orders: the rows found of each, and the reply they came from."""

    reply: Reply
    found: Mapping[OrderId, Sequence[Mapping[str, Any]]]
    conclusive: bool  # the token was taken and the list was readable: what is not found is missing


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandsRead:
    """One read of several orders' commands, by order id, and the reply they came from."""

    reply: Reply
    found: Mapping[OrderId, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportsRead:
    """One read of several commands' reports, by command id, and the reply they came from."""

    reply: Reply
    found: Mapping[int, Sequence[Mapping[str, Any]]]


def always() -> bool:
    """Whose claim nobody else could have."""
    return True


def no_permit() -> None:
    """For whoever answers to nobody."""


class Exchange:
    """A pool of guarded connections to one base URL, under one login's token of the moment."""

    def __init__(
        self, base_url: str, bearer: Bearer, *, timeouts: Timeouts, gate: Gate | None = None
    ) -> None:
        if base_url.startswith("https:"):
            trusted()  # what cannot be read is said now, not to each cancel
        self._gate = gate
        self._base = base_url
        self.bearer = bearer
        self._total = timeouts.total
        self._line = Line(timeouts)
        self.accounts = Accounts(self._account_list)

    def close(self) -> None:
        self._line.close()

    def cancel(self, body: bytes, permit: Callable[[], None], held: Callable[[], bool] = always) -> Reply:
        """POST one cancel; `permit` is asked right before the first byte and may raise LeaseLapsed.

        Once `held` says no the request is cut, answered or not.
        """
        gate = self._gate

        def last_check() -> None:
            if gate is not None:
                gate.require_post()
            permit()

        request = self._request("POST", "/order/cancelorder", body)
        return self._send(request, Wire(last_check, self._total, held), CANCEL_BODY_CAP)

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

    def commands(self, ids: Sequence[OrderId]) -> CommandsRead:
        """The commands of the orders, whoever gave them."""
        reply = self._get(f"/command/ldeps?masterids={_joined(ids)}")
        return CommandsRead(reply=reply, found=_rows_of(_json(reply), ids, key="orderId"))

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

    def account_orders(self, account_id: int) -> Reply:
        """All orders of one account that the exchange lists, ended ones included."""
        return self._get(f"/order/deps?masterid={account_id}", LIST_BODY_CAP)

    def own_accounts(self) -> Reply:
        """The accounts that the login sees."""
        return self._get("/account/list")

    def contract_named(self, name: str) -> Reply:
        """One contract by its name."""
        return self._get(f"/contract/find?name={quote(name, safe='')}")

    def _items(self, ids: Sequence[OrderId]) -> OrdersRead:
        """An answered list proves the token; a 404 alone may be a missing session, so the accounts are asked then."""
        reply = self._get(f"/order/items?ids={_joined(ids)}")
        rows = _json(reply)
        found = _rows_of(rows, ids)
        listed = isinstance(rows, list) and all(_key_of(row, "id") in found for row in rows)
        unknown = len(ids) == 1 and _status(reply) == 404 and isinstance(self._account_list(), list)
        return OrdersRead(reply=reply, found=found, conclusive=listed or unknown)

    def _account_list(self) -> Any:
        return _json(self.own_accounts())

    def _get(self, path: str, cap: int = READ_BODY_CAP) -> Reply:
        permit = self._gate.require_read if self._gate is not None else no_permit
        return self._send(self._request("GET", path), Wire(permit, self._total), cap)

    def _send(self, request: PreparedRequest, wire: Wire, cap: int) -> Reply:
        token = self.bearer.token()
        if token is None:
            return NotSent(error="there is no access token")
        request.headers["Authorization"] = f"Bearer {token.value.get_secret_value()}"
        reply = self._line.send(request, wire, cap)
        if self._gate is not None:
            self._gate.notice(reply)
        self.bearer.heard(token, reply, read=request.method == "GET")
        if token.revision > 0 and isinstance(reply, Answered):
            return replace(reply, revision=token.revision)
        return reply

    def _request(self, method: str, path: str, body: bytes | None = None) -> PreparedRequest:
        """What Request.prepare() would make of it, without parsing the address each time."""
        request = PreparedRequest()
        request.method, request.url, request.body = method, f"{self._base}{path}", body
        request.headers = CaseInsensitiveDict(HEADERS if body is None else HEADERS_OF_POST)
        if body is not None:
            request.headers["Content-Length"] = str(len(body))
        return request


def own_label(job_id: str, attempt: int | str) -> str:
    """The clOrdId of an attempt whose producer gave none: by it a command is known to be ours."""
    return f"{job_id}-{attempt}"


def cancel_body(job: Job, attempt: int) -> bytes:
    """The JSON of CancelOrder: what the producer asked for, a label where it gave none, plus a penalty's ticket."""
    request = job.request
    armed = armed_for(job)
    fields: dict[str, object | None] = {
        "orderId": request.order_id,
        "clOrdId": request.cl_ord_id or own_label(job.id, label_of(job, attempt)),
        "activationTime": armed.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if armed is not None else None,
        "customTag50": request.custom_tag50,
        "isAutomated": request.is_automated,
        "p-ticket": job.memory.ticket or None,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    return orjson.dumps(given)


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
