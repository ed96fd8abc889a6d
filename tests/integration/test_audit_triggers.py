"""The tables are append-only: every way to change a row fails and says why."""

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from tests.parts.cancels import a_row_everywhere, a_start, displace, record
from worker.audit.shapes import CHAIN_COLUMNS, SHAPES

REFUSED = "the audit is append-only"
TABLES = sorted(SHAPES)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def filled(audit_engine: Engine) -> Engine:
    record(audit_engine, *a_row_everywhere())
    displace(audit_engine, a_start(after=3))
    return audit_engine


def names(table: str) -> list[str]:
    return [*CHAIN_COLUMNS, *(column.name for column in SHAPES[table].columns)]


def refused(engine: Engine, *statements: str) -> None:
    for statement in statements:
        with pytest.raises(IntegrityError, match=REFUSED), engine.begin() as connection:
            connection.execute(text(statement))


def test_no_row_can_be_updated(filled: Engine) -> None:
    refused(filled, *(f"UPDATE {table} SET environment = 'x'" for table in TABLES))


def test_no_row_can_be_deleted(filled: Engine) -> None:
    refused(filled, *(f"DELETE FROM {table}" for table in TABLES))


@on_postgresql
def test_no_table_can_be_truncated(filled: Engine) -> None:
    refused(filled, *(f"TRUNCATE {table}" for table in TABLES))


def test_no_row_can_be_overwritten_on_conflict(filled: Engine) -> None:
    for table in TABLES:
        columns = ", ".join(names(table))
        upsert = f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table} WHERE true "
        refused(filled, upsert + "ON CONFLICT (writer, seq) DO UPDATE SET environment = 'x'")


@on_sqlite
def test_no_row_can_be_replaced_through_its_place_in_the_chain(filled: Engine) -> None:
    for table in TABLES:
        columns = ", ".join(names(table))
        refused(filled, f"INSERT OR REPLACE INTO {table} ({columns}) SELECT {columns} FROM {table}")


@on_sqlite
def test_no_row_can_be_replaced_through_its_own_key(filled: Engine) -> None:
    for table in (table for table in TABLES if SHAPES[table].key):
        columns = names(table)
        values = ", ".join("seq + 1000" if column == "seq" else column for column in columns)
        refused(filled, f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table}")


@on_sqlite
def test_no_row_can_be_replaced_through_its_rowid(filled: Engine) -> None:
    changed = {"seq": "seq + 1000", "job_id": "'another'", "action_id": "'another'"}
    for table in TABLES:
        columns = names(table)
        values = ", ".join(changed.get(column, column) for column in columns)
        refused(
            filled,
            f"INSERT OR REPLACE INTO {table} (rowid, {', '.join(columns)}) SELECT rowid, {values} FROM {table}",
        )


def test_a_second_row_with_the_same_key_fails(filled: Engine) -> None:
    for table in TABLES:
        columns = ", ".join(names(table))
        with pytest.raises(IntegrityError), filled.begin() as connection:
            connection.execute(text(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table}"))
