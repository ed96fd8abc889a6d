"""Real worker processes on a real Redis, database and exchange, and the ways to end them."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import pytest
from sqlalchemy import Engine, func, select, text

from models import Base, Ended
from tests.parts.exchange import TOKEN, Exchange, eventually
from tests.parts.understudy import Doom, Fate, Understudy, cancelq
from worker import CancelQueue
from worker.audit.engine import open_engine, reading
from worker.audit.migrating import migrate
from worker.audit.surface import rows
from worker.audit.verify import Verification, verify
from worker.audit.views import audit_jobs
from worker.ledger.client import Ledger

READY = "worker.started"
OUTCOMES = select(func.count()).select_from(Ended)
# Short enough for tests, long enough for a loaded machine.
QUICK = {"CANCELQ_RETRY_BUDGET": "20", "CANCELQ_CONFIRM_BUDGET": "10"}


@dataclass
class Worker:
    """One `cancelq worker` process."""

    process: "subprocess.Popen[bytes] | Understudy"
    log: Path

    def when_ready(self) -> Self:
        eventually(
            lambda: READY in self.said() or self.process.poll() is not None,
            seconds=30,
            what="a ready worker",
        )
        assert self.process.poll() is None, self.said()
        return self

    def meet(self, doom: Doom, *, bound: float = 30) -> None:
        """Wait until it has killed itself there."""
        try:
            code = self.process.wait(bound)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{doom.gap} was not reached: {self.said()}") from None
        assert (code, doom.mark in self.said()) == (-signal.SIGKILL, True), self.said()

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self.process.kill()
        self.process.wait()

    def terminate(self, bound: float = 20) -> int:
        self.process.terminate()
        return self.process.wait(bound)

    def signal(self, name: signal.Signals) -> None:
        self.process.send_signal(name)

    def said(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Fleet:
    """Workers for one ledger, one database and one exchange."""

    redis_url: str
    ledger: str
    database_url: str
    exchange: Exchange
    folder: Path
    workers: list[Worker] = field(default_factory=list)
    closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    engines: dict[str, Engine] = field(default_factory=dict)

    def environment(self, **settings: str) -> Mapping[str, str]:
        plain = {k: v for k, v in os.environ.items() if not k.startswith("CANCELQ_")}
        ready = {} if settings.keys() & {"username", "credentials"} else {"CANCELQ_ACCESS_TOKEN": TOKEN}
        return (
            plain
            | QUICK
            | ready
            | {
                "CANCELQ_HOME": str(self.folder),
                "CANCELQ_REDIS_URL": self.redis_url,
                "CANCELQ_LEDGER": self.ledger,
                "CANCELQ_DATABASE_URL": self.database_url,
                "CANCELQ_EXCHANGE_URL": self.exchange.url,
                **{f"CANCELQ_{name.upper()}": value for name, value in settings.items()},
            }
        )

    def start(self, **settings: str) -> Worker:
        """One more worker process, ready to be rung."""
        return self.fork(**settings).when_ready()

    def spawn(self, **settings: str) -> Worker:
        """`cancelq worker` as a shell would start it, imports and all; not waited for."""
        log = self._log()
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker", "worker", "--die-with-parent"],
                env=self.environment(**settings),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
            )
        return self._joined(Worker(process, log))

    def fork(self, *arguments: str, doom: Fate | None = None, **settings: str) -> Worker:
        """A `cancelq worker` (or ARGUMENTS), forked and thus there sooner; with a doom it dies at a gap, or is deaf."""
        log = self._log()
        what = arguments or ("worker",)
        return self._joined(Worker(Understudy(what, self.environment(**settings), log, doom), log))

    def die_at(self, doom: Doom, *arguments: str, **settings: str) -> None:
        """Let a process run until it kills itself at the gap."""
        self.fork(*arguments, doom=doom, **settings).meet(doom)

    def _log(self) -> Path:
        return self.folder / f"worker-{len(self.workers)}.log"

    def _joined(self, worker: Worker) -> Worker:
        self.workers.append(worker)
        return worker

    def run(self, *arguments: str, bound: float = 30, **settings: str) -> "subprocess.CompletedProcess[str]":
        """One `cancelq` command against the same parts."""
        return cancelq(arguments, self.environment(**settings), bound=bound)

    def queue(self, bound: timedelta = timedelta(seconds=5)) -> CancelQueue:
        return self.closing.enter_context(CancelQueue(self.redis_url, self.ledger, bound=bound))

    def ledger_client(self) -> Ledger:
        """What a worker sees of the ledger; closed with the fleet."""
        return self.closing.enter_context(Ledger(self.redis_url, self.ledger, timeout=timedelta(seconds=5)))

    def when_compared(self) -> None:
        """Wait until a worker has compared the ledger with the audit: before that nothing is POSTed."""
        ledger = self.ledger_client()
        eventually(lambda: not ledger.sweep(timedelta(0)).uncompared, what="a compared ledger")

    def view(self, name: Any) -> list[dict[str, Any]]:
        with self._audit() as engine:
            return list(rows(engine, name))

    def table(self, name: str) -> list[dict[str, Any]]:
        """Every row of one table of facts, in the models' types."""
        with self._audit() as engine, reading(engine) as connection:
            found = connection.execute(select(Base.metadata.tables[name])).mappings()
            return [dict(row) for row in found]

    def select(self, statement: str) -> list[dict[str, Any]]:
        """What one SELECT finds, past the views."""
        with self._audit() as engine, reading(engine) as connection:
            return [dict(row) for row in connection.execute(text(statement)).mappings()]

    def fault_of_audit(self) -> Any:
        """What `cancelq verify` would name, the ledger's witnessed heads included."""
        return self.verified().fault

    def verified(self) -> Verification:
        ledger = Ledger(self.redis_url, self.ledger, timeout=timedelta(seconds=5))
        with self._audit() as engine, ledger:
            return verify(engine, ledger.heads())

    def ends(self, count: int, *, seconds: float = 40) -> dict[int, dict[str, Any]]:
        """audit_jobs by order id, once `count` of them have their outcome."""

        def ended() -> list[dict[str, Any]] | None:
            done = [row for row in self.view("audit_jobs") if row["outcome"] is not None]
            return done if len(done) >= count else None

        with self._audit() as engine:
            eventually(lambda: outcomes_in(engine) >= count, seconds=seconds, what=f"{count} outcomes")
        found = eventually(ended, seconds=seconds, what=f"{count} jobs with an outcome")
        return {row["order_id"]: row for row in found}

    def wait_for_end(self, job_id: str, *, seconds: float = 40) -> dict[str, Any]:
        """The row of audit_jobs, once it has its outcome."""
        ended = audit_jobs.c.job_id == job_id, audit_jobs.c.outcome.is_not(None)

        def row(engine: Engine) -> dict[str, Any] | None:
            with reading(engine) as connection:
                found = connection.execute(select(audit_jobs).where(*ended)).mappings().first()
                return None if found is None else dict(found)

        with self._audit() as engine:
            end: dict[str, Any] = eventually(
                lambda: row(engine), seconds=seconds, what=f"the end of job {job_id}"
            )
        return end

    @contextlib.contextmanager
    def _audit(self) -> Iterator[Engine]:
        """The database as a reader has it. One engine keeps what it compiled, and no connection that a crash breaks."""
        if self.database_url not in self.engines:
            self.engines[self.database_url] = open_engine(self.database_url)
        engine = self.engines[self.database_url]
        try:
            yield engine
        finally:
            engine.dispose()

    def attempts(self, order_id: int) -> list[dict[str, Any]]:
        found = [row for row in self.view("audit_attempts") if row["order_id"] == order_id]
        return sorted(found, key=lambda row: int(row["attempt"]))

    def stop(self) -> None:
        self.closing.close()
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGCONT)
                worker.process.kill()
            worker.process.wait()
            if worker.process.stdin is not None:
                worker.process.stdin.close()


