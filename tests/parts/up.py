"""A real `cancelq up` on a folder of its own, and the processes that it says it started."""

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.parts.exchange import TOKEN, Exchange, eventually
from tests.parts.processes import started_from


@dataclass
class Up:
    """One `cancelq up` process, its folder and its log."""

    process: "subprocess.Popen[bytes]"
    home: Path
    log: Path
    settings: Mapping[str, str]

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def events(self, event: str, **facts: Any) -> list[dict[str, Any]]:
        """The log's events of this name with these facts, in order."""
        lines = [line for line in self.said().splitlines() if line.startswith("{") and line.endswith("}")]
        wanted = {"event": event, **facts}
        return [found for found in map(json.loads, lines) if wanted.items() <= found.items()]

    def wait_for(self, event: str, *, count: int = 1, **facts: Any) -> dict[str, Any]:
        """The log's event of this name, as soon as there are so many; the last of them."""

        def enough() -> dict[str, Any] | None:
            found = self.events(event, **facts)
            return found[-1] if len(found) >= count else None

        return eventually(enough, seconds=60, what=f"{count} x {event} {facts} in\n{self.said()}")

    def ready(self) -> "Up":
        self.wait_for("worker.started")
        return self

    def pid(self, part: str) -> int:
        """Of the part's newest process."""
        found = self.events("part.started", part=part) + self.events("part.restarted", part=part)
        return int(found[-1]["pid"])

    def pids(self) -> list[int]:
        """Of every process that it ever started."""
        found = self.events("part.started") + self.events("part.restarted")
        return [int(event["pid"]) for event in found if event["pid"] is not None]

    def kill(self, part: str) -> None:
        """SIGKILL of the part's process."""
        os.kill(self.pid(part), signal.SIGKILL)

    def end(self, *signals: signal.Signals, bound: float = 20) -> int:
        for name in signals or (signal.SIGINT,):
            self.process.send_signal(name)
        return self.process.wait(bound)

    def flower_url(self) -> str:
        """What it said on its way up."""
        found = eventually(lambda: re.search(r"Flower +(http\S+)", self.said()), what="Flower's address")
        return str(found[1])

    def flower(
        self, path: str, *, method: str = "GET", body: str | None = None, password: str | None = ""
    ) -> tuple[int, str]:
        """Ask Flower, with the password of its file unless told otherwise; None: with none."""
        address = urlsplit(self.flower_url()).netloc
        secret = (self.home / "flower-password").read_text().strip() if password == "" else password
        basic = base64.b64encode(f"cancelq:{secret}".encode()).decode()
        headers = {} if secret is None else {"Authorization": f"Basic {basic}"}
        with contextlib.closing(http.client.HTTPConnection(address, timeout=30)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def cancelq(self, *arguments: str) -> Any:
        """What one `cancelq` command beside it prints, as JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            env=dict(self.settings),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout + self.said()
        return json.loads(done.stdout.splitlines()[-1])

    def cancel(self, order: int) -> Any:
        """Enqueue a cancel and wait for its end."""
        return self.cancelq("enqueue", str(order), "--wait", "30")


def settings_for(home: Path, **settings: str | None) -> dict[str, str]:
    """An environment with these settings; None unsets one."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("CANCELQ_", "FLOWER_"))}
    wanted = {"home": str(home), "access_token": TOKEN, "log": "json", **settings}
    return plain | {f"CANCELQ_{name.upper()}": value for name, value in wanted.items() if value is not None}


@pytest.fixture
def start_up(exchange: Exchange, tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Start `cancelq up ARGUMENTS` with these settings; whatever still runs at the end is killed."""
    started: list[Up] = []

    def start(*arguments: str, **settings: str | None) -> Up:
        home = tmp_path / "home"
        log = tmp_path / f"up-{len(started)}.log"
        environment = settings_for(home, **{"exchange_url": exchange.url, **settings})
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker", "up", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        started.append(Up(process, home, log, environment))
        return started[-1]

    yield start
    for up in started:
        up.process.kill()
        up.process.wait()
    for pid in started_from(tmp_path / "home"):  # only what a failed test let live
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
