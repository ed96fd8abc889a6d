"""The stories of a few jobs: who asked, each attempt, each read, the end. Reads only."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table, select

from models import Looked
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
    asked = Event(kind=Happening.ENQUEUED, at=line.enqueued_at, said=line.requested_by)
    story = [asked, *sorted(recorded, key=lambda event: event.at)]
    if line.finished_at is not None:
        detail = f"{line.evidence}: {line.detail}" if line.detail else line.evidence
        story.append(Event(kind=Happening.FINISHED, at=line.finished_at, said=line.outcome, detail=detail))
    return Timeline(line=line, events=tuple(story))


def _recorded(connection: Connection, jobs: Sequence[str]) -> Iterator[tuple[str, Event]]:
    looked = Looked.__table__
    assert isinstance(looked, Table)  # noqa: S101  # a mapped class with a __tablename__ has one
    for row in connection.execute(select(audit_attempts).where(audit_attempts.c.job_id.in_(jobs))):
        yield row.job_id, _attempt(row)
    for row in connection.execute(select(looked).where(looked.c.job_id.in_(jobs))):
        yield row.job_id, _read(row)
    joined = audit_requests.c.job_id.in_(jobs) & audit_requests.c.joined
    for row in connection.execute(select(audit_requests).where(joined)):
        yield row.job_id, Event(kind=Happening.JOINED, at=row.requested_at, said=row.requested_by)


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


def _read(row: Row[Any]) -> Event:
    missing = "not found" if row.kind == "order" else "none yet"
    told = (row.kind.replace("_", " "), row.error)
    return Event(
        kind=Happening.READ,
        at=row.read_at,
        said=missing if row.found is False else row.status,
        detail=": ".join(part for part in told if part),
    )
