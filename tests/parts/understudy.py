"""`cancelq` in a process of its own that starts in a tenth of a second, and may be made to die at a gap.

It is forked from a server that has imported the program and done nothing else (multiprocessing's forkserver). The only
place that listens to `worker.gaps`. SIGKILL: no handler, no flush and no goodbye; the mark is written before.
"""

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING

from worker import gaps

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

STDOUT, STDERR = 1, 2
# What commands import lazily; only time is lost where one is missing here.
PROGRAM = [
    "tests.parts.understudy",
    "celery.app.trace",
    "celery.concurrency.thread",
    "celery.worker.components",
    "celery.worker.consumer",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "uuid_utils",
    "worker.app.logs",
    "worker.app.serve",
    "worker.audit.amend",
    "worker.audit.bounded",
    "worker.cli.amend",
    "worker.cli.intake",
    "worker.cli.records",
    "worker.cli.serve",
    "worker.embedded.places",
    "worker.ledger.producer",
]
# An exit code can be read from the server once, and starting a process reads those of all others.
ONE_AT_A_TIME = threading.Lock()
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(PROGRAM)


@dataclass(frozen=True, slots=True)
class Doom:
    """At which gap to die, and at which time of reaching it, counted once another gap was reached."""

    gap: gaps.Gap
    nth: int = 1
    after: gaps.Gap | None = None

    @property
    def mark(self) -> str:
        return f"killed at {self.gap}"


class Understudy:
    """The process, with the words of `subprocess.Popen`."""

    stdin = None

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, doom: Doom | None
    ) -> None:
        log.touch()
        self._process: ForkServerProcess = FORKS.Process(
            target=_play, args=(list(arguments), dict(environment), log, doom)
        )
        with ONE_AT_A_TIME:
            self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def poll(self) -> int | None:
        with ONE_AT_A_TIME:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise TimeoutExpired("understudy", timeout or 0)
        return code

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def send_signal(self, name: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, name)


def _play(arguments: list[str], environment: dict[str, str], log: Path, doom: Doom | None) -> None:
    with log.open("ab") as out:
        os.dup2(out.fileno(), STDOUT)
        os.dup2(out.fileno(), STDERR)
    threading.Thread(target=_die_with_the_tests, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    if doom is not None:
        _die_at(doom)
    from worker.cli import main  # noqa: PLC0415

    main(arguments, prog_name="cancelq")


def _die_with_the_tests() -> None:
    tests = multiprocessing.parent_process()
    if tests is not None:
        wait([tests.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)


def _die_at(doom: Doom) -> None:
    """From now on reaching the gap for the nth time, by whatever thread, is the end."""
    times = itertools.count(1)
    counted = threading.Event()
    if doom.after is None:
        counted.set()

    def observe(gap: gaps.Gap) -> None:
        if gap is doom.after:
            counted.set()
        elif gap is doom.gap and counted.is_set() and next(times) == doom.nth:
            os.write(STDERR, f"{doom.mark}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    gaps.observer = observe
