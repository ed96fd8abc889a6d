"""Whoever goes behind the triggers' back is found out, and the first bad row is named."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from migrations.views_0001 import VIEWS
from tests.parts.cancels import (
    a_job,
    a_reply,
    a_row_everywhere,
    a_start,
    a_whole_life,
    an_outcome,
    answered,
    displace,
    record,
    writing,
)
from tests.parts.databases import KINDS, migrated
from tests.parts.tampering import disarm, forge_account, gild, put_in_conflict
from worker.audit.engine import open_engine
from worker.audit.facts import Fact, job_fact
from worker.audit.shapes import SHAPES
from worker.audit.surface import rows
from worker.audit.verify import Verification, verify
from worker.job import Outcome

COLUMNS = [(table, column.name) for table, shape in SHAPES.items() for column in shape.table.columns]
# Where the schema allows but a few words: another one of them.
OTHER_WORDS = {
    "priority": "CASE priority WHEN 'urgent' THEN 'normal' ELSE 'urgent' END",
    "transport": "'unanswered'",
    "body_encoding": "'base64'",
    "verdict": "'refused'",
    "kind": "'command_report'",
    "outcome": "'filled'",
    "finding": "'gone'",
    "action": "'resume'",
}


def edit(engine: Engine, table: str, column: str) -> str:
    """An expression for another value of the column."""
    kind = SHAPES[table].table.c[column].type
    match type(kind).__name__:
        case "Boolean":
            return f"NOT coalesce({column}, false)"
        case "BigInteger" | "Integer":
            return f"coalesce({column}, 0) + 1"
        case "UtcDateTime" if engine.dialect.name == "postgresql":
            return f"coalesce({column}, now()) + interval '1 microsecond'"
        case _:
            return OTHER_WORDS.get(column, f"coalesce({column}, '') || '0'")


def tamper(engine: Engine, *statements: str) -> Verification:
    disarm(engine)
    with engine.begin() as connection:
        for statement in statements:
            assert connection.execute(text(statement)).rowcount > 0
    return verify(engine)


@pytest.fixture(scope="module", params=KINDS)
def edited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One disarmed audit for all the edits below; each of them is taken back."""
    folder = tmp_path_factory.mktemp("edited")
    with migrated(request, request.param, folder) as url:
        engine = open_engine(url)
        record(engine, *a_row_everywhere("job-1"), *a_whole_life("job-2"))
        displace(engine, a_start("job-1", after=3))
        disarm(engine)
        yield engine
        engine.dispose()


@contextmanager
def changed(engine: Engine, table: str, column: str) -> Iterator[None]:
    """The column of one row has another value for a while."""
    value = edit(engine, table, column)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE kept AS SELECT * FROM {table}"))
        connection.execute(
            text(f"UPDATE {table} SET {column} = {value} WHERE seq = (SELECT min(seq) FROM {table})")
        )
    yield
    with engine.begin() as connection:
        connection.execute(text(f"DELETE FROM {table}"))
        connection.execute(text(f"INSERT INTO {table} SELECT * FROM kept"))
        connection.execute(text("DROP TABLE kept"))


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_an_edit_of_any_column_is_found(edited: Engine, table: str, column: str) -> None:
    with changed(edited, table, column):
        fault = verify(edited).fault
    assert fault is not None
    if column not in {"writer", "seq"}:
        assert fault.table == table
    assert verify(edited).fault is None


def view_columns(engine: Engine, view: str) -> set[str]:
    with engine.connect() as connection:
        return set(connection.exec_driver_sql(f"SELECT * FROM {view}").keys())


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_every_column_of_a_view_comes_from_columns_under_the_digest(audit_engine: Engine, view: str) -> None:
    counted = {"joiners", "attempts", "first_sent_at", "latency_ms", "joined"}
    renamed = {"answered_late_at", "resolved_as", "resolved_by", "resolved_at", "resolved_because"}
    renamed |= {"other_job_id", "other_attempt", "other_sent_at", "other_answered_at"}
    covered = {column for _, column in COLUMNS} - {"writer", "seq", "prev", "digest"}
    assert view_columns(audit_engine, view) - covered <= counted | renamed


