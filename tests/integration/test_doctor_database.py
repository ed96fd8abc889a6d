"""`cancelq doctor` on real databases that are not as they should be."""

import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from models import Base
from tests.parts.cancels import NOON, record
from tests.parts.databases import PostgresServer
from tests.parts.doctor import Diagnose
from tests.parts.tampering import gild
from worker.audit import inspection
from worker.audit.engine import open_engine
from worker.audit.facts import stamp_fact
from worker.clock import Offset
from worker.doctor import database_checks
from worker.doctor.finding import Grade
from worker.doctor.moments import clock_finding

Statements = Callable[..., None]


@pytest.fixture
def execute(audit_engine: Engine) -> Statements:
    def execute(*statements: str) -> None:
        with audit_engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    return execute


def test_a_sound_database_has_no_fault_and_keeps_no_trace(
    diagnose: Diagnose, database_url: str, audit_engine: Engine
) -> None:
    found = diagnose(database_url=database_url)
    assert not {what for what in found.bad() if what.startswith("database")} - {"database: power"}
    assert "taken back" in found.text("database: write")
    with audit_engine.connect() as connection:
        for table in Base.metadata.tables.values():
            assert connection.execute(table.select()).all() == []


def test_an_empty_database_is_to_be_migrated(diagnose: Diagnose, empty_database_url: str) -> None:
    found = diagnose(database_url=empty_database_url)
    assert found.grades("database") == {"failed"}
    assert "cancelq migrate" in found.text("database")
    assert found.grades("database: all else") == {"skipped"}


def test_a_newer_schema_asks_for_a_newer_program(
    diagnose: Diagnose, database_url: str, execute: Statements
) -> None:
    execute("UPDATE alembic_version SET version_num = '9999'")
    assert "upgrade this cancelq" in diagnose(database_url=database_url).text("database")


def test_a_file_that_is_not_there_is_to_be_made(diagnose: Diagnose, tmp_path: Path) -> None:
    path = tmp_path / "nowhere.sqlite3"
    assert "cancelq migrate" in diagnose(database_url=f"sqlite:///{path}").text("database")
    assert not path.exists()


@pytest.mark.parametrize(
    ("stamped", "grade"), [("http://127.0.0.1:9/v1", "ok"), ("https://demo.example.com/v1", "failed")]
)
def test_an_audit_of_another_exchange_fails(
    diagnose: Diagnose, database_url: str, audit_engine: Engine, stamped: str, grade: str
) -> None:
    record(audit_engine, stamp_fact("exchange", stamped, at=NOON))
    assert diagnose(database_url=database_url).grades("database: stamp") == {grade}


def test_a_dropped_trigger_is_named(
    diagnose: Diagnose, database_url: str, audit_engine: Engine, execute: Statements
) -> None:
    if audit_engine.dialect.name == "sqlite":
        execute("DROP TRIGGER outcomes_no_update")
    else:
        execute("DROP TRIGGER outcomes_append_only ON outcomes")
    found = diagnose(database_url=database_url)
    assert found.grades("database: triggers") == {"failed"}
    assert "switched off: outcomes_" in found.text("database: triggers")


def test_a_replaced_view_is_named(diagnose: Diagnose, database_url: str, audit_engine: Engine) -> None:
    assert diagnose(database_url=database_url).grades("database: views") == {"ok"}
    gild(audit_engine)
    found = diagnose(database_url=database_url)
    assert found.grades("database: views") == {"failed"}
    assert "audit_jobs is not the one that the migrations made" in found.text("database: views")


def test_a_trigger_without_teeth_is_named(
    database_url: str, audit_engine: Engine, execute: Statements
) -> None:
    if audit_engine.dialect.name == "sqlite":
        execute(
            "DROP TRIGGER jobs_no_delete",
            "CREATE TRIGGER jobs_no_delete BEFORE DELETE ON jobs BEGIN SELECT 1; END",
        )
        assert inspection.unguarded(audit_engine) == ["jobs_no_delete"]
    else:
        execute(
            "CREATE OR REPLACE FUNCTION cancelq_append_only() RETURNS trigger LANGUAGE plpgsql "
            "AS $$ BEGIN RETURN NULL; END $$"
        )
        assert len(inspection.unguarded(audit_engine)) == len(Base.metadata.tables)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("mode", ["DISABLE", "ENABLE REPLICA"])
