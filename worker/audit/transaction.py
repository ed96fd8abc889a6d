"""One transaction of the audit: looks what stands there, chains exactly the rows that are new, inserts them.

On PostgreSQL the one INSERT is atomic by itself, with no BEGIN and no COMMIT around it, and can look as well: it inserts all
or, where anything stands in the way, nothing. A row that appears beside it fails it by its unique key.
Commits nothing itself and remembers nothing: the chain's head is the caller's, and moves only after the commit.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import orjson
from sqlalchemy import Connection, Dialect, select

from worker.audit.chain import Cell, Head, canonical, digest
from worker.audit.shapes import CHAIN_COLUMNS, SHAPES, Entry, Key


class Stored(StrEnum):
    """What became of one fact."""

    NEW = "new"  # written by this call
    THERE = "there"  # a row with that key, or that of another reply, stood there already; not written
    ENDED = "ended"  # a start for a job that has an outcome; not written


@dataclass(frozen=True, slots=True)
class Written:
    """What a transaction wrote: the fate of each entry, and the chain's head once it is committed."""

    fates: tuple[Stored, ...]
    head: Head


Row = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows to insert, by table, and what will be true once they are committed."""

    written: Written
    rows: dict[str, list[Row]]
    entries: Sequence[Entry]


class Transaction:
    """The statements of one writer on one kind of database, made once and used for every batch."""

    def __init__(self, dialect: Dialect, *, writer: str, environment: str) -> None:
        self.writer = writer
        self._environment = environment
        self._on_postgresql = dialect.name == "postgresql"
        self._dialect = dialect

    def plan(self, head: Head, entries: Sequence[Entry], standing: Iterable[Key]) -> Plan:
        """Chain behind `head` what does not stand there; nothing is written yet."""
        standing = set(standing)
        rows: dict[str, list[Row]] = {}
        fates = []
        beaten: set[Key] = set()  # verdicts on replies that came too late
        for entry in entries:
            fate = Stored.THERE if entry.key in beaten else fate_of(entry, standing)
            fates.append(fate)
            if fate is not Stored.NEW:
                if entry.table == "replies" and entry.key is not None:
                    beaten.add(("verdicts", *entry.key[1:]))
                continue
            if entry.key is not None:
                standing.add(entry.key)
            row, head = self._row(head, entry)
            rows.setdefault(entry.table, []).append(row)
        # Always in the same order: each order would be a statement of its own, to be planned and kept by the database.
        in_order = {table: rows[table] for table in SHAPES if table in rows}
        return Plan(Written(tuple(fates), head), in_order, entries)

    def insert_if_free(self, connection: Connection, rows: Mapping[str, Sequence[Row]]) -> bool:
        """On PostgreSQL: insert all rows, or none if one of them stands there or starts a job that has an outcome."""
        if not rows:
            return True
        texts = tuple(_records(table, some) for table, some in rows.items())
        statement = _insert_at_once(tuple(rows), self._dialect, if_free=True)
        return connection.exec_driver_sql(statement, texts).scalar() == 0

    def insert(self, connection: Connection, rows: Mapping[str, Sequence[Row]]) -> None:
        """Insert rows by table: on PostgreSQL in one statement, which is a transaction by itself."""
        if self._on_postgresql:
            if rows:
                texts = tuple(_records(table, some) for table, some in rows.items())
                connection.exec_driver_sql(_insert_at_once(tuple(rows), self._dialect, if_free=False), texts)
            return
        for table, some in rows.items():
            connection.exec_driver_sql(_insert_statement(table), list(some))

    def head(self, connection: Connection) -> Head:
        """The newest committed row of this writer, whatever its table."""
        heads = [Head()]
        for shape in SHAPES.values():
            columns = shape.table.c
            newest = (
                select(columns.seq, columns.digest)
                .where(columns.writer == self.writer)
                .order_by(columns.seq.desc())
                .limit(1)
            )
            heads += [Head(*row) for row in connection.execute(newest)]
        return max(heads)

    def holds(self, connection: Connection, head: Head) -> bool:
        """Whether the row at `head` is in the database with that very digest."""
        return any(
            connection.execute(
                select(shape.table.c.seq).where(
                    shape.table.c.writer == self.writer,
                    shape.table.c.seq == head.seq,
                    shape.table.c.digest == head.digest,
                )
            ).first()
            for shape in SHAPES.values()
        )

    def _row(self, head: Head, entry: Entry) -> tuple[Row, Head]:
        place = Head(head.seq + 1, head.digest)
        text = canonical(entry.table, self.writer, place, self._environment, entry.cells)
        mark = digest(text)
        row = (self.writer, place.seq, place.digest, mark, self._environment, *entry.cells)
        return row, Head(place.seq, mark)

    def standing(self, connection: Connection, entries: Iterable[Entry]) -> set[Key]:
        """The unique keys that stand there for the jobs of the batch."""
        jobs: dict[str, set[str]] = {table: set() for table in KEYED}
        for entry in entries:
            if entry.key is not None:
                jobs[entry.table].add(entry.job_id)
        jobs["outcomes"] |= jobs["starts"]
        if not any(jobs.values()):
            return set()
        tables = tuple(table for table in KEYED if jobs[table])
        wanted = tuple(orjson.dumps(list(jobs[table])).decode() for table in tables)
        look = _look_statement(tables, on_postgresql=self._on_postgresql)
        found = connection.exec_driver_sql(look, wanted)
        return {tuple(part for part in row if part is not None) for row in found}


KEYED = tuple(table for table, shape in SHAPES.items() if shape.key)


def fate_of(entry: Entry, standing: set[Key]) -> Stored:
    """What becomes of an entry beside the keys that stand there."""
    if entry.table == "starts" and ("outcomes", entry.job_id) in standing:
        return Stored.ENDED
    return Stored.THERE if entry.key in standing else Stored.NEW


@cache
def _look_statement(tables: tuple[str, ...], *, on_postgresql: bool) -> str:
    """One statement for these tables, one list of job ids each: few texts in all, so they stay prepared."""
    wanted = (
        "= ANY(ARRAY(SELECT json_array_elements_text(%s::json)))"
        if on_postgresql
        else "IN (SELECT value FROM json_each(?))"
    )
    parts = []
    for table in tables:
        shape = SHAPES[table]
        names = [shape.columns[position].name for position in shape.key]
        second = f"CAST({names[1]} AS TEXT)" if len(names) > 1 else "NULL"
        parts.append(f"SELECT '{table}', {names[0]}, {second} FROM {table} WHERE {names[0]} {wanted}")  # noqa: S608
    return " UNION ALL ".join(parts)


@cache
def _names(table: str) -> tuple[str, ...]:
    return (*CHAIN_COLUMNS, *(column.name for column in SHAPES[table].columns))


def _insert_statement(table: str) -> str:
    """For SQLite, one row at a time."""
    return f"INSERT INTO {table} ({_columns(table)}) VALUES ({', '.join('?' for _ in _names(table))})"  # noqa: S608


@cache
def _insert_at_once(tables: tuple[str, ...], dialect: Dialect, *, if_free: bool) -> str:
    """For PostgreSQL: all rows in one round trip, each table's as one JSON text; its answer: how many stand in the way."""
    given = [f"given_{table} AS MATERIALIZED ({_given(table, dialect)})" for table in tables]
    clashes = " UNION ALL ".join(clash for table in tables for clash in _clashes(table))
    free = "WHERE NOT EXISTS (SELECT FROM clash)" if if_free else ""
    parts = [
        f"new_{table} AS (INSERT INTO {table} ({_columns(table)}) SELECT {_columns(table)} FROM given_{table} {free})"  # noqa: S608
        for table in tables
    ]
    if not if_free:
        return f"WITH {', '.join(given + parts)} SELECT 0"
    clash = f"clash AS MATERIALIZED ({clashes or 'SELECT WHERE false'})"
    return f"WITH {', '.join([*given, clash, *parts])} SELECT count(*) FROM clash"  # noqa: S608


def _given(table: str, dialect: Dialect) -> str:
    columns = SHAPES[table].table.c
    typed = ", ".join(f"{name} {columns[name].type.compile(dialect)}" for name in _names(table))
    return f"SELECT * FROM json_to_recordset(%s::json) AS given({typed})"  # noqa: S608


def _clashes(table: str) -> Iterator[str]:
    """Queries for what stands in the way; OFFSET 0 keeps each a look into an index, on a table without statistics too."""
    shape = SHAPES[table]
    names = [shape.columns[position].name for position in shape.key]
    ways = [(table, names)] if names else []
    if table == "starts":
        ways.append(("outcomes", ["job_id"]))
    for there, on in ways:
        same = " AND ".join(f"there.{name} = given.{name}" for name in on)
        yield f"SELECT FROM given_{table} AS given WHERE EXISTS (SELECT FROM {there} AS there WHERE {same} OFFSET 0)"  # noqa: S608


def _columns(table: str) -> str:
    return ", ".join(_names(table))


def _records(table: str, rows: Sequence[Row]) -> str:
    names = _names(table)
    return orjson.dumps([dict(zip(names, row, strict=True)) for row in rows]).decode()
