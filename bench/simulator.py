"""The exchange simulator as a process, and what it saw: when each order's first POST arrived."""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

from bench.processes import BenchError

# Every answer takes 20 ms; an order is canceled 50 ms after its cancel, and reads show it at once.
DEFAULTS = {"latency": 0.02, "read_lag": 0, "settle": 0.05}
POLL = 0.02
STOP_BOUND = 5.0
FIRST_ORDER = 1_000_000_001


class Simulator:
    """One simulator for all contenders; orders are used once."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._address = urlsplit(url).netloc
        self._next_order = FIRST_ORDER
        self._seen = 0
        self._ask("/sim/faults", {"defaults": DEFAULTS})

    def place(self, orders: int) -> range:
        """So many new working orders."""
        placed = range(self._next_order, self._next_order + orders)
        self._next_order = placed.stop
        self._ask("/sim/orders", [{"from": placed.start, "count": orders}])
        self._seen = self._requests_seen()
        return placed

    def script(self, steps: Mapping[int, Any]) -> None:
        """What the POSTs of these orders meet."""
        self._ask("/sim/script", [{"id": order, "posts": posts} for order, posts in steps.items()])

    def arrivals(self, orders: range, *, bound: float, check: Callable[[], None]) -> dict[int, int]:
        """Wait until each of the orders placed last was POSTed: order → its first POST's arrival, µs since 1970."""
        give_up = time.monotonic() + bound
        while True:
            seen = self._requests_seen() - self._seen
            # A repeated POST may make up the number, so the log is what counts.
            if seen >= len(orders) and len(found := self._first_posts(orders)) == len(orders):
                return found
            if time.monotonic() > give_up:
                raise BenchError(f"{seen} POSTs for {len(orders)} orders within {bound:g} s")
            check()
            time.sleep(POLL)

    def _requests_seen(self) -> int:
        return int(json.loads(self._ask("/sim/health"))["requests_seen"])

    def _first_posts(self, orders: range) -> dict[int, int]:
        found: dict[int, int] = {}
        for line in self._ask(f"/sim/requests?since={self._seen}").splitlines():
            row = json.loads(line)
            if row["order_id"] in orders:
                found.setdefault(row["order_id"], row["at"])
        return found

    def _ask(self, path: str, body: Any = None) -> bytes:
        with closing(http.client.HTTPConnection(self._address, timeout=30)) as connection:
            connection.request("GET" if body is None else "POST", path, json.dumps(body))
            answer = connection.getresponse()
            said = answer.read()
        if answer.status != 200:
            raise BenchError(f"the simulator answered {answer.status} to {path}: {said[:200]!r}")
        return said


@contextmanager
def running_simulator() -> Iterator[Simulator]:
    command = [sys.executable, "-m", "worker.simulator", "--die-with-parent"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            line = process.stdout.readline() if process.stdout is not None else b""
            if not line:
                raise BenchError("the exchange simulator did not start")
            yield Simulator(json.loads(line)["url"])
        finally:
            process.terminate()
            try:
                process.wait(STOP_BOUND)
            except subprocess.TimeoutExpired:
                process.kill()
