"""The schema grows up and down the same way on both databases, twice at once, from any folder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

import migrations
from models import Base
from tests.parts.cancels import a_row_everywhere, record
from tests.parts.databases import PostgresServer
from worker.audit.engine import open_engine
from worker.audit.migrating import downgrade, migrate, upgrade
from worker.audit.schema import head, require_head
from worker.audit.seals import Sealer
from worker.audit.verify import verify
from worker.errors import ConfigError

ROOT = Path(__file__).parents[2]
VIEWS = {"audit_actions", "audit_attempts", "audit_jobs", "audit_overlaps", "audit_requests"}


@pytest.fixture
def empty_engine(empty_database_url: str) -> Iterator[Engine]:
    engine = open_engine(empty_database_url)
    yield engine
    engine.dispose()


def alembic(url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env={**os.environ, "CANCELQ_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )


def test_up_down_and_up_again(empty_engine: Engine) -> None:
    for _ in range(2):
        with empty_engine.connect() as connection:
            upgrade(connection)
        require_head(empty_engine)
        with empty_engine.connect() as connection:
            downgrade(connection, "base")
        assert set(inspect(empty_engine).get_table_names()) <= {"alembic_version"}
        assert inspect(empty_engine).get_view_names() == []
    with empty_engine.connect() as connection:
        upgrade(connection)
    record(empty_engine, *a_row_everywhere())
    assert verify(empty_engine).fault is None


def test_an_audit_from_before_the_seals_is_sealed_as_it_is(empty_engine: Engine) -> None:
    with empty_engine.connect() as connection:
        upgrade(connection, "0001")
    record(empty_engine, *a_row_everywhere())
    with empty_engine.connect() as connection:
        upgrade(connection)
    before = verify(empty_engine)
    assert (before.fault, before.digest, before.newer) == (None, "", before.rows)
    assert Sealer(empty_engine, "").seal(before.heads) is not None
    assert verify(empty_engine).newer == 0


def test_what_the_models_say_is_what_the_migrations_make(audit_engine: Engine) -> None:
    with audit_engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    assert set(inspect(audit_engine).get_view_names()) == VIEWS


def test_every_check_of_the_models_is_in_the_database(audit_engine: Engine) -> None:
    found = inspect(audit_engine)
    for table in Base.metadata.tables.values():
        there = {rule["name"] for rule in found.get_check_constraints(table.name)}
        assert {str(rule.name) for rule in table.constraints if str(rule.name).startswith("ck_")} == there


def test_alembics_own_commands_work_on_the_configured_database(empty_database_url: str) -> None:
    assert alembic(empty_database_url, "upgrade", "head").returncode == 0
    checked = alembic(empty_database_url, "check")
    assert (checked.returncode, "No new upgrade operations" in checked.stdout) == (0, True), checked.stderr


def test_alembic_can_print_the_statements_for_somebody_else_to_run() -> None:
    printed = alembic("", "upgrade", "head", "--sql").stdout
    assert "CREATE TABLE jobs" in printed
    assert "CREATE VIEW audit_jobs" in printed


def test_the_revisions_that_the_program_knows_are_the_scripts() -> None:
    folder = Path(migrations.__file__).parent
    scripts = ScriptDirectory(folder).walk_revisions()
    assert [script.revision for script in scripts] == list(reversed(migrations.REVISIONS))


def test_migrating_twice_changes_nothing(empty_database_url: str) -> None:
    assert migrate(empty_database_url) == migrate(empty_database_url) == head()


def test_two_at_once_both_succeed(empty_database_url: str, tmp_path: Path) -> None:
    code = "import sys; from worker.audit.migrating import migrate; print(migrate(sys.argv[1]))"
    # From a strange folder: the scripts are found through their package.
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, empty_database_url], stdout=subprocess.PIPE, text=True, cwd=tmp_path
        )
        for _ in range(3)
    ]
    assert [(run.communicate()[0].strip(), run.returncode) for run in runs] == [(head(), 0)] * 3


def test_a_database_without_a_schema_is_named_with_its_cure(empty_engine: Engine) -> None:
    with pytest.raises(ConfigError, match="run: cancelq migrate"):
        require_head(empty_engine)


def test_a_schema_of_a_newer_program_is_left_alone(audit_engine: Engine, database_url: str) -> None:
    with audit_engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for refused in (lambda: require_head(audit_engine), lambda: migrate(database_url)):
        with pytest.raises(ConfigError, match="use the newer cancelq"):
            refused()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_text_is_refused(
    postgres: PostgresServer, ledger_name: str, encoding: str
) -> None:
    how = f"TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"
    postgres.run(f"CREATE DATABASE {ledger_name} {how}")
    with pytest.raises(ConfigError, match=f"encoding is {encoding}.* ENCODING 'UTF8'"):
        migrate(postgres.url(ledger_name))
    postgres.run(f"DROP DATABASE {ledger_name}")


def test_asking_for_an_audit_that_is_not_there_makes_no_file(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'none.sqlite3'}")
    with pytest.raises(ConfigError, match="there is no audit"):
        require_head(engine)
    assert list(tmp_path.iterdir()) == []


def test_a_commit_is_on_disk_when_it_returns(audit_engine: Engine) -> None:
    with audit_engine.connect() as connection:
        if audit_engine.dialect.name == "sqlite":
            settings = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
            found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in settings}
        else:
            settings = {"synchronous_commit": "on", "TimeZone": "UTC", "statement_timeout": "5s"}
            found = {name: connection.exec_driver_sql(f"SHOW {name}").scalar() for name in settings}
    assert found == settings


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://u:secret@h/x", "mysql is not supported"),
        ("nonsense secret", "not a database address"),
        ("sqlite://", "in memory"),
    ],
)
def test_an_address_that_will_not_do_is_refused_without_its_password(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        open_engine(url)
    assert "secret" not in str(refused.value)
    assert "CANCELQ_DATABASE_URL" in str(refused.value)
