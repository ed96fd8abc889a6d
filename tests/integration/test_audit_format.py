"""The document on the audit's format is enough to check an audit without cancelq: its code is run as it stands there."""

import ast
import json
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text

from tests.parts.cancels import (
    ENVIRONMENT,
    a_job,
    a_row_everywhere,
    a_start,
    a_whole_life,
    displace,
    record,
    seal,
)
from tests.parts.tampering import disarm, forge_account, put_in_conflict
from worker.audit.chain import Head, canonical, digest, sealed
from worker.audit.facts import job_fact
from worker.audit.shapes import SHAPES
from worker.audit.verify import verify

DOCUMENT = Path(__file__).parents[2] / "docs/audit-format.md"
(CODE,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
(EXAMPLE,) = re.findall(r"^```text\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)

Check = Callable[..., str | None]


@pytest.fixture(scope="module")
def check() -> Check:
    names: dict[str, Any] = {}
    exec(CODE, names)
    found: Check = names["check"]
    return found


@contextmanager
def cursor_of(url: str) -> Iterator[Any]:
    opened = (
        sqlite3.connect(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else psycopg.connect(url)
    )
    with closing(opened) as connection:  # type: ignore[type-var]
        yield connection.cursor()


@pytest.fixture
def kept(audit_engine: Engine) -> str:
    """The digest that the auditor has, of an audit with every table and rows that were carried over; it has grown since."""
    record(audit_engine, *a_row_everywhere("job-1"), *a_whole_life('jöb-2 "\\\n\x7f\u2028😀'))
    displace(audit_engine, a_start("job-1", after=3))
    first = seal(audit_engine)
    record(audit_engine, *a_whole_life("job-3"), writer="writer-2")
    seal(audit_engine)
    record(audit_engine, job_fact(a_job("job-4")), writer="writer-2")
    return first


def test_it_is_forty_lines_of_the_standard_library() -> None:
    assert len([line for line in CODE.splitlines() if line]) <= 40
    imports = [node for node in ast.walk(ast.parse(CODE)) if isinstance(node, ast.Import | ast.ImportFrom)]
    (plain,) = imports
    assert isinstance(plain, ast.Import)
    assert {module.name for module in plain.names} <= sys.stdlib_module_names


def test_it_knows_every_table_of_facts() -> None:
    (named,) = re.findall(r'facts = "(.+)"', CODE)
    assert sorted([*named.split(), "conflicts"]) == sorted(SHAPES)


def test_a_sound_audit_passes(check: Check, database_url: str, kept: str) -> None:
    with cursor_of(database_url) as cursor:
        assert check(cursor) is None
        assert check(cursor, kept) is None
        assert check(cursor, "0" * 64) == "no seal has the expected digest"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE jobs SET account = 'B' WHERE job_id = 'job-1'", "jobs: row 1 of writer-1 was changed"),
        ("UPDATE jobs SET is_automated = NOT is_automated WHERE job_id = 'job-3'", "jobs: row 1 of writer-2"),
        ("UPDATE conflicts SET cells = replace(cells, 'host/1', 'host/2')", "conflicts: row 1 of writer-9"),
        ("DELETE FROM reads WHERE job_id = 'job-3'", "6 of writer-2 is missing"),
        ("DELETE FROM outcomes WHERE job_id = 'job-3'", "row 7 of writer-2 is not the one that seal 2 names"),
        ("DELETE FROM conflicts", "row 1 of writer-9 is not the one that seal 1 names"),
        ("DELETE FROM seals WHERE number = 1", "1 of the seals is missing"),
        ("UPDATE seals SET heads = '[]' WHERE number = 1", "seal 1 was changed"),
    ],
)
def test_what_was_changed_or_removed_is_named(
    check: Check, audit_engine: Engine, database_url: str, kept: str, statement: str, said: str
) -> None:
    disarm(audit_engine)
    with audit_engine.begin() as connection:
        assert connection.execute(text(statement)).rowcount > 0
    with cursor_of(database_url) as cursor:
        found = check(cursor, kept)
    assert found is not None
    assert said in found
    assert not verify(audit_engine, expect=kept).ok


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE jobs SET requested_by = x'78' WHERE job_id = 'job-5'",
        "UPDATE jobs SET is_automated = x'31' WHERE job_id = 'job-5'",
        "UPDATE jobs SET account = CAST(x'ff' AS TEXT) WHERE job_id = 'job-5'",
        "UPDATE jobs SET environment = CAST(environment AS BLOB) WHERE job_id = 'job-5'",
        "UPDATE conflicts SET cells = CAST(cells AS BLOB)",
    ],
)
def test_a_value_of_a_kind_that_no_column_has_is_found(
    check: Check, audit_engine: Engine, database_url: str, kept: str, statement: str
) -> None:
    record(audit_engine, job_fact(a_job("job-5", requested_by="b'x'")), writer="writer-5")
    disarm(audit_engine)
    with audit_engine.begin() as connection:
        assert connection.execute(text(statement)).rowcount == 1
    fault = verify(audit_engine, expect=kept).fault
    assert fault is not None
    assert (fault.writer, fault.seq) in {("writer-5", 1), ("writer-9", 1), ("writer-5", -1)}
    with cursor_of(database_url) as cursor:
        assert check(cursor) is not None


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("time", ["infinity", "0044-03-15 BC"])
def test_a_time_that_nobody_can_have_written_is_found(
    check: Check, audit_engine: Engine, database_url: str, time: str
) -> None:
    """Beside a deadline that was none: as text both were null."""
    record(audit_engine, job_fact(a_job(deadline=None)))
    disarm(audit_engine)
    with audit_engine.begin() as connection:
        connection.execute(text(f"UPDATE jobs SET deadline = '{time}'"))
    assert "its deadline holds what nobody writes there" in str(verify(audit_engine).fault)
    with cursor_of(database_url) as cursor:
        assert "this cannot have been written" in (check(cursor) or "")


