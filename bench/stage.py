"""What all contenders share: one durable Valkey, one durable database server, one simulator, one scratch folder."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from bench.simulator import Simulator, running_simulator
from tests.parts.databases import Unavailable, running_postgres
from worker.audit.migrating import migrate
from worker.embedded.valkey import ensure
from worker.ledger.client import Ledger
from worker.ledger.connection import broker_settings

TOKEN = "bench-token"
LEDGER = "cancelq"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where everything is; `database` is its name for the table."""

    home: Path
    redis_url: str
    audit_url: str
    plain_url: str
    database: str
    simulator: Simulator

    @property
    def broker_url(self) -> str:
        return str(broker_settings(self.redis_url)["broker_url"])

    def environment(self, **settings: str) -> dict[str, str]:
        """Nothing of the caller's own configuration: no real exchange, and no proxy in front of the simulator."""
        mine = {k: v for k, v in os.environ.items() if not _is_foreign(k)}
        return mine | {
            "CANCELQ_HOME": str(self.home),
            "CANCELQ_REDIS_URL": self.redis_url,
            "CANCELQ_LEDGER": LEDGER,
            "CANCELQ_DATABASE_URL": self.audit_url,
            "CANCELQ_EXCHANGE_URL": self.simulator.url,
            "CANCELQ_ACCESS_TOKEN": TOKEN,
            "CANCELQ_RATE_LIMIT": "",  # a run makes more calls than an hour allows
            **settings,
        }


@contextmanager
def stage() -> Iterator[Stage]:
    """Start the parts; stop them, and remove what they wrote, at the end."""
    with ExitStack() as parts:
        home = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="cq-bench-")))
        audit_url, plain_url, database = _databases(home, parts)
        migrate(audit_url)
        redis_url = parts.enter_context(ensure(home)).url
        with Ledger(redis_url, LEDGER, timeout=timedelta(seconds=5)) as ledger:
            ledger.load_functions()
        yield Stage(
            home=home,
            redis_url=redis_url,
            audit_url=audit_url,
            plain_url=plain_url,
            database=database,
            simulator=parts.enter_context(running_simulator()),
        )


def _databases(home: Path, parts: ExitStack) -> tuple[str, str, str]:
    """One for the audit, one for the others' rows, on the same server."""
    try:
        # Some queues live in tables; 64 connections of one contender may close while another opens its own.
        server = parts.enter_context(running_postgres(autovacuum="on", max_connections="200"))
    except (Unavailable, OSError) as error:
        print(f"PostgreSQL cannot be started ({error}); SQLite serves all contenders.")
        return f"sqlite:///{home / 'audit.sqlite3'}", f"sqlite:///{home / 'plain.sqlite3'}", "SQLite"
    server.run("CREATE DATABASE audit", "CREATE DATABASE plain")
    return server.url("audit"), server.url("plain"), "PostgreSQL, fsync on"


def _is_foreign(name: str) -> bool:
    return name.startswith("CANCELQ_") or name.lower().endswith("_proxy")
