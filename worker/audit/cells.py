"""Reads rows as their digests saw them: every cell as it was written, whatever the database made of it. Reads only."""

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

from sqlalchemy import Boolean, Column, Connection

from models import UtcDateTime
from worker.audit.shapes import CHAIN_COLUMNS, SHAPES

# Rows in memory at once, for each table.
ROWS_AT_ONCE = 1000
CHAINED = len(CHAIN_COLUMNS)


def rows(
    connection: Connection, table: str, where: str = "", values: Sequence[object] = ()
) -> Generator[Sequence[Any], None, None]:
    """A table's rows, place first, by writer and seq, a few at a time; `where` selects some."""
    on_sqlite = connection.dialect.name == "sqlite"
    columns = SHAPES[table].columns
    names = [*CHAIN_COLUMNS, *(as_text(column, on_sqlite=on_sqlite) for column in columns)]
    booleans = [
        CHAINED + i for i, column in enumerate(columns) if on_sqlite and isinstance(column.type, Boolean)
    ]
    found = connection.exec_driver_sql(
        f"SELECT {', '.join(names)} FROM {table} {where} ORDER BY writer, seq",  # noqa: S608  # our own names
        tuple(values),
        execution_options={"stream_results": True, "yield_per": ROWS_AT_ONCE},
    )
    with closing(found):
        for row in found:
            yield _with_booleans(row, booleans) if booleans else row


def as_text(column: Column[object], *, on_sqlite: bool) -> str:
    """Times as they were written; on PostgreSQL made again from the stored time, unless it is one that no worker has."""
    if on_sqlite or not isinstance(column.type, UtcDateTime):
        return column.name
    name = column.name
    return (
        f"CASE WHEN {name} >= '0001-01-01 00:00Z' AND {name} < '10000-01-01 00:00Z' "
        f"""THEN to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') ELSE {name}::text END"""
    )


def _with_booleans(row: Sequence[Any], positions: Sequence[int]) -> tuple[Any, ...]:
    cells = list(row)
    for position in positions:
        if cells[position] in {0, 1}:  # anything else was not written by us and stays what it is
            cells[position] = bool(cells[position])
    return tuple(cells)
