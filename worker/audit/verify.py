"""Checks the audit's tamper evidence: recomputes every digest from the columns and follows every chain. Reads only.

What a chain alone cannot show is a tail that was cut off, or a whole chain written anew: for that the heads that
an outside witness saw (the ledger keeps them) are compared. Read those heads before calling.
"""

import heapq
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Boolean, Column, Connection, Engine
from sqlalchemy.exc import OperationalError

from models import UtcDateTime
from worker.audit.chain import Head, canonical, digest, summary
from worker.audit.engine import reading
from worker.audit.shapes import CHAIN_COLUMNS, SHAPES

# Rows in memory at once, for each table.
ROWS_AT_ONCE = 1000
GONE = "(gone)"


@dataclass(frozen=True, slots=True)
class Fault:
    """The first row that is not what was written."""

    table: str
    writer: str
    seq: int
    what: str

    def __str__(self) -> str:
        return f"{self.table} row {self.seq} of {self.writer}: {self.what}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check found; `rows` and `heads` reach as far as the first fault."""

    rows: int
    heads: Mapping[str, Head]
    fault: Fault | None

    @property
    def ok(self) -> bool:
        return self.fault is None

    @property
    def digest(self) -> str:
        """One text for the whole audit: it changes with every row that is added."""
        return summary(self.heads)


