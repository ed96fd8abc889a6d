"""All that the audit knows of one order's cancels, by indexed look-ups only. Reads; interprets nothing."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, select
from sqlalchemy.orm import DeclarativeBase

from models import Acted, Ended, Enqueued, Found, Joined, Judged, Looked, Replied, RepliedLate, Started
from worker.audit.engine import reading
from worker.job import Steering

# The newest ones; an order that was canceled more often is a loop that needs no full listing.
MOST_JOBS = 200
# So many times nobody pauses and resumes within one order's life.
MOST_ACTIONS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """The job and its first request; None where only the ledger has heard of the job and does not say."""

    job_id: str
    account: str
    order_id: int
    cl_ord_id: str | None = None
    activation_time: datetime | None = None
    custom_tag50: str | None = None
    is_automated: bool | None = None
    requested_by: str | None = None
    request_id: str | None = None
    priority: str | None = None
    deadline: datetime | None = None
    enqueued_at: datetime
    redrive_of: str | None = None
    environment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRow:
    job_id: str
    request_id: str
    requested_by: str | None
    priority: str
    deadline: datetime | None
    requested_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRow:
    job_id: str
    attempt: int
    worker: str
    started_at: datetime
    policy_version: str
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyRow:
    job_id: str
    attempt: int
    transport: str
    http_status: int | None
    body: str | None
    body_encoding: str | None
    error: str | None
    sent_at: datetime | None
    answered_at: datetime | None
    latency_us: int | None
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LateRow:
    job_id: str
    attempt: int
    transport: str
    http_status: int | None
    body: str | None
    body_encoding: str | None
    error: str | None
    sent_at: datetime | None
    answered_at: datetime | None
    command_id: int | None
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    job_id: str
    attempt: int
    verdict: str
    command_id: int | None
    failure_reason: str | None
    failure_text: str | None
    rule: str
    policy_version: str
    decided_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRow:
    job_id: str
    kind: str
    read_at: datetime
    transport: str
    http_status: int | None
    found: bool | None
    status: str | None
    body: str | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    job_id: str
    outcome: str
    evidence: str
    detail: str | None
    filled_qty: int | None
    finished_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRow:
    job_id: str
    finding: str
    found_by: str
    because: str
    found_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRow:
    action: str
    acted_by: str
    because: str | None
    acted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """One job's rows, each kind in the order of its time."""

    job: JobRow
    recorded: bool = True  # False: only the ledger knows of it yet
    joins: tuple[JoinRow, ...] = ()
    starts: tuple[StartRow, ...] = ()
    replies: tuple[ReplyRow, ...] = ()
    late: tuple[LateRow, ...] = ()
    verdicts: tuple[VerdictRow, ...] = ()
    reads: tuple[ReadRow, ...] = ()
    outcome: OutcomeRow | None = None
    findings: tuple[FindingRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFacts:
    """The order's jobs, oldest first, and what people did with the ledger meanwhile (and last before)."""

    jobs: tuple[JobFacts, ...] = ()
    actions: tuple[ActionRow, ...] = ()


RowType = TypeVar(
    "RowType", JoinRow, StartRow, ReplyRow, LateRow, VerdictRow, ReadRow, OutcomeRow, FindingRow
)


def order_story(
    engine: Engine, order_id: int, *, account: str | None = None, ledger: str = "cancelq"
) -> OrderFacts:
    """The newest MOST_JOBS jobs of the order, all as of one moment; of every account unless told."""
    with reading(engine) as connection:
        jobs = _jobs(connection, order_id, account)
        if not jobs:
            return OrderFacts()
        return OrderFacts(jobs=_with_facts(connection, jobs), actions=_actions(connection, ledger, jobs))


def _jobs(connection: Connection, order_id: int, account: str | None) -> list[JobRow]:
    wanted = select(*_columns(Enqueued, JobRow)).where(Enqueued.order_id == order_id)
    if account is not None:
        wanted = wanted.where(Enqueued.account == account)
    newest = wanted.order_by(Enqueued.enqueued_at.desc(), Enqueued.job_id.desc()).limit(MOST_JOBS)
    return [JobRow(**row) for row in reversed(connection.execute(newest).mappings().all())]


def _with_facts(connection: Connection, jobs: Sequence[JobRow]) -> tuple[JobFacts, ...]:
    ids = [job.job_id for job in jobs]
    joins = _by_job(connection, ids, Joined, JoinRow, "requested_at")
    starts = _by_job(connection, ids, Started, StartRow, "attempt")
    replies = _by_job(connection, ids, Replied, ReplyRow, "attempt")
    late = _by_job(connection, ids, RepliedLate, LateRow, "attempt")
    verdicts = _by_job(connection, ids, Judged, VerdictRow, "attempt")
    reads = _by_job(connection, ids, Looked, ReadRow, "read_at")
    outcomes = _by_job(connection, ids, Ended, OutcomeRow, "finished_at")
    findings = _by_job(connection, ids, Found, FindingRow, "found_at")
    return tuple(
        JobFacts(
            job=job,
            joins=tuple(joins[job.job_id]),
            starts=tuple(starts[job.job_id]),
            replies=tuple(replies[job.job_id]),
            late=tuple(late[job.job_id]),
            verdicts=tuple(verdicts[job.job_id]),
            reads=tuple(reads[job.job_id]),
            outcome=next(iter(outcomes[job.job_id]), None),
            findings=tuple(findings[job.job_id]),
        )
        for job in jobs
    )


def _by_job(
    connection: Connection, ids: Sequence[str], table: type[DeclarativeBase], row: type[RowType], order: str
) -> defaultdict[str, list[RowType]]:
    cells = table.__table__.c
    found = select(*_columns(table, row)).where(cells.job_id.in_(ids)).order_by(cells[order])
    by_job: defaultdict[str, list[RowType]] = defaultdict(list)
    for values in connection.execute(found).mappings():
        by_job[values["job_id"]].append(row(**values))
    return by_job


def _actions(connection: Connection, ledger: str, jobs: Sequence[JobRow]) -> tuple[ActionRow, ...]:
    """Since the oldest of the jobs, and the last before that: whether it was born into a pause."""
    born = jobs[0].enqueued_at
    steered = (Acted.ledger == ledger) & Acted.action.in_([*Steering])
    acted = select(*_columns(Acted, ActionRow)).where(steered).order_by(Acted.acted_at.desc())
    since = connection.execute(acted.where(Acted.acted_at > born).limit(MOST_ACTIONS)).mappings().all()
    before = acted.where(Acted.acted_at <= born, Acted.action != "drain").limit(1)
    last = connection.execute(before).mappings().all()
    return tuple(ActionRow(**row) for row in reversed([*since, *last]))


def _columns(table: type[DeclarativeBase], row: type[Any]) -> list[Any]:
    return [table.__table__.c[field.name] for field in fields(row)]
