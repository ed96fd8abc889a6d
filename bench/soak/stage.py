"""The parts of one round, each of which can be hurt: workers, Valkey, a database, the way to the exchange."""

import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from redis import Redis

from tests.parts.databases import PostgresServer, running_postgres
from tests.parts.exchange import running_exchange
from tests.parts.fleet import Fleet, Worker
from tests.parts.proxy import Proxy, proxy
from tests.parts.valkey import PrivateValkey
from worker.audit.journal import Journal
from worker.audit.migrating import migrate

LEDGER = "soak"
WORKERS = 3
# Budgets above all outages together: whatever ends without proof is a finding.
SETTINGS = {
    "rate_limit": "",  # it would end the flow, as it should
    "concurrency": "16",
    "retry_budget": "300",
    "confirm_budget": "300",
    "connect_timeout": "1",
    "read_timeout": "2",
    "total_timeout": "3",
}


class Database(Protocol):
    url: str

    def kill(self) -> None: ...

    def come_back(self) -> None: ...


@dataclass
class Sqlite:
    """A file can't be killed: who holds its lock keeps everybody from writing."""

    path: Path
    url: str
    _holder: sqlite3.Connection | None = None

    def kill(self) -> None:
        self._holder = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        self._holder.execute("BEGIN IMMEDIATE")

    def come_back(self) -> None:
        if self._holder is not None:
            self._holder.close()


@dataclass
class Postgres:
    server: PostgresServer

    url: str

    def kill(self) -> None:
        self.server.halt()

    def come_back(self) -> None:
        self.server.revive()


@dataclass
class Stage:
    """One round's parts, and who works there at present."""

    fleet: Fleet
    valkey: PrivateValkey
    database: Database
    way: Proxy  # to the exchange, whose simulator goes on: the truth must survive
    workers: list[Worker]

    @property
    def exchange_url(self) -> str:
        return f"http://127.0.0.1:{self.way.port}/v1"

    def hire(self) -> None:
        self.workers.append(self.fleet.fork(doom=None, exchange_url=self.exchange_url, **SETTINGS))

    def rows_in_journal(self) -> int:
        """Rows that wait on this host for the database."""
        journal = Journal(self.fleet.folder, LEDGER, self.exchange_url, lambda *_told: None)
        return journal.opened().depth() if journal.exists else 0

    def in_hand(self, worker: Worker) -> list[str]:
        """The jobs whose lease the ledger grants to this process."""
        name = f"{socket.gethostname()}/{worker.process.pid} "  # the chain of its rows follows
        prefix = f"{{{LEDGER}}}"
        with Redis.from_url(self.fleet.redis_url, decode_responses=True) as redis:
            held = redis.zrange(f"{prefix}:leases", 0, -1)
            asked = redis.pipeline(transaction=False)
            for job in held:
                asked.hget(f"{prefix}:job:{job}", "worker")
            holders = asked.execute()
            return [job for job, holder in zip(held, holders, strict=True) if (holder or "").startswith(name)]

    def backlog(self) -> int:
        """Cancels that nobody has claimed yet."""
        with Redis.from_url(self.fleet.redis_url, socket_timeout=1) as redis:
            return int(redis.zcard(f"{{{LEDGER}}}:due"))


@contextmanager
def stage(kind: str, seed: int) -> Iterator[Stage]:
    """Real processes on files of their own, in a folder that is gone afterwards."""
    with ExitStack() as parts:
        home = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="cq-soak-")))
        exchange = parts.enter_context(running_exchange("--seed", str(seed)))
        valkey = PrivateValkey(home / "valkey")
        parts.callback(valkey.stop)
        database = _database(kind, home, parts)
        migrate(database.url)
        way = parts.enter_context(proxy(exchange.port))
        fleet = Fleet(valkey.url, LEDGER, database.url, exchange, home)
        parts.callback(fleet.stop)
        found = Stage(fleet, valkey, database, way, [])
        for _ in range(WORKERS):
            found.hire()
        for worker in found.workers:
            worker.when_ready()
        yield found


def _database(kind: str, home: Path, parts: ExitStack) -> Database:
    if kind == "sqlite":
        return Sqlite(home / "audit.sqlite3", f"sqlite:///{home / 'audit.sqlite3'}")
    server = parts.enter_context(running_postgres())
    server.run("CREATE DATABASE audit")
    return Postgres(server, server.url("audit"))
