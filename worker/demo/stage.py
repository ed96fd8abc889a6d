"""The demo's processes: Valkey, the simulator, one Celery worker, two producers. None outlives its parent."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from worker.embedded import child
from worker.embedded.valkey import ensure
from worker.errors import CancelqError

# Enough for a loaded machine; every part is up within a second on a quiet one.
START_BOUND = 30.0
# Seconds: longer than the demo takes, so that it shows but changes no end.
DEADLINE = 45
ARMED_FOR = timedelta(seconds=1)
# The demo is to end in seconds, also for orders that the exchange never lets go.
SHORT_BUDGETS = {"CANCELQ_RETRY_BUDGET": "15", "CANCELQ_CONFIRM_BUDGET": "10", "CANCELQ_READ_TIMEOUT": "2"}


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything is, and how to start one more process beside it."""

    home: Path
    exchange_url: str
    environment: Mapping[str, str]
    processes: ExitStack

    def start(self, *arguments: str, stdin: bytes | None = None) -> "subprocess.Popen[bytes]":
        """Start `cancelq ARGUMENTS`; with `stdin` None it ends when this process does."""
        log = (self.home / f"{arguments[0]}.log").open("ab")
        with log:
            process = child.start(arguments, environment=self.environment, stdout=log, stderr=log)
        self.processes.callback(child.stop, process)
        if stdin is not None and process.stdin is not None:
            process.stdin.write(stdin)
            process.stdin.close()
        return process

    def wait_for(self, name: str, words: str, process: "subprocess.Popen[bytes]") -> None:
        """Until the process's log says `words`; CancelqError with its last line if it ends first."""
        log = self.home / f"{name}.log"
        give_up = time.monotonic() + START_BOUND
        while words not in (said := log.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > give_up:
                last = said.strip().splitlines()[-1:]
                raise CancelqError(f"the demo's {name} did not get ready: {' '.join(last)}")
            time.sleep(0.02)

    def run(self, *arguments: str) -> str:
        """What `cancelq ARGUMENTS` prints."""
        command = [sys.executable, "-m", "worker", *arguments]
        done = subprocess.run(
            command,
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            timeout=START_BOUND,
            check=False,
            text=True,
        )
        return done.stdout

    def ask(self, path: str, body: Any = None) -> bytes:
        """One call to the simulator's own side."""
        connection = http.client.HTTPConnection(urlsplit(self.exchange_url).netloc, timeout=10)
        try:
            connection.request("POST" if body is not None else "GET", path, json.dumps(body))
            response = connection.getresponse()
            said = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise CancelqError(f"the simulator answered {response.status} to {path}: {said[:200]!r}")
        return said

    def truth(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.ask("/sim/truth").splitlines()]


@contextmanager
def stage(home: Path, *, seed: int) -> Iterator[Stage]:
    """Start the embedded Valkey and the simulator; stop everything that was started at the end."""
    with ExitStack() as processes, ensure(home) as valkey:
        simulator, url = _start_simulator(seed)
        processes.callback(child.stop, simulator)
        yield Stage(home, url, _environment(home, valkey.url, url), processes)
        processes.close()  # before Valkey goes


def _environment(home: Path, redis_url: str, exchange_url: str) -> dict[str, str]:
    """Nothing of the caller's own configuration reaches the demo: it must never meet a real exchange."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith("CANCELQ_")}
    return (
        mine
        | SHORT_BUDGETS
        | {
            "CANCELQ_HOME": str(home),
            "CANCELQ_REDIS_URL": redis_url,
            "CANCELQ_EXCHANGE_URL": exchange_url,
            "CANCELQ_ACCESS_TOKEN": "demo-token",
            "CANCELQ_RATE_LIMIT": "",  # the simulator has none, and --orders may be large
            "CANCELQ_DATABASE_URL": f"sqlite:///{home / 'audit.sqlite3'}",
        }
    )


def _start_simulator(seed: int) -> tuple["subprocess.Popen[bytes]", str]:
    arguments = ["simulator", "--port", "0", "--seed", str(seed), "--die-with-parent"]
    process = child.start(arguments, stdout=subprocess.PIPE)
    line = process.stdout.readline() if process.stdout is not None else b""
    if not line:
        child.stop(process)
        raise CancelqError("the exchange simulator did not start")
    return process, str(json.loads(line)["url"])


def request_lines(orders: Sequence[int], strategy: str) -> bytes:
    """One cancel request a line, as a strategy in any language would write them; some wishes are special."""
    return b"".join(
        json.dumps(line).encode() + b"\n" for order in orders for line in _wishes(order, strategy)
    )


def _wishes(order: int, strategy: str) -> Iterator[dict[str, object]]:
    """Mostly plain; some urgent, with a deadline, armed for a second later, or asked for by two at once."""
    wish: dict[str, object] = {"orderId": order, "account": "DEMO1", "requestedBy": strategy}
    if order % 10 == 1:
        wish |= {"priority": "urgent", "clOrdId": f"{strategy}-{order}"}
    if order % 10 == 4:
        wish["deadline"] = DEADLINE
    if order % 25 == 7:
        wish["activationTime"] = (datetime.now(UTC) + ARMED_FOR).isoformat()
    yield wish
    if order % 20 == 9:
        yield wish | {"requestedBy": f"risk-of-{strategy}", "priority": "urgent"}
