"""The rows that found their place taken when a journal was carried over, and which of them contradict it. Reads only."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson
from sqlalchemy import Connection

from worker.audit.cells import CHAINED, rows
from worker.audit.shapes import SHAPES, misfit

CONFLICTS = "conflicts"
# Both databases bound the number of parameters of one statement.
AT_ONCE = 500
# Contradictions that are named one by one; all of them are counted.
MOST_TOLD = 20


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two hosts wrote the same thing differently: an attempt may have been made twice under one number."""

    table: str
    subject: str  # the job's id; an action's, or a stamp's name
    attempt: int | None

    def __str__(self) -> str:
        attempt = "" if self.attempt is None else f", attempt {self.attempt}"
        return f"{self.table} of {self.subject}{attempt}"


def displaced(fact: str, subject: str, cells: str) -> tuple[Any, ...] | None:
    """The columns of the row that found its place taken; None where it says of none that could be one."""
    try:
        written = orjson.loads(cells)
    except ValueError:
        return None
    if fact not in SHAPES or fact == CONFLICTS or not isinstance(written, list):
        return None
    # Columns that a later schema has added are null in it.
    row = (*written, *[None] * (len(SHAPES[fact].columns) - len(written)))
    sound = len(row) == len(SHAPES[fact].columns) and misfit(fact, row) is None
    return row if sound and row[0] == subject else None


def told_and_counted(connection: Connection) -> tuple[tuple[Contradiction, ...], int]:
    """The first contradictions, and how many there are."""
    found = contradictions(connection)
    first = tuple(_named(*row) for row in islice(found, MOST_TOLD))
    return first, len(first) + sum(1 for _ in found)


def _named(table: str, cells: Sequence[Any]) -> Contradiction:
    numbered = [column.name for column in SHAPES[table].columns][1:2] == ["attempt"]
    return Contradiction(table, str(cells[0]), int(cells[1]) if numbered else None)


def contradictions(connection: Connection) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """(table, columns) of the rows that say something else than the rows in their place.

    Most say the same: a job that was on record before the outage is recorded again with its first attempt in it.
    """
    some: list[tuple[str, tuple[Any, ...]]] = []
    with closing(rows(connection, CONFLICTS)) as found:
        for row in found:
            fact, subject, cells = row[CHAINED:]
            written = displaced(fact, subject, cells)
            if written is not None:
                some.append((fact, written))
            if len(some) == AT_ONCE:
                yield from _contradicting(connection, some)
                some = []
    yield from _contradicting(connection, some)


def _contradicting(
    connection: Connection, some: Sequence[tuple[str, tuple[Any, ...]]]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    subjects = defaultdict(set)
    for fact, cells in some:
        subjects[fact].add(cells[0])
    for fact, wanted in subjects.items():
        standing = _standing(connection, fact, sorted(wanted))
        yield from ((fact, cells) for table, cells in some if table == fact and cells not in standing)


def _standing(connection: Connection, fact: str, subjects: Sequence[str]) -> set[tuple[Any, ...]]:
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    where = f"WHERE {SHAPES[fact].columns[0].name} IN ({', '.join([mark] * len(subjects))})"
    with closing(rows(connection, fact, where, subjects)) as found:
        return {tuple(row[CHAINED:]) for row in found}