def outcomes_in(engine: Engine) -> int:
    with reading(engine) as connection:
        return int(connection.execute(OUTCOMES).scalar_one())


@pytest.fixture
def make_fleet(exchange: Exchange, tmp_path: Path, sqlite_template: Path) -> Iterator[Callable[..., Fleet]]:
    """A fleet on the parts that a test names."""
    with contextlib.ExitStack() as stopping:

        def make(redis_url: str, ledger: str, database_url: str) -> Fleet:
            file = Path(database_url.removeprefix("sqlite:///"))
            if not database_url.startswith("sqlite"):
                migrate(database_url)
            elif not file.exists():
                shutil.copyfile(sqlite_template, file)
            fleet = Fleet(redis_url, ledger, database_url, exchange, tmp_path)
            stopping.callback(fleet.stop)
            return fleet

        yield make


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet], redis_url: str, ledger_name: str, database_url: str) -> Fleet:
    """Workers on the shared Valkey, on each database in turn."""
    return make_fleet(redis_url, ledger_name, database_url)


@pytest.fixture
def plain_fleet(make_fleet: Callable[..., Fleet], redis_url: str, ledger_name: str, tmp_path: Path) -> Fleet:
    """On SQLite: for what does not depend on the database."""
    return make_fleet(redis_url, ledger_name, f"sqlite:///{tmp_path / 'audit.sqlite3'}")