def test_a_trigger_that_is_switched_off_is_named(
    diagnose: Diagnose, database_url: str, audit_engine: Engine, execute: Statements, mode: str
) -> None:
    execute(f"ALTER TABLE jobs {mode} TRIGGER jobs_append_only")
    assert "jobs_append_only" in diagnose(database_url=database_url).text("database: triggers")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_database_that_takes_no_row_fails(
    diagnose: Diagnose, database_url: str, audit_engine: Engine, execute: Statements
) -> None:
    execute("CREATE TRIGGER full BEFORE INSERT ON outcomes BEGIN SELECT RAISE(ABORT, 'no room'); END")
    found = diagnose(database_url=database_url)
    assert found.grades("database: write") == {"failed"}
    assert "no room" in found.text("database: write")
    assert found.grades("database: durability") == {"ok"}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_locked_file_is_given_up(diagnose: Diagnose, database_url: str, audit_engine: Engine) -> None:
    locker = sqlite3.connect(str(audit_engine.url.database), isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    try:
        found = diagnose(database_url=database_url)
    finally:
        locker.close()
    assert found.grades("database: write") == {"failed"}
    assert found.grades("database: triggers") == {"ok"}


def test_a_file_that_is_no_database_is_told(diagnose: Diagnose, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, only a text that is long enough" * 100)
    assert diagnose(database_url=f"sqlite:///{tmp_path / 'text'}").grades("database") == {"failed"}


# --- PostgreSQL


def test_a_server_that_may_lose_commits_fails(diagnose: Diagnose, private_postgres: PostgresServer) -> None:
    private_postgres.run("ALTER SYSTEM SET full_page_writes = off", "SELECT pg_reload_conf()")
    found = diagnose(database_url=private_postgres.url("audit"))
    assert found.grades("database: durability") == {"failed"}
    assert "ALTER SYSTEM SET full_page_writes = on" in found.text("database: durability")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("name", ["fsync", "synchronous_commit"])
def test_each_switch_that_a_commit_rests_on_counts(audit_engine: Engine, name: str) -> None:
    sound = dict(inspection.settings(audit_engine))
    (said,) = database_checks.durability(sound | {name: "off"})
    assert (said.grade, name in said.finding) == (Grade.FAILED, True)
    (said,) = database_checks.durability(sound | {"synchronous_commit": "remote_apply"})
    assert said.grade is Grade.OK


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_database_of_another_encoding_fails(audit_engine: Engine) -> None:
    said = list(
        database_checks.durability({**inspection.settings(audit_engine), "server_encoding": "LATIN1"})
    )
    assert said[1].grade is Grade.FAILED


@pytest.mark.parametrize(
    ("default", "what", "words"),
    [
        ("session_replication_role = replica", "database: triggers", "switches them off"),
        ("default_transaction_read_only = on", "database: role", "read-only"),
    ],
)
def test_what_a_role_was_given_by_default_is_seen(
    diagnose: Diagnose, private_postgres: PostgresServer, default: str, what: str, words: str
) -> None:
    private_postgres.run(f"ALTER ROLE postgres SET {default}")
    found = diagnose(database_url=private_postgres.url("audit"))
    assert "failed" in found.grades(what)
    assert words in found.text(what)


def test_an_owner_and_a_superuser_are_warned_of_and_a_plain_user_is_not(
    diagnose: Diagnose, private_postgres: PostgresServer
) -> None:
    url = private_postgres.url("audit")
    assert "superuser" in diagnose(database_url=url).text("database: power")
    private_postgres.run("CREATE ROLE keeper LOGIN", "CREATE ROLE plain LOGIN")
    engine = open_engine(url)
    with engine.begin() as connection:
        for table in (*Base.metadata.tables, "alembic_version"):
            connection.execute(text(f"ALTER TABLE {table} OWNER TO keeper"))
        connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain"))
    refused = diagnose(database_url=url.replace("postgres@", "plain@"))
    assert "plain may not add to actions, " in refused.text("database: rights")
    with engine.begin() as connection:
        connection.execute(text("GRANT INSERT ON ALL TABLES IN SCHEMA public TO plain"))
    engine.dispose()
    owner = diagnose(database_url=url.replace("postgres@", "keeper@"))
    plain = diagnose(database_url=url.replace("postgres@", "plain@"))
    assert "keeper owns" in owner.text("database: power")
    assert plain.grades("database: power") == plain.grades("database: rights") == {"ok"}
    assert plain.grades("database: write") == {"ok"}


def test_a_server_with_few_connections_left_is_told(
    diagnose: Diagnose, private_postgres: PostgresServer
) -> None:
    private_postgres.run("ALTER SYSTEM SET superuser_reserved_connections = 90")
    private_postgres.restart()
    assert diagnose(database_url=private_postgres.url("audit")).grades("database: connections") == {"warning"}


def test_a_frozen_server_is_given_up(diagnose: Diagnose, private_postgres: PostgresServer) -> None:
    url = private_postgres.url("audit")
    private_postgres.freeze()
    assert diagnose(database_url=url).grades("database") == {"failed"}


# --- clocks


@pytest.mark.parametrize(
    ("ahead", "error", "grade"),
    [
        (0.4, 0.0, Grade.OK),
        (-0.9, 0.0, Grade.WARNING),
        (0.9, 0.5, Grade.OK),
        (-60, 1.0, Grade.FAILED),
    ],
)
def test_a_clock_counts_as_wrong_only_beyond_the_error_of_measuring(
    ahead: float, error: float, grade: Grade
) -> None:
    offset = Offset(ahead=timedelta(seconds=ahead), error=timedelta(seconds=error))
    assert clock_finding("clock", offset).grade is grade
