"""Fills an audit with many cancels over 250 days, in bulk: real facts, real chains, triggers and indexes in place.

`python -m bench.fill URL ATTEMPTS` writes a chain a day, each in one transaction. The audit's own writer would take
a day for ten million attempts; these rows differ from its own in one thing only: that a day shares one stencil.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Engine

from models import UtcDateTime
from worker.audit.chain import Cell, Head, canonical, digest
from worker.audit.engine import open_engine
from worker.audit.facts import (
    Fact,
    Seen,
    job_fact,
    outcome_fact,
    read_fact,
    reply_fact,
    start_fact,
    verdict_fact,
)
from worker.audit.shapes import CHAIN_COLUMNS, SHAPES, Entry, entry
from worker.clock import iso, span_micros
from worker.embedded.lifeline import die_with_parent
from worker.job import CancelRequest, Job, JobId, OrderId, Outcome, Priority, Step
from worker.reply import Answered
from worker.verdict import classify

DAYS = 250
FIRST_DAY = datetime(2026, 1, 5, tzinfo=UTC)
# A session of the exchange is 23 hours long.
SESSION = timedelta(hours=23)
FIRST_ORDER = 1_000_000_001
# Every so many-th cancel is told AnotherCommandPending once: five attempts for four jobs.
TWICE = 4
ENVIRONMENT = "https://demo.tradovateapi.com/v1"
POLICY = "2026-11.2"
BOUND = timedelta(hours=1)

Row = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Stencil:
    """One row to be: its cells, and what of each new job goes where."""

    table: str
    cells: tuple[Cell, ...]
    slots: tuple[tuple[int, str | int], ...]  # position → a name, or microseconds after the enqueue


@dataclass(frozen=True, slots=True)
class Wish:
    """Which cancel it is: the number-th of the audit, enqueued at `at` (whole seconds)."""

    number: int
    at: datetime

    @property
    def order_id(self) -> int:
        return FIRST_ORDER + self.number

    @property
    def job_id(self) -> str:
        """As the ledger makes them: they begin with the time, so that an index grows at its end."""
        time = f"{int(self.at.timestamp() * 1000):012x}"
        return f"{time[:8]}-{time[8:]}-7{self.number % 4096:03x}-8000-{self.number:012x}"


def wishes(day: int, attempts: int) -> Iterator[Wish]:
    """A day's cancels, evenly over its session."""
    a_day = jobs(attempts) // DAYS
    begin, pace = FIRST_DAY + timedelta(days=day), SESSION / a_day
    for nth in range(a_day):
        yield Wish(day * a_day + nth, (begin + nth * pace).replace(microsecond=0))


def jobs(attempts: int) -> int:
    return attempts * TWICE // (TWICE + 1) // DAYS * DAYS


def fill(engine: Engine, attempts: int) -> None:
    """All days; what is there already must be empty."""
    for day in range(DAYS):
        rows: dict[str, list[Row]] = {table: [] for table in SHAPES}
        for table, row in _chained(day, attempts):
            rows[table].append(row)
        _insert(engine, rows)


def _chained(day: int, attempts: int) -> Iterator[tuple[str, Row]]:
    """A day's rows, behind each other in a chain of the day's own."""
    writer, head = f"{FIRST_DAY + timedelta(days=day):%Y%m%d}-0000-7000-8000-000000000000", Head()
    for wish in wishes(day, attempts):
        second = iso(wish.at)[:-7]
        given: dict[str | int, Cell] = {
            "job_id": wish.job_id,
            "order_id": wish.order_id,
            "request_id": f"r-{wish.job_id}",
            "command_id": 5_000_000_000 + wish.number,
        }
        for stencil in _stencils(twice=wish.number % TWICE == 0):
            cells = list(stencil.cells)
            for position, what in stencil.slots:
                cells[position] = f"{second}{what:06d}Z" if isinstance(what, int) else given[what]
            place = Head(head.seq + 1, head.digest)
            mark = digest(canonical(stencil.table, writer, place, ENVIRONMENT, cells))
            yield stencil.table, (writer, place.seq, place.digest, mark, ENVIRONMENT, *cells)
            head = Head(place.seq, mark)


