"""Opens the audit's database so that every wait is bounded and every commit is on disk. Never migrates it."""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from worker.errors import AuditUnavailable, ConfigError
from worker.settings import Settings

SETTING = "CANCELQ_DATABASE_URL"
CONNECT_BOUND = timedelta(seconds=2)
STATEMENT_BOUND = timedelta(seconds=5)
# Of a worker's commits where a journal stands by: a cancel that waits longer waits in vain.
COMMIT_BOUND = timedelta(seconds=1)
# Reports and checks read everything; a new index on millions of rows takes its time.
READING_BOUND = timedelta(minutes=10)
MIGRATION_BOUND = timedelta(minutes=10)
# What the client waits beyond the server's own statement_timeout: a frozen server never times out by itself.
CLIENT_GRACE = timedelta(seconds=1)
READING = "cancelq_reading"
# What comes of reading a row that holds what nobody wrote there: no time, no text, none of the words.
UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, DBAPIError)
# How libpq says it; a refused connection carries no SQLSTATE.
TURNED_AWAY = ("authentication failed", "does not exist", "no pg_hba.conf entry")


def audit_url(settings: Settings) -> str:
    """The configured database, or the SQLite file in CANCELQ_HOME."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    path = (settings.home / "audit.sqlite3").absolute()
    return URL.create("sqlite", database=str(path)).render_as_string()


def open_engine(url: str, *, statement_bound: timedelta = STATEMENT_BOUND) -> Engine:
    """An engine for a sqlite:/// or postgresql:// address; it connects only when it is used."""
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, statement_bound)
    return _postgresql(parsed, statement_bound)


def address(engine: Engine) -> str:
    """Where the database is, without user and password."""
    url = engine.url
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{url.database}"
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{url.host or url.query.get('host', '')}{port}/{url.database or ''}"


@contextmanager
def answering(engine: Engine) -> Iterator[None]:
    """Turn a database that does not answer into AuditUnavailable, in one line without the password."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        if not is_unavailable(error):
            raise
        raise AuditUnavailable(f"the database {address(engine)} does not answer: {reason(error)}") from error


def is_unavailable(error: Exception) -> bool:
    """Whether the database, rather than the statement or a row, is to blame."""
    if is_undecodable(error):
        return False
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    # SQLite says no more than DatabaseError of a file that is broken, or is no database at all.
    broken = type(error) is DatabaseError
    return lost or broken or isinstance(error, OperationalError | PoolTimeoutError)


def is_undecodable(error: Exception) -> bool:
    """Whether somebody wrote bytes into a text of SQLite."""
    return "Could not decode" in str(error)


def turns_us_away(error: Exception) -> bool:
    """Whether the server is there and will not have us: a wrong setting, which no waiting mends."""
    return any(words in str(error) for words in TURNED_AWAY)


def is_busy(error: AuditUnavailable) -> bool:
    """Whether a SQLite file is just being written by another."""
    return str(error).endswith("is locked")


def reason(error: Exception) -> str:
    """The first line of what the driver said."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection with one unchanging view of the database, which can write nothing and blocks no writer."""
    with answering(engine), engine.connect() as connection:
        connection = connection.execution_options(**{READING: True})  # noqa: PLW2901
        if engine.dialect.name == "postgresql":
            # Said in SQL, it ends with the transaction: the driver's own switch would later ask for READ WRITE, and
            # so go past a database that its owner made read-only.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield connection


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError(f"{SETTING}: not a database address; {_EXAMPLES}") from None
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if "sslrootcert" in parsed.query and "sslmode" not in parsed.query:
        # libpq's own default takes the named CA and then believes anybody.
        parsed = parsed.update_query_dict({"sslmode": "verify-full"})
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite", "postgresql+psycopg"}:
        raise ConfigError(f"{SETTING}: {parsed.drivername} is not supported; {_EXAMPLES}")
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise ConfigError(f"{SETTING}: an audit in memory would not survive; use sqlite:///PATH")
    if parsed.get_backend_name() == "sqlite" and parsed.query:
        raise ConfigError(f"{SETTING}: a sqlite address takes no options; use sqlite:///PATH alone")
    return parsed


_EXAMPLES = "use postgresql://user:password@host/database or sqlite:///path/to/file"


def _sqlite(url: URL, bound: timedelta) -> Engine:
    # isolation_level None: the driver begins nothing by itself, we say which BEGIN.
    engine = create_engine(url, connect_args={"isolation_level": None, "timeout": bound.total_seconds()})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, _record: ConnectionPoolEntry) -> None:
    """A commit is on disk when it returns (FULL); readers and the writer do not block each other (WAL)."""
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        _turn_wal_on(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    if sys.platform == "darwin":
        connection.execute("PRAGMA fullfsync = ON")  # a plain fsync there stops in the drive's cache


def _turn_wal_on(connection: sqlite3.Connection) -> None:
    """The switch does not honour the busy time-out; taking the write lock first does."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError:
        # Another process is switching just now: it counts only whether the switch is made.
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            raise


def _begin_sqlite(connection: Connection) -> None:
    """Writers take the lock at once: a deferred BEGIN that writes later fails as "locked" in spite of any time-out."""
    options = connection.get_execution_options()
    connection.exec_driver_sql("BEGIN" if options.get(READING) else "BEGIN IMMEDIATE")


def _postgresql(url: URL, bound: timedelta) -> Engine:
    from worker.audit.bounded import connect  # noqa: PLC0415  # psycopg is not needed for SQLite

    milliseconds = bound // timedelta(milliseconds=1)
    settings = {
        "timezone": "UTC",
        "statement_timeout": milliseconds,
        "lock_timeout": milliseconds,
        # Our own connection that died without a word must not hold locks for long.
        "idle_in_transaction_session_timeout": milliseconds + 60_000,
        # A server's or role's default may be off; a commit that returned must be on disk.
        "synchronous_commit": "on",
        # Our statements are few and always use the same indexes; planning them anew took most of a look.
        "plan_cache_mode": "force_generic_plan",
    }
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    given = url.query.get("options", "")
    arguments: dict[str, Any] = {
        "options": f"{given} {options}".strip(),
        "connect_timeout": int(CONNECT_BOUND.total_seconds()),
        "application_name": "cancelq",
        "keepalives_idle": 10,
    }
    engine = create_engine(url, connect_args=arguments, pool_timeout=bound.total_seconds())
    event.listen(engine, "do_connect", connect(bound + min(CLIENT_GRACE, bound / 5)))
    return engine


def ensure_folder(engine: Engine) -> None:
    """Make the folder of a SQLite file."""
    if engine.dialect.name == "sqlite" and engine.url.database:
        folder = Path(engine.url.database).absolute().parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{SETTING} (or CANCELQ_HOME): the folder {folder} cannot be made: {error.strerror}"
            ) from error


def is_missing(engine: Engine) -> bool:
    """Whether the SQLite file is not there yet; opening it would make an empty one."""
    return engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists()