def test_a_sound_audit_is_sound(audit_engine: Engine) -> None:
    record(audit_engine, *a_whole_life("job-1"))
    record(audit_engine, *a_whole_life("job-2"), writer="writer-2")
    checked = verify(audit_engine)
    assert (checked.ok, checked.rows, set(checked.heads)) == (True, 14, {"writer-1", "writer-2"})


def test_a_view_that_was_replaced_is_named(audit_engine: Engine) -> None:
    record(audit_engine, *a_whole_life()[:-1], an_outcome(outcome=Outcome.UNRESOLVED))
    assert verify(audit_engine).fault is None
    gild(audit_engine)
    assert [row["outcome"] for row in rows(audit_engine, "audit_jobs")] == ["canceled"]
    checked = verify(audit_engine)
    assert str(checked.fault) == "the view audit_jobs is not the one that the migrations made"
    assert checked.rows == 7


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_a_view_that_is_gone_is_named(audit_engine: Engine, view: str) -> None:
    cascade = "" if audit_engine.dialect.name == "sqlite" else "CASCADE"
    with audit_engine.begin() as connection:
        connection.execute(text(f"DROP VIEW {view} {cascade}"))
    assert str(verify(audit_engine).fault) == f"the view {view} is missing"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_view_that_shows_the_rows_of_one_moment_is_none(audit_engine: Engine) -> None:
    with audit_engine.begin() as connection:
        shown = "SELECT pg_get_viewdef('audit_actions'::regclass)"
        made = connection.execute(text(shown)).scalar_one()
        connection.execute(text("DROP VIEW audit_actions"))
        connection.execute(text(f"CREATE MATERIALIZED VIEW audit_actions AS {made}"))
    assert str(verify(audit_engine).fault) == "the view audit_actions is missing"


def test_an_empty_audit_is_sound(audit_engine: Engine) -> None:
    assert verify(audit_engine).ok


def test_a_deleted_row_is_missed(audit_engine: Engine) -> None:
    record(audit_engine, *a_whole_life())
    fault = tamper(audit_engine, "DELETE FROM replies").fault
    assert (fault.table, fault.seq, "missing" in fault.what) == ("(gone)", 4, True)


def test_an_inserted_row_is_found(audit_engine: Engine) -> None:
    record(audit_engine, *a_whole_life())
    columns = ", ".join(column.name for column in SHAPES["reads"].columns)
    fault = tamper(
        audit_engine,
        f"INSERT INTO reads (writer, seq, prev, digest, environment, {columns}) "
        f"SELECT writer, 8, digest, digest, environment, {columns} FROM reads",
    ).fault
    assert (fault.table, fault.seq) == ("reads", 8)


def test_two_rows_that_changed_places_are_found(audit_engine: Engine) -> None:
    record(audit_engine, job_fact(a_job("job-1")), job_fact(a_job("job-2")))
    fault = tamper(
        audit_engine,
        "UPDATE jobs SET seq = seq + 10",
        "UPDATE jobs SET seq = CASE seq WHEN 11 THEN 2 ELSE 1 END",
    ).fault
    assert (fault.table, fault.seq) == ("jobs", 1)


def test_a_row_moved_to_another_writer_is_found(audit_engine: Engine) -> None:
    record(audit_engine, job_fact(a_job("job-1")), job_fact(a_job("job-2")))
    fault = tamper(audit_engine, "UPDATE jobs SET writer = 'writer-2', seq = 1 WHERE job_id = 'job-2'").fault
    assert (fault.table, fault.writer) == ("jobs", "writer-2")


def test_two_rows_in_one_place_are_found(audit_engine: Engine) -> None:
    record(audit_engine, job_fact(a_job()), a_start())
    fault = tamper(audit_engine, "UPDATE starts SET seq = 1").fault
    assert "another row has this place" in fault.what


def test_a_cut_tail_is_found_by_the_heads_that_a_witness_saw(audit_engine: Engine) -> None:
    with writing(audit_engine) as audit:
        audit.commit(a_whole_life())
        seen = {"writer-1": audit.head()}
    assert verify(audit_engine, seen).ok
    assert tamper(audit_engine, "DELETE FROM outcomes").ok  # a chain alone cannot know
    fault = verify(audit_engine, seen).fault
    assert (fault.writer, fault.seq, "tail was cut" in fault.what) == ("writer-1", 7, True)


