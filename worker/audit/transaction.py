"""One transaction of the audit: looks what stands there, chains exactly the rows that are new, inserts them.

On PostgreSQL the look and the one INSERT are a round trip each, with no BEGIN and no COMMIT around them: the
INSERT is atomic by itself, and a row that appeared in between fails it by its unique key. Commits nothing itself and remembers nothing: the chain's head is the caller's, and moves only after the commit.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from sqlalchemy import Connection, Dialect, select

from worker.audit.chain import Cell, Head, canonical, digest
from worker.audit.shapes import CHAIN_COLUMNS, SHAPES, Entry, Key


class Stored(StrEnum):
    """What became of one fact."""

    NEW = "new"  # written by this call
    THERE = "there"  # a row with that key stood there already; not written
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


class Transaction:
    """The statements of one writer on one kind of database, made once and used for every batch."""

    def __init__(self, dialect: Dialect, *, writer: str, environment: str) -> None:
        self._writer = writer
        self._environment = environment
        self._on_postgresql = dialect.name == "postgresql"
        self._dialect = dialect

    def plan(self, connection: Connection, head: Head, entries: Sequence[Entry]) -> Plan:
        """Look what stands there and chain the rest behind `head`; nothing is written yet."""
        standing = self._standing(connection, entries)
        rows: dict[str, list[Row]] = {}
        fates = []
        for entry in entries:
            fate = _fate(entry, standing)
            fates.append(fate)
            if fate is not Stored.NEW:
                continue
            if entry.key is not None:
                standing.add(entry.key)
            row, head = self._row(head, entry)
            rows.setdefault(entry.table, []).append(row)
        return Plan(Written(tuple(fates), head), rows)

    def insert(self, connection: Connection, plan: Plan) -> None:
        """Insert the planned rows: on PostgreSQL in one statement, which is a transaction by itself."""
        if self._on_postgresql:
            if plan.rows:
                texts = tuple(_records(table, rows) for table, rows in plan.rows.items())
                connection.exec_driver_sql(_insert_at_once(tuple(plan.rows), self._dialect), texts)
            return
        for table, rows in plan.rows.items():
            connection.exec_driver_sql(_insert_statement(table), rows)

    def head(self, connection: Connection) -> Head:
        """The newest committed row of this writer, whatever its table."""
        heads = [Head()]
        for shape in SHAPES.values():
            columns = shape.table.c
            newest = (
                select(columns.seq, columns.digest)
                .where(columns.writer == self._writer)
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
                    shape.table.c.writer == self._writer,
                    shape.table.c.seq == head.seq,
                    shape.table.c.digest == head.digest,
                )
            ).first()
            for shape in SHAPES.values()
        )

    def _row(self, head: Head, entry: Entry) -> tuple[Row, Head]:
        place = Head(head.seq + 1, head.digest)
        text = canonical(entry.table, self._writer, place, self._environment, entry.cells)
        mark = digest(text)
        row = (self._writer, place.seq, place.digest, mark, self._environment, *entry.cells)
        return row, Head(place.seq, mark)

    def _standing(self, connection: Connection, entries: Iterable[Entry]) -> set[Key]:
        """The unique keys that stand there for the jobs of the batch."""
        jobs: dict[str, set[str]] = {table: set() for table in KEYED}
        for entry in entries:
            if entry.key is not None:
                jobs[entry.table].add(entry.job_id)
        jobs["outcomes"] |= jobs["starts"]
        if not any(jobs.values()):
            return set()
        tables = tuple(table for table in KEYED if jobs[table])
        wanted = tuple(self._list(jobs[table]) for table in tables)
        look = _look_statement(tables, on_postgresql=self._on_postgresql)
        found = connection.exec_driver_sql(look, wanted)
        return {tuple(part for part in row if part is not None) for row in found}

    def _list(self, values: set[str]) -> object:
        return list(values) if self._on_postgresql else json.dumps(list(values))


KEYED = tuple(table for table, shape in SHAPES.items() if shape.key)


def _fate(entry: Entry, standing: set[Key]) -> Stored:
    if entry.table == "starts" and ("outcomes", entry.job_id) in standing:
        return Stored.ENDED
    return Stored.THERE if entry.key in standing else Stored.NEW


@cache
def _look_statement(tables: tuple[str, ...], *, on_postgresql: bool) -> str:
    """One statement for these tables, one list of job ids each: few texts in all, so they stay prepared."""
    wanted = "= ANY(%s::text[])" if on_postgresql else "IN (SELECT value FROM json_each(?))"
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
    names = _names(table)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' for _ in names)})"  # noqa: S608


@cache
def _insert_at_once(tables: tuple[str, ...], dialect: Dialect) -> str:
    """For PostgreSQL: all rows of all tables in one round trip, each table's as one JSON text."""
    *parts, last = [_insert_records(table, dialect) for table in tables]
    if not parts:
        return last
    named = ", ".join(f"part{number} AS ({part})" for number, part in enumerate(parts))
    return f"WITH {named} {last}"


def _insert_records(table: str, dialect: Dialect) -> str:
    columns, names = SHAPES[table].table.c, ", ".join(_names(table))
    typed = ", ".join(f"{name} {columns[name].type.compile(dialect)}" for name in _names(table))
    return f"INSERT INTO {table} ({names}) SELECT {names} FROM json_to_recordset(%s::json) AS given({typed})"  # noqa: S608


def _records(table: str, rows: list[Row]) -> str:
    names = _names(table)
    return json.dumps([dict(zip(names, row, strict=True)) for row in rows], ensure_ascii=False)
