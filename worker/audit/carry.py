"""Carries a journal's rows over into the database, byte for byte and each once. Makes no row of its own.

A row whose place is taken by itself is there already: a carrier died before it cleared the journal, or a COMMIT in
doubt had arrived. A row whose key another row holds goes into `conflicts`, whole.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError

from worker.audit.cells import CHAINED
from worker.audit.chain import Cell
from worker.audit.conflicts import CONFLICTS, displaced
from worker.audit.engine import answering, reason
from worker.audit.journal import Chunk, Journal
from worker.audit.shapes import SHAPES, Entry
from worker.audit.transaction import Row, Transaction
from worker.clock import monotonic
from worker.errors import CancelqError, FactRejected
from worker.gaps import Gap, reached

# Losing this many races in a row for the same keys is no race any more.
MOST_RACES = 20
# What belongs to one attempt: it goes where the attempt's start went.
OF_AN_ATTEMPT = frozenset({"replies", "late_replies", "verdicts"})

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Carried:
    """What one turn came to."""

    slowest: timedelta = timedelta(0)  # transaction


def carry_all(journal: Journal, engine: Engine, *, ending: Callable[[], bool]) -> Carried:
    """Carry over what is there by now, chain by chain; AuditUnavailable if the database is still away."""
    carried = Carried()
    for writer in journal.writers():
        try:
            for took in carry_over(journal, engine, writer):
                carried.slowest = max(carried.slowest, took)
                if ending():
                    return carried
        except FactRejected as error:
            log.error("journal.not_carried", writer=writer, reason=str(error))  # noqa: TRY400  # no bug of ours
    return carried


def carry_over(journal: Journal, engine: Engine, writer: str) -> Iterator[timedelta]:
    """Move the rows of a chain that are there by now; what can't be removed, on a full disk, is carried all the same."""
    left, last = journal.depth(writer), 0  # more may come all the time
    while left > 0 and (chunk := journal.oldest(writer, after=last)) is not None:
        began = monotonic()
        _commit(engine, chunk)
        took = monotonic() - began
        reached(Gap.CARRIED)
        try:
            journal.on_arrival(chunk)
            journal.remove(chunk)
        except CancelqError as error:
            journal.could_not_remove(chunk)
            log.error("journal.not_cleared", reason=str(error))  # noqa: TRY400
        log.info("journal.carried", writer=chunk.writer, rows=chunk.size)
        left, last = left - chunk.size, chunk.last
        yield took


def _commit(engine: Engine, chunk: Chunk) -> None:
    for races in range(MOST_RACES + 1):
        try:
            with answering(engine), engine.begin() as connection:
                _insert(connection, chunk)
        except DBAPIError as error:
            if races == MOST_RACES or not isinstance(error, IntegrityError):
                raise FactRejected(f"the database refuses a row of the journal: {reason(error)}") from error
        else:
            return


def _insert(connection: Connection, chunk: Chunk) -> None:
    transaction = Transaction(connection.dialect, writer=chunk.writer, environment="")
    there = _digests(connection, chunk)
    missing = [
        (table, row)
        for table, rows in chunk.rows.items()
        for row in rows
        if not _is_there(there, chunk.writer, row)
    ]
    standing = transaction.standing(connection, [_entry(table, row) for table, row in missing])
    displaced = _displaced_starts(connection, chunk.writer)
    new: dict[str, list[Row]] = defaultdict(list)
    for table, row in sorted(missing, key=lambda placed: placed[1][1] or 0):
        entry = _entry(table, row)
        attempt = entry.cells[:2]
        if entry.key in standing or (table in OF_AN_ATTEMPT and attempt in displaced):
            new[CONFLICTS].append(_conflict(table, row))
            if table == "starts":
                displaced.add(attempt)
            continue
        if entry.key is not None:
            standing.add(entry.key)
        new[table].append(row)
    transaction.insert(connection, new)


def _is_there(there: Mapping[int, str], writer: str, row: Row) -> bool:
    """Whether this very row is in the database. Two rows for one place cannot be: nothing may be hidden then."""
    seq, mark = int(str(row[1])), row[3]
    if seq in there and there[seq] != mark:
        raise FactRejected(
            f"row {seq} of {writer} in the journal is not the one that the database has: is the journal an old copy?"
        )
    return seq in there


def _digests(connection: Connection, chunk: Chunk) -> dict[int, str]:
    """What stands in the database at the places of these rows."""
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    places = [int(str(row[1])) for rows in chunk.rows.values() for row in rows]
    return {
        seq: digest
        for table in SHAPES
        for seq, digest in connection.exec_driver_sql(
            f"SELECT seq, digest FROM {table} WHERE writer = {mark} AND seq BETWEEN {mark} AND {mark}",  # noqa: S608
            (chunk.writer, min(places), max(places)),
        )
    }


def _displaced_starts(connection: Connection, writer: str) -> set[tuple[Cell, ...]]:
    """The attempts of this chain whose start rows found their place taken before."""
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    found = connection.exec_driver_sql(
        f"SELECT subject, cells FROM conflicts WHERE writer = {mark} AND fact = 'starts'",  # noqa: S608
        (writer,),
    )
    rows = (displaced("starts", subject, cells) for subject, cells in found)
    return {row[:2] for row in rows if row is not None}


def _entry(table: str, row: Row) -> Entry:
    cells, shape = row[CHAINED:], SHAPES[table]
    key = (table, *(str(cells[position]) for position in shape.key)) if shape.key else None
    return Entry(table, cells, key)


def _conflict(table: str, row: Row) -> Row:
    cells = row[CHAINED:]
    return (*row[:CHAINED], table, str(cells[0]), json.dumps(cells, ensure_ascii=False))
