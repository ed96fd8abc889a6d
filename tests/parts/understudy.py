"""`cancelq` in a process of its own that starts in a tenth of a second, and may be made to die at a gap.

It is forked from a server that has imported the program and done nothing else (multiprocessing's forkserver). The only
place that listens to `worker.gaps`. SIGKILL: no handler, no flush and no goodbye; the mark is written before. SIGSTOP:
all its threads stand still right there.
"""

import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from kombu.transport.virtual import Empty

from worker import gaps

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

STDOUT, STDERR = 1, 2
# What commands import lazily; only time is lost where one is missing here.
PROGRAM = [
    "tests.parts.understudy",
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.app.trace",
    "celery.backends.base",
    "celery.concurrency.thread",
    "celery.events.dispatcher",
    "celery.fixups.django",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.strategy",
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
    "worker.embedded.lifeline",
    "worker.embedded.places",
    "worker.ledger.producer",
    "tests.parts.settled",
]
# An exit code can be read from the server once, and starting a process reads those of all others.
ONE_AT_A_TIME = threading.Lock()
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(PROGRAM)


@dataclass(frozen=True, slots=True)
class Doom:
    """At which gap to die (or to freeze), and at which time of reaching it, counted once another gap was reached.

    `then`: what becomes of it once it was thawed.
    """

    gap: gaps.Gap
    nth: int = 1
    after: gaps.Gap | None = None
    by: signal.Signals = signal.SIGKILL
    then: "Doom | None" = None

    @property
    def mark(self) -> str:
        return f"{self.by.name} at {self.gap}"


@dataclass(frozen=True, slots=True)
class Deafness:
    """Celery takes each bell and answers none: it hangs with the first one in hand, or goes on without a word."""

    hangs: bool


Fate = Doom | Deafness


@dataclass(frozen=True, slots=True)
class Dressing:
    """Where a process reads and writes, and stands."""

    out: Path
    err: Path
    stdin: Path | None = None
    folder: Path | None = None


class Understudy:
    """The process, with the words of `subprocess.Popen`; what it says goes into one file, or as its dressing says."""

    stdin = None

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: Path | Dressing,
        fate: Fate | None = None,
    ) -> None:
        worn = log if isinstance(log, Dressing) else Dressing(log, log)
        for path in (worn.out, worn.err):
            path.touch()
        self._process: ForkServerProcess = FORKS.Process(
            target=_play, args=(list(arguments), dict(environment), worn, fate)
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


def cancelq(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    folder: Path | None = None,
    stdin: bytes = b"",
    bound: float = 60,
) -> CompletedProcess[str]:
    """One command from beginning to end; started in `folder` if that matters."""
    with TemporaryDirectory(prefix="cq-said-") as place:
        at = Path(place)
        (at / "in").write_bytes(stdin)
        worn = Dressing(at / "out", at / "err", at / "in", folder)
        process = Understudy(arguments, environment, worn)
        try:
            code = process.wait(bound)
        finally:
            process.kill()
        return CompletedProcess(list(arguments), code, worn.out.read_text(), worn.err.read_text())


def _play(arguments: list[str], environment: dict[str, str], worn: Dressing, fate: Fate | None) -> None:
    with worn.out.open("ab") as out, worn.err.open("ab") as err:
        os.dup2(out.fileno(), STDOUT)
        os.dup2(err.fileno(), STDERR)
    if worn.stdin is not None:
        sys.stdin = worn.stdin.open()
    if worn.folder is not None:
        os.chdir(worn.folder)
    threading.Thread(target=_die_with_the_tests, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    match fate:
        case Doom():
            _die_at(fate)
        case Deafness():
            _turn_deaf(fate)
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
            # To this very thread: one sent to the process lets it run on for some microseconds.
            signal.pthread_kill(threading.get_ident(), doom.by)
            if doom.then is not None:
                _die_at(doom.then)

    gaps.observer = observe


def _turn_deaf(deafness: Deafness) -> None:
    def observe(gap: gaps.Gap) -> None:
        if gap is gaps.Gap.BELL_TAKEN:
            os.write(STDERR, b"a bell was not answered\n")
            if deafness.hangs:
                threading.Event().wait()
            raise Empty

    gaps.observer = observe