class _FoundError(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class _UndecodableError(Exception):
    """Somebody wrote bytes into a text of SQLite."""


# writer, seq, number of the table (keeps comparisons away from the cells), table, row
Place = tuple[str, int, int, str, Sequence[Any]]


@dataclass(slots=True)
class _Walk:
    """The chains as far as they were followed, and what an outside witness saw of them."""

    witnessed: Mapping[str, tuple[int, str]]
    rows: int = 0
    heads: dict[str, Head] = field(default_factory=dict)

    def follow(self, places: Iterator[Place]) -> None:
        for writer, seq, _, table, row in places:
            what = self._wrong(table, row)
            if what is not None:
                raise _FoundError(Fault(table, writer, seq, what))
            self.heads[writer] = Head(seq, row[3])
            self.rows += 1

    def compare_tails(self) -> None:
        for writer, (seq, _) in sorted(self.witnessed.items()):
            last = self.heads.get(writer, Head()).seq
            if last < seq:
                raise _FoundError(Fault(GONE, writer, last + 1, f"the tail was cut: row {seq} had been seen"))

    def _wrong(self, table: str, row: Sequence[Any]) -> str | None:
        writer, seq, prev, mark, environment = row[:5]
        head = self.heads.get(writer, Head())
        if seq <= head.seq:
            return "another row has this place in the chain"
        if seq != head.seq + 1:
            raise _FoundError(
                Fault(GONE, writer, head.seq + 1, f"is missing: the chain goes from {head.seq} to {seq}")
            )
        if digest(canonical(table, writer, Head(seq, prev), environment, row[5:])) != mark:
            return "its columns are not what its digest was made of"
        if prev != head.digest:
            return f"it does not follow row {head.seq}"
        if self.witnessed.get(writer, (0, ""))[0] == seq and self.witnessed[writer][1] != mark:
            return "the chain was written anew: another digest had been seen here"
        return None


def verify(engine: Engine, heads: Mapping[str, tuple[int, str]] | None = None) -> Verification:
    """Check everything in one unchanging view; stops at the first fault. `heads`: writer → (seq, digest)."""
    try:
        return _verify(engine, heads or {}, lenient=False)
    except _UndecodableError:
        return _verify(engine, heads or {}, lenient=True)  # slower, but the row can be named


def _verify(engine: Engine, heads: Mapping[str, tuple[int, str]], *, lenient: bool) -> Verification:
    walk = _Walk(heads)
    try:
        with reading(engine) as connection, _decoding(connection, lenient=lenient):
            with ExitStack() as open_cursors:
                tables = [open_cursors.enter_context(closing(_rows(connection, table))) for table in SHAPES]
                walk.follow(heapq.merge(*tables))
            walk.compare_tails()
            _cross_check(connection)
    except _FoundError as found:
        return Verification(walk.rows, walk.heads, found.fault)
    return Verification(walk.rows, walk.heads, None)


@contextmanager
def _decoding(connection: Connection, *, lenient: bool) -> Iterator[None]:
    driver: Any = connection.connection.driver_connection
    if lenient:
        driver.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        yield
    except OperationalError as error:
        if "Could not decode" in str(error):
            raise _UndecodableError from error
        raise
    finally:
        if lenient:
            driver.text_factory = str


def _rows(connection: Connection, table: str) -> Generator[Place, None, None]:
    """A table's rows by writer and seq, a few at a time, each cell as the digest saw it."""
    on_sqlite = connection.dialect.name == "sqlite"
    columns = SHAPES[table].columns
    names = [*CHAIN_COLUMNS, *(_as_text(column, on_sqlite=on_sqlite) for column in columns)]
    booleans = [5 + i for i, column in enumerate(columns) if on_sqlite and isinstance(column.type, Boolean)]
    number = list(SHAPES).index(table)
    found = connection.exec_driver_sql(
        f"SELECT {', '.join(names)} FROM {table} ORDER BY writer, seq",  # noqa: S608  # our own names
        execution_options={"stream_results": True, "yield_per": ROWS_AT_ONCE},
    )
    with closing(found):
        for row in found:
            cells: Sequence[Any] = _with_booleans(row, booleans) if booleans else row
            if type(cells[0]) is not str or type(cells[1]) is not int:
                raise _FoundError(Fault(table, str(cells[0]), -1, f"its place is not a place: {cells[1]!r}"))
            yield cells[0], cells[1], number, table, cells


def _as_text(column: Column[object], *, on_sqlite: bool) -> str:
    """Times as they were written; on PostgreSQL made again from the stored time."""
    if on_sqlite or not isinstance(column.type, UtcDateTime):
        return column.name
    return f"""to_char({column.name} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


def _with_booleans(row: Sequence[Any], positions: Sequence[int]) -> list[Any]:
    cells = list(row)
    for position in positions:
        if cells[position] in {0, 1}:  # anything else was not written by us and stays what it is
            cells[position] = bool(cells[position])
    return cells


# Every row may be sound and yet one be missing or too many: what cannot be without something else.
ORPHANS = (
    ("requests", "its job is missing", "jobs p WHERE p.job_id = r.job_id"),
    ("starts", "its job is missing", "jobs p WHERE p.job_id = r.job_id"),
    ("outcomes", "its job is missing", "jobs p WHERE p.job_id = r.job_id"),
    ("replies", "its start is missing", "starts p WHERE p.job_id = r.job_id AND p.attempt = r.attempt"),
    ("verdicts", "its start is missing", "starts p WHERE p.job_id = r.job_id AND p.attempt = r.attempt"),
    ("late_replies", "its start is missing", "starts p WHERE p.job_id = r.job_id AND p.attempt = r.attempt"),
    ("findings", "its job is missing", "jobs p WHERE p.job_id = r.job_id"),
)
GAPS = (
    "SELECT r.writer, r.seq FROM starts r WHERE r.attempt > 1 AND NOT EXISTS "
    "(SELECT 1 FROM starts p WHERE p.job_id = r.job_id AND p.attempt = r.attempt - 1) "
    "ORDER BY r.writer, r.seq LIMIT 1"
)


def _cross_check(connection: Connection) -> None:
    for table, what, needed in ORPHANS:
        _refuse_any(
            connection,
            f"SELECT r.writer, r.seq FROM {table} r WHERE NOT EXISTS (SELECT 1 FROM {needed}) "  # noqa: S608
            "ORDER BY r.writer, r.seq LIMIT 1",
            (table, what),
        )
    _refuse_any(connection, GAPS, ("starts", "the attempt before it is missing"))


def _refuse_any(connection: Connection, statement: str, finding: tuple[str, str]) -> None:
    found = connection.exec_driver_sql(statement).first()
    if found is not None:
        table, what = finding
        raise _FoundError(Fault(table, found[0], found[1], what))