def test_a_writer_that_vanished_whole_is_found_by_the_heads(audit_engine: Engine) -> None:
    fault = verify(audit_engine, {"writer-9": (3, "digest")}).fault
    assert (fault.writer, fault.seq) == ("writer-9", 1)


def test_a_chain_written_anew_is_found_by_the_heads(audit_engine: Engine) -> None:
    with writing(audit_engine) as audit:
        audit.commit([job_fact(a_job(account="A"))])
        seen = {"writer-1": audit.head()}
    disarm(audit_engine)
    with audit_engine.begin() as connection:
        forge_account(connection)
    assert verify(audit_engine).ok
    assert "written anew" in verify(audit_engine, seen).fault.what


@pytest.mark.parametrize(
    ("facts", "table", "what"),
    [
        ([a_start()], "starts", "its job is missing"),
        ([an_outcome()], "outcomes", "its job is missing"),
        ([job_fact(a_job()), *a_reply(answered())], "replies", "its start is missing"),
        ([job_fact(a_job()), a_reply(answered())[1]], "verdicts", "its start is missing"),
        ([job_fact(a_job()), a_start(attempt=2)], "starts", "the attempt before it is missing"),
    ],
)
def test_a_row_without_what_must_come_before_it_is_found(
    audit_engine: Engine, facts: list[Fact], table: str, what: str
) -> None:
    record(audit_engine, *facts)
    fault = verify(audit_engine).fault
    assert (fault.table, fault.what) == (table, what)


@pytest.mark.parametrize(
    "cells",
    ["nope", "null", "{}", "[]", '["x"]', '["x","y"]', '["y",1]', "[" * 100_000, f'["x",{"1" * 5000}]'],
    ids=lambda cells: cells[:9],
)
def test_a_conflict_that_was_put_in_and_displaced_nothing_is_named(audit_engine: Engine, cells: str) -> None:
    try:
        seen = json.loads(cells)
    except (ValueError, RecursionError):
        seen = cells
    seen = seen if isinstance(seen, list) and seen else [cells]
    put_in_conflict(audit_engine, cells, seen)
    fault = verify(audit_engine).fault
    assert (fault.table, fault.writer, fault.seq) == ("conflicts", "zz", 1)
    assert fault.what == "what it says was displaced is no row of starts"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE jobs SET account = CAST(x'ff' AS TEXT)",
        "UPDATE jobs SET account = x'00ff'",
        "UPDATE jobs SET is_automated = 7",
        "UPDATE jobs SET enqueued_at = 'long ago'",
        "UPDATE jobs SET order_id = 'many'",
        "UPDATE jobs SET seq = 'first'",
        "UPDATE jobs SET order_id = 1.5",
    ],
)
def test_what_no_worker_would_write_is_named_not_stumbled_over(audit_engine: Engine, statement: str) -> None:
    record(audit_engine, job_fact(a_job()))
    assert tamper(audit_engine, statement).fault.table == "jobs"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("time", ["infinity", "-infinity", "0044-03-15 BC", "12026-01-01"])
def test_times_that_no_datetime_can_hold_are_named_not_stumbled_over(audit_engine: Engine, time: str) -> None:
    record(audit_engine, job_fact(a_job()))
    assert tamper(audit_engine, f"UPDATE jobs SET enqueued_at = '{time}'").fault.table == "jobs"


def test_writers_are_followed_in_byte_order(audit_engine: Engine) -> None:
    for number, writer in enumerate(["b", "A", "a", "Ä", "_", "a-1", "a1"]):
        record(audit_engine, job_fact(a_job(f"job-{number}")), writer=writer)
    assert verify(audit_engine).rows == 7


def test_a_check_beside_a_running_writer_sees_one_moment(audit_engine: Engine, tmp_path: Path) -> None:
    with writing(audit_engine) as audit:
        for number in range(20):
            futures = [audit.submit(a_whole_life(f"job-{number}-{part}")) for part in range(5)]
            assert verify(audit_engine).fault is None
            assert all(future.result(10) for future in futures)
