"""The audit's database: is it there, at the right schema, defended, and does a commit reach the disk."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from worker.audit import inspection
from worker.audit.engine import address, audit_url, is_missing, open_engine
from worker.audit.schema import require_head, require_writer
from worker.audit.stamp import owner
from worker.audit.view_check import Views, compare_views
from worker.doctor.finding import Check, Finding, each, failed, ok, skipped, warning
from worker.doctor.host_checks import REMOTE, filesystem, space
from worker.doctor.moments import clock_finding, milliseconds
from worker.doctor.roads import DATABASE, Road, database_road, mend_for, road_finding
from worker.doctor.stamps import stamp_finding
from worker.errors import AuditUnavailable, ConfigError
from worker.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

STATEMENT_BOUND = timedelta(seconds=2)
# One worker's pool at its widest, and somebody who reads a report.
CONNECTIONS = 16
SLOW_WRITE = timedelta(milliseconds=100)
MEND = "see that the database runs, that CANCELQ_DATABASE_URL names it, and that its user may read and insert"
ON_DISK = {"synchronous_commit": "on", "fsync": "on", "full_page_writes": "on"}
STRONGER = {"remote_apply", "on"}
SQLITE_FULL = {"2", "3"}  # FULL, EXTRA


def look(settings: Settings) -> Iterator[Finding]:
    engine = open_engine(audit_url(settings), statement_bound=STATEMENT_BOUND)
    try:
        yield from examine(engine, settings.exchange_url, embedded=settings.database_url is None)
    finally:
        engine.dispose()


def examine(engine: "Engine", exchange_url: str, *, embedded: bool) -> Iterator[Finding]:
    """Everything about a database; without its schema, only that."""
    where = address(engine)
    if is_missing(engine) and embedded:
        yield ok("database", f"CANCELQ_DATABASE_URL is not set: {where} would be made at the first start")
        return
    try:
        require_head(engine)
    except (AuditUnavailable, ConfigError) as error:
        yield failed("database", str(error), mend_for(str(error), DATABASE, _schema_mend(error)))
        yield skipped("database: all else", "not asked before the schema is there")
        return
    yield ok("database", f"{where}, its schema is the newest")
    sqlite = engine.dialect.name == "sqlite"
    common: list[Check] = [
        ("database: rights", lambda: rights(engine)),
        ("database: triggers", lambda: triggers(inspection.unguarded(engine))),
        ("database: views", lambda: views(compare_views(engine))),
        ("database: write", lambda: writing(inspection.trial_write(engine))),
        (
            "database: stamp",
            lambda: [stamp_finding("database: stamp", owner(engine), exchange_url)],
        ),
    ]
    own = _sqlite_checks(engine) if sqlite else _postgresql_checks(engine)
    yield from each(own + common, MEND)


def _schema_mend(error: Exception) -> str:
    if isinstance(error, AuditUnavailable):
        return MEND
    return "run: cancelq migrate" if "cancelq migrate" in str(error) else "upgrade this cancelq"


def triggers(missing: list[str]) -> Iterator[Finding]:
    """Without them a row of the audit can be changed by a plain UPDATE."""
    what = "database: triggers"
    if missing:
        yield failed(
            what,
            f"missing or switched off: {', '.join(missing)}; rows can be changed",
            "run `cancelq verify`, find out who did it, then restore them: ALTER TABLE … ENABLE TRIGGER ALL, "
            "or the statements of migrations/append_only.py",
        )
    else:
        yield ok(what, "every table refuses UPDATE, DELETE and their disguises")


def views(found: Views) -> Iterator[Finding]:
    """Reports and everybody's SQL read through them."""
    what = "database: views"
    if found.fault is not None:
        yield failed(
            what,
            f"{' '.join(found.fault)}; reports may lie",
            "find out who did it, then drop it and make it again with its statement of migrations/views_0001.py",
        )
    elif found.unchecked:
        yield skipped(what, f"not compared with what the migrations made: {found.unchecked}")
    else:
        yield ok(what, "each is the one that the migrations made")


def rights(engine: "Engine") -> Iterator[Finding]:
    require_writer(engine)
    yield ok("database: rights", "this user may add to every table")


def writing(took: timedelta) -> Iterator[Finding]:
    said = f"a row was inserted and taken back in {milliseconds(took)}"
    if took > SLOW_WRITE:
        mend = "see what holds it up: the network, locks, or the disk"
        yield warning("database: write", f"{said}: each attempt waits for two commits", mend)
    else:
        yield ok("database: write", said)


