"""The exchange simulator as a real process, and a way to stage it and to ask it for the truth."""

import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

# What a test wants unless it says otherwise: no waiting.
QUICK = {"latency": 0, "read_latency": 0, "read_lag": 0, "settle": 0}
TOKEN = "test-token"


def eventually(check: Callable[[], Any], *, seconds: float = 30, what: str = "the condition") -> Any:
    """The first truthy answer of `check`, asked again and again within a bound, less often the longer it takes."""
    asked, pause = time.monotonic(), threading.Event()
    while not (found := check()):
        waited = time.monotonic() - asked
        assert waited < seconds, f"{what} did not come true within {seconds} s"
        pause.wait(min(0.005 + waited / 20, 0.05))
    return found


class Exchange:
    """One simulator process. `url` is what CANCELQ_EXCHANGE_URL wants."""

    def __init__(self, process: subprocess.Popen[bytes], url: str):
        self.process = process
        self.url = url
        self.address = urlsplit(url).netloc

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def add_orders(self, *orders: int | dict[str, Any], **shared: Any) -> None:
        """Puts orders on the book: ids, or objects as in a script; keyword arguments hold for each."""
        specs = [{"id": o} if isinstance(o, int) else o for o in orders]
        self._post("/sim/orders", [shared | spec for spec in specs])

    def script(self, order_id: int, *posts: dict[str, Any], **rest: Any) -> None:
        """Sets what the next POSTs of an order meet (added if unknown); also reads=[…], events=[…]."""
        self._post("/sim/script", [{"id": order_id, "posts": list(posts), **rest}])

    def faults(self, mix: str | dict[str, Any]) -> None:
        """A profile's name or probabilities, for orders without steps of their own that were not POSTed yet."""
        self._post("/sim/faults", {"faults": mix})

    def defaults(self, **settings: Any) -> None:
        """latency, read_latency, read_lag, settle: seconds or [least, most]; seed."""
        self._post("/sim/faults", {"defaults": settings})

    def auth(self, **settings: Any) -> None:
        """users, life, most, evicted, logins=[steps], renewals=[steps], expire: see the simulator's script."""
        self._post("/sim/faults", {"auth": settings})

    def lists(self, *steps: dict[str, Any]) -> None:
        """What the next lists of orders meet, as steps of a read."""
        self._post("/sim/faults", {"lists": list(steps)})

    def contracts(self, **ids: int) -> None:
        """Contracts by name."""
        self._post("/sim/faults", {"contracts": ids})

    def auth_counts(self) -> dict[str, int]:
        """logins, renewals, failed, evicted, most_alive."""
        found: dict[str, int] = self._ask("GET", "/sim/auth")[1]
        return found

    def log_in(self, name: str = "alice", password: str = "pw", **fields: Any) -> tuple[int, Any]:
        """Asks for a token as a plain client would."""
        body = {"name": name, "password": password, **fields}
        return self._ask("POST", "/v1/auth/accesstokenrequest", body)

    def renew(self, token: str) -> tuple[int, Any]:
        return self.get("/auth/renewaccesstoken", token=token)

    def reset(self) -> None:
        self._post("/sim/reset", {})

    def empty(self) -> None:
        """As it was when it started, and without waiting."""
        self.reset()
        self.defaults(**QUICK)

    def truth(self) -> dict[int, dict[str, Any]]:
        """By order id: what the order is at this very moment, how often it was POSTed, and so on."""
        return {row["id"]: row for row in self._lines("/sim/truth")}

    def requests(self, order_id: int | None = None, *, since: int = 0) -> list[dict[str, Any]]:
        """Every POST to cancelorder, or those of one order, in order of arrival."""
        rows = self._lines(f"/sim/requests?since={since}")
        return [row for row in rows if order_id in {None, row["order_id"]}]

    def calls(self) -> list[int]:
        """When calls came, reads and all others included: µs since 1970."""
        return [row["at"] for row in self._lines("/sim/calls")]

    def wait_for(self, order_id: int, **facts: Any) -> dict[str, Any]:
        """The order's truth as soon as it shows these facts."""

        def shown() -> dict[str, Any] | None:
            row = self.truth().get(order_id, {})
            return row if facts.items() <= row.items() else None

        return eventually(shown, what=f"order {order_id} with {facts}")

    def wait_for_posts(self, count: int, order_id: int | None = None) -> list[dict[str, Any]]:
        """The POSTs, as soon as there are so many."""

        def enough() -> list[dict[str, Any]] | None:
            rows = self.requests(order_id)
            return rows if len(rows) >= count else None

        return eventually(enough, what=f"{count} POSTs")

    def post(self, order_id: Any, *, token: str = TOKEN, **fields: Any) -> tuple[int, Any]:
        """Cancels as a plain client would: (status, JSON or text)."""
        return self._ask("POST", "/v1/order/cancelorder", {"orderId": order_id, **fields}, token=token)

    def get(self, path: str, *, token: str = TOKEN) -> tuple[int, Any]:
        """Reads below /v1: get("/order/item?id=1") → (status, JSON or text)."""
        return self._ask("GET", f"/v1{path}", token=token)

    def _post(self, path: str, body: Any) -> Any:
        status, said = self._ask("POST", path, body)
        assert status == 200, said
        return said

    def _lines(self, path: str) -> list[dict[str, Any]]:
        status, text = self._ask("GET", path, lines=True)
        assert status == 200, text
        return [json.loads(line) for line in text.splitlines()]

    def _ask(
        self, method: str, path: str, body: Any = None, *, lines: bool = False, token: str = TOKEN
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
        sent = None if body is None else json.dumps(body).encode()
        with contextlib.closing(http.client.HTTPConnection(self.address, timeout=30)) as connection:
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        if lines:
            return answer.status, text
        try:
            return answer.status, json.loads(text)
        except json.JSONDecodeError:
            return answer.status, text


@contextlib.contextmanager
def running_exchange(*options: str) -> Iterator[Exchange]:
    """A simulator process of one's own: may be killed, may have options, is certainly gone afterwards."""
    command = [sys.executable, "-m", "worker.simulator", "--die-with-parent", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            line = process.stdout.readline()
            assert line, "the simulator said nothing; its message is on stderr"
            yield Exchange(process, json.loads(line)["url"])
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="session")
def exchange_stage() -> Iterator[Callable[[], Exchange]]:
    """Keeps one process for all tests; a test that killed it gets a new one for the next."""
    with contextlib.ExitStack() as stack:
        kept: list[Exchange] = []

        def fresh() -> Exchange:
            if not kept or kept[-1].process.poll() is not None:
                kept.append(stack.enter_context(running_exchange()))
            return kept[-1]

        yield fresh


@pytest.fixture
def exchange(exchange_stage: Callable[[], Exchange]) -> Exchange:
    """An empty exchange without lag, latency or faults: an order is Canceled as soon as it is POSTed."""
    found = exchange_stage()
    found.empty()
    return found