@cache
def _stencils(*, twice: bool) -> tuple[Stencil, ...]:
    """The rows of a cancel that is accepted, at the first or at the second attempt, and proven."""
    return tuple(_stencil(entry(fact)) for fact in _life(twice=twice))


def _stencil(made: Entry) -> Stencil:
    slots: list[tuple[int, str | int]] = []
    for position, column in enumerate(SHAPES[made.table].columns):
        cell = made.cells[position]
        if cell is None:
            continue
        if isinstance(column.type, UtcDateTime):
            slots.append((position, span_micros(datetime.fromisoformat(str(cell)) - FIRST_DAY)))
        elif column.name in {"job_id", "order_id", "request_id", "command_id"}:
            slots.append((position, column.name))
    return Stencil(made.table, made.cells, tuple(slots))


def _life(*, twice: bool) -> Iterator[Fact]:
    job = JobId("job")
    asked = CancelRequest(
        account="DEMO1",
        order_id=OrderId(1),
        request_id="request",
        requested_by="momentum",
        priority=Priority.NORMAL,
    )
    yield job_fact(Job(id=job, request=asked, enqueued_at=_at(0), step=Step.POST, attempts=0))
    if twice:
        yield from _attempt(
            job, 1, b'{"failureReason":"AnotherCommandPending","failureText":"busy"}', after=5
        )
    yield from _attempt(job, 1 + twice, b'{"commandId":5000000001}', after=90)
    seen = b'[{"id":1000000001,"accountId":1,"action":"Buy","ordStatus":"Canceled","executionProviderId":1}]'
    read = Answered(status=200, body=seen, sent_at=_at(300), answered_at=_at(330))
    yield read_fact(job, "order", read, Seen(found=True, status="Canceled", body=seen.decode()))
    yield outcome_fact(job, Outcome.CANCELED, evidence="order_read", detail="Canceled", finished_at=_at(340))


def _attempt(job: JobId, attempt: int, body: bytes, *, after: int) -> Iterator[Fact]:
    reply = Answered(status=200, body=body, sent_at=_at(after + 2), answered_at=_at(after + 24))
    sent = '{"orderId":1000000001,"isAutomated":true}'
    yield start_fact(job, attempt, worker="host/1", started_at=_at(after), policy_version=POLICY, body=sent)
    yield reply_fact(job, attempt, reply, recorded_at=_at(after + 25))
    yield verdict_fact(job, attempt, classify(reply), policy_version=POLICY, decided_at=_at(after + 26))


def _at(milliseconds: int) -> datetime:
    return FIRST_DAY + timedelta(milliseconds=milliseconds)


def _insert(engine: Engine, rows: dict[str, list[Row]]) -> None:
    """One transaction: COPY on PostgreSQL, whose triggers speak up for changes only; else one INSERT a row."""
    with engine.begin() as connection:
        driver: Any = connection.connection.driver_connection
        for table, some in rows.items():
            if engine.dialect.name == "postgresql":
                _copy(driver, table, some)
            elif some:
                marks = ", ".join("?" for _ in some[0])
                driver.executemany(f"INSERT INTO {table} ({_names(table)}) VALUES ({marks})", some)


def _copy(driver: Any, table: str, rows: Sequence[Row]) -> None:
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({_names(table)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _names(table: str) -> str:
    return ", ".join((*CHAIN_COLUMNS, *(column.name for column in SHAPES[table].columns)))


if __name__ == "__main__":
    die_with_parent()
    filled = open_engine(sys.argv[1], statement_bound=BOUND)
    fill(filled, int(sys.argv[2]))
    filled.dispose()