# ------------------------------------------------------------------------------------------------ SQLite


def _sqlite_checks(engine: "Engine") -> list[Check]:
    folder = Path(engine.url.database or "").absolute().parent
    return [
        ("database: durability", lambda: sqlite_durability(engine)),
        ("database: disk", lambda: sqlite_disk(folder)),
    ]


def sqlite_durability(engine: "Engine") -> Iterator[Finding]:
    what, found = "database: durability", inspection.settings(engine)
    if found["journal_mode"] != "wal":
        mend = "move the file to a local disk: WAL does not work where it is"
        yield failed(what, f"journal_mode is {found['journal_mode']}, not wal", mend)
    elif found["synchronous"] not in SQLITE_FULL:
        yield failed(
            what, f"synchronous is {found['synchronous']}, not FULL", "use cancelq's own way to open it"
        )
    else:
        yield ok(what, "WAL, synchronous FULL: a commit is on disk")


def sqlite_disk(folder: Path) -> Iterator[Finding]:
    kind = filesystem(folder)
    if kind in REMOTE:
        mend = "move it to a local disk, or use PostgreSQL"
        yield failed("database: disk", f"{folder} is on {kind}, where SQLite's locks do not hold", mend)
    yield space("database: disk", folder)


# -------------------------------------------------------------------------------------------- PostgreSQL


def _postgresql_checks(engine: "Engine") -> list[Check]:
    return [
        ("database: durability", lambda: durability(inspection.settings(engine))),
        ("database: TLS", lambda: road_finding(DATABASE, _road(engine))),
        ("database: power", lambda: power(inspection.power(engine))),
        ("database: connections", lambda: connections(inspection.connections_left(engine))),
        ("database: clock", lambda: [clock_finding("database: clock", inspection.clock(engine))]),
    ]


def _road(engine: "Engine") -> Road:
    parameters, encrypted = inspection.transport(engine)
    return database_road(parameters, encrypted=encrypted)


def durability(found: Mapping[str, str]) -> Iterator[Finding]:
    what = "database: durability"
    wrong = [name for name, right in ON_DISK.items() if found[name] != right and found[name] not in STRONGER]
    if wrong:
        seen = ", ".join(f"{name} {found[name]}" for name in wrong)
        mend = "; ".join(f"ALTER SYSTEM SET {name} = on" for name in wrong)
        yield failed(what, f"{seen}: a commit may be lost", f"{mend}; SELECT pg_reload_conf()")
    else:
        yield ok(what, f"PostgreSQL {found['server_version'].split()[0]}, a commit is on disk")
    if found["server_encoding"] != "UTF8":
        mend = "make a database with ENCODING 'UTF8'"
        yield failed("database: encoding", f"{found['server_encoding']}; the audit needs UTF8", mend)
    if found["standby"] == "True":
        yield failed("database: role", "this server is a standby", "set CANCELQ_DATABASE_URL to the primary")
    elif found["default_transaction_read_only"] == "on":
        mend = "ALTER ROLE … (or ALTER DATABASE …) RESET default_transaction_read_only"
        yield failed("database: role", "transactions are read-only by default", mend)
    if found["session_replication_role"] != "origin":
        mend = "ALTER ROLE … RESET session_replication_role"
        yield failed("database: triggers", "session_replication_role switches them off", mend)


def power(found: inspection.Power) -> Iterator[Finding]:
    """Whoever owns a table may switch its triggers off."""
    what = "database: power"
    mend = (
        "let workers connect as a member of cancelq_writer (deploy/roles.sql makes it); "
        "keep the owner for cancelq migrate"
    )
    if found.superuser:
        yield warning(what, f"{found.user} is a superuser and could switch the triggers off", mend)
    elif found.owns:
        yield warning(what, f"{found.user} owns the audit's tables and could switch their triggers off", mend)
    else:
        yield ok(what, f"{found.user} can add to the audit, and cannot switch its triggers off")


def connections(left: int) -> Iterator[Finding]:
    what, said = "database: connections", f"{left} left"
    if left < CONNECTIONS:
        mend = "raise max_connections, or see who holds them (pg_stat_activity)"
        yield warning(what, f"{said}; a worker may open {CONNECTIONS}", mend)
    else:
        yield ok(what, said)
