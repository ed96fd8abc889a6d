"""Looks at the audit's database as a worker would open it: settings, triggers, rights, room. Commits nothing."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, Engine, insert, text

from models import Base, Ended
from worker.audit.engine import answering, reading
from worker.clock import Offset, monotonic, offset, utc_now

if TYPE_CHECKING:
    import psycopg

SQLITE_GUARDS = ("no_update", "no_delete", "no_replace")
# What a commit on PostgreSQL rests on; read from the session that a worker would have.
POSTGRESQL_SETTINGS = (
    *("server_version", "server_encoding", "synchronous_commit", "fsync", "full_page_writes"),
    *("session_replication_role", "default_transaction_read_only"),
)
SQLITE_SETTINGS = ("journal_mode", "synchronous", "foreign_keys", "query_only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What this user could do to the audit beside adding to it."""

    user: str
    superuser: bool
    owns: tuple[str, ...]  # tables whose triggers this user may switch off


def settings(engine: Engine) -> Mapping[str, str]:
    """What the server or the file says of itself, by name."""
    sqlite = engine.dialect.name == "sqlite"
    names, word = (SQLITE_SETTINGS, "PRAGMA") if sqlite else (POSTGRESQL_SETTINGS, "SHOW")
    with answering(engine), engine.connect() as connection:
        found = {name: str(connection.execute(text(f"{word} {name}")).scalar_one()) for name in names}
        if not sqlite:
            found["standby"] = str(connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one())
        return found


def unguarded(engine: Engine) -> list[str]:
    """The triggers that should defend a table and don't: `trigger of table`."""
    with reading(engine) as connection:
        found = _guards(connection)
        expected = [
            (guard, table)
            for table in sorted(Base.metadata.tables)
            for guard in (SQLITE_GUARDS if engine.dialect.name == "sqlite" else ("append_only",))
        ]
    return [f"{table}_{guard}" for guard, table in expected if (table, f"{table}_{guard}") not in found]


def power(engine: Engine) -> Power:
    """On PostgreSQL: whether this user could switch the triggers off."""
    with reading(engine) as connection:
        user, superuser = connection.execute(
            text("SELECT rolname, rolsuper FROM pg_roles WHERE rolname = current_user")
        ).one()
        owned = connection.execute(
            text(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname = ANY(:tables) "
                "AND pg_table_is_visible(oid) AND pg_has_role(current_user, relowner, 'USAGE') ORDER BY relname"
            ),
            {"tables": sorted(Base.metadata.tables)},
        )
        return Power(user=user, superuser=bool(superuser), owns=tuple(owned.scalars()))


def transport(engine: Engine) -> tuple[Mapping[str, str], bool]:
    """How libpq has connected: its parameters, and whether under TLS."""
    with reading(engine) as connection:
        libpq = cast("psycopg.Connection[Any]", connection.connection.dbapi_connection).pgconn
        parameters = {option.keyword.decode(): (option.val or b"").decode() for option in libpq.info}
        return parameters | {"host": libpq.host.decode()}, libpq.ssl_in_use


def connections_left(engine: Engine) -> int:
    """How many more connections this PostgreSQL takes from ordinary users."""
    with reading(engine) as connection:
        return int(
            connection.execute(
                text(
                    "SELECT current_setting('max_connections')::int "
                    "- current_setting('superuser_reserved_connections')::int - count(*) "
                    "FROM pg_stat_activity WHERE backend_type = 'client backend'"
                )
            ).scalar_one()
        )


def clock(engine: Engine) -> Offset:
    """Of a PostgreSQL server; SQLite has this host's."""
    with reading(engine) as connection:
        connection.execute(text("SELECT 1"))  # BEGIN travels with the first statement
        before = utc_now()
        theirs: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        return offset(theirs, before, utc_now())


def trial_write(engine: Engine) -> timedelta:
    """Insert a row and take it back; how long that took. Raises what the database has against it."""
    row = {
        "writer": f"doctor-{uuid.uuid4()}",
        "seq": 1,
        "prev": "",
        "digest": "",
        "environment": "doctor",
        "job_id": f"doctor-{uuid.uuid4()}",
        "outcome": "unresolved",
        "evidence": "doctor",
        "finished_at": utc_now(),
    }
    with answering(engine), engine.connect() as connection:
        began = monotonic()
        connection.execute(insert(Ended.__table__), row)  # type: ignore[arg-type]
        took = monotonic() - began
        connection.rollback()
    return took


def _guards(connection: Connection) -> set[tuple[str, str]]:
    """(table, trigger) of the triggers that are there, switched on, and refuse."""
    if connection.dialect.name == "sqlite":
        rows: Sequence[tuple[str, str, str]] = [
            (row[0], row[1], row[2])
            for row in connection.execute(
                text("SELECT tbl_name, name, sql FROM sqlite_master WHERE type = 'trigger'")
            )
        ]
        return {(table, name) for table, name, sql in rows if "RAISE(ABORT" in sql}
    found = connection.execute(
        text(
            "SELECT c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
            "JOIN pg_proc p ON p.oid = t.tgfoid WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') "
            "AND p.proname = 'cancelq_append_only' AND p.prosrc LIKE '%RAISE EXCEPTION%' "
            "AND pg_table_is_visible(c.oid)"
        )
    )
    return {(row[0], row[1]) for row in found}
