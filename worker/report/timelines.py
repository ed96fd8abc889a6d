"""The stories of a few jobs: who asked, each attempt, each read, the end. Reads only."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select
from sqlalchemy.orm import DeclarativeBase

from models import Found, Looked, RepliedLate
from worker.audit.views import audit_attempts, audit_requests
from worker.report.content import Event, Happening, Line, Timeline


def timelines(connection: Connection, lines: Sequence[Line]) -> tuple[Timeline, ...]:
    """One story for each job, which must be few: every read of theirs comes into memory."""
    jobs = [line.job_id for line in lines]
    events: defaultdict[str, list[Event]] = defaultdict(list)
    for job, event in _recorded(connection, jobs):
        events[job].append(event)
    return tuple(_timeline(line, events[line.job_id]) for line in lines)


def _timeline(line: Line, recorded: list[Event]) -> Timeline:
    """The request comes first, whatever the clocks of the hosts say; the rest by time."""
    asked = Event(kind=Happening.ENQUEUED, at=line.enqueued_at, said=line.requested_by)
    if line.finished_at is not None:
        detail = f"{line.evidence}: {line.detail}" if line.detail else line.evidence
        ended = Event(kind=Happening.FINISHED, at=line.finished_at, said=line.outcome, detail=detail)
        recorded = [*recorded, ended]
    return Timeline(line=line, events=(asked, *sorted(recorded, key=lambda event: event.at)))


def _recorded(connection: Connection, jobs: Sequence[str]) -> Iterator[tuple[str, Event]]:
    for row in connection.execute(select(audit_attempts).where(audit_attempts.c.job_id.in_(jobs))):
        yield row.job_id, _attempt(row)
    joined = audit_requests.c.job_id.in_(jobs) & audit_requests.c.joined
    for row in connection.execute(select(audit_requests).where(joined)):
        yield row.job_id, Event(kind=Happening.JOINED, at=row.requested_at, said=row.requested_by)
    for row in _rows(connection, Looked, jobs):
        yield row.job_id, _read(row)
    for row in _rows(connection, RepliedLate, jobs):
        yield row.job_id, _late(row)
    for row in _rows(connection, Found, jobs):
        detail = f"by {row.found_by}: {row.because}"
        yield row.job_id, Event(kind=Happening.FOUND, at=row.found_at, said=row.finding, detail=detail)


def _rows(connection: Connection, table: type[DeclarativeBase], jobs: Sequence[str]) -> Iterable[Row[Any]]:
    return connection.execute(select(table.__table__).where(table.__table__.c.job_id.in_(jobs)))


def _attempt(row: Row[Any]) -> Event:
    http = f"HTTP {row.http_status}" if row.http_status is not None else None
    command = f"command {row.command_id}" if row.command_id is not None else None
    told = (row.failure_reason, row.failure_text, http, command, row.error)
    return Event(
        kind=Happening.ATTEMPT,
        at=row.sent_at or row.started_at,
        until=row.answered_at,
        number=row.attempt,
        said=row.verdict,
        detail=" · ".join(part for part in told if part) or None,
    )


def _late(row: Row[Any]) -> Event:
    """The attempt had been written off; it has its own entry."""
    command = f"command {row.command_id}" if row.command_id is not None else None
    return Event(
        kind=Happening.LATE_REPLY,
        at=row.answered_at or row.recorded_at,
        number=row.attempt,
        said=row.transport,
        detail=" · ".join(part for part in (command, row.error) if part) or None,
    )


def _read(row: Row[Any]) -> Event:
    missing = "not found" if row.kind == "order" else "none yet"
    told = (row.kind.replace("_", " "), row.error)
    return Event(
        kind=Happening.READ,
        at=row.read_at,
        said=missing if row.found is False else row.status,
        detail=": ".join(part for part in told if part),
    )