@pytest.mark.parametrize("heads", ["{}", "7", "null", "no list"])
def test_a_seal_that_names_nothing_readable_is_found(
    check: Check, audit_engine: Engine, database_url: str, heads: str
) -> None:
    """As whoever may seal puts it in, with its digest."""
    moment = "2026-11-28T16:08:04.260765Z"
    mark = digest(sealed(Head(1, ""), ENVIRONMENT, (moment, heads)))
    with audit_engine.begin() as connection:
        connection.execute(
            text("INSERT INTO seals VALUES (1, '', :mark, :url, :at, :heads)"),
            {"mark": mark, "url": ENVIRONMENT, "at": moment, "heads": heads},
        )
    assert str(verify(audit_engine).fault) == "seal 1: what it names are no rows"
    with cursor_of(database_url) as cursor:
        assert check(cursor) is not None


@pytest.mark.parametrize(
    ("fact", "cells"),
    [("nothing", '["x"]'), ("conflicts", '["x"]'), ("starts", '{"x":1}'), ("starts", "nope")],
)
def test_a_conflict_of_no_known_table_is_found(
    check: Check, audit_engine: Engine, database_url: str, fact: str, cells: str
) -> None:
    put_in_conflict(audit_engine, cells, ["x"], fact=fact)
    assert (found := verify(audit_engine).fault) is not None
    assert found.table == "conflicts"
    with cursor_of(database_url) as cursor:
        assert check(cursor) is not None


def test_a_cut_tail_is_found_where_a_seal_covers_it(
    check: Check, audit_engine: Engine, database_url: str
) -> None:
    record(audit_engine, *a_whole_life())
    seal(audit_engine)
    disarm(audit_engine)
    with audit_engine.begin() as connection:
        connection.execute(text("DELETE FROM outcomes"))
    with cursor_of(database_url) as cursor:
        assert check(cursor) == "row 7 of writer-1 is not the one that seal 1 names"


def test_an_audit_that_was_written_anew_with_its_seals_is_found_by_the_digest(
    check: Check, audit_engine: Engine, database_url: str
) -> None:
    record(audit_engine, job_fact(a_job(account="A")))
    written_down = seal(audit_engine)
    disarm(audit_engine)
    with audit_engine.begin() as connection:
        forge_account(connection)
        connection.execute(text("DELETE FROM seals"))
    seal(audit_engine)
    with cursor_of(database_url) as cursor:
        assert check(cursor) is None
        assert check(cursor, written_down) == "no seal has the expected digest"


def test_the_example_is_what_a_worker_writes() -> None:
    lines = EXAMPLE.splitlines()
    before = ""
    for line, mark in zip(lines[:-2:2], lines[1:-2:2], strict=True):
        table, writer, seq, prev, environment, *cells = json.loads(line)
        assert (prev, mark) == (before, sha256(line.encode()).hexdigest())
        assert canonical(table, writer, Head(seq, prev), environment, cells) == line
        before = mark
    _, number, prev, environment, *cells = json.loads(lines[-2])
    assert sealed(Head(number, prev), environment, cells) == lines[-2]
    assert json.loads(cells[-1]) == [[writer, seq, before]]
    assert sha256(lines[-2].encode()).hexdigest() == lines[-1]
