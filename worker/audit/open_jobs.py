"""The jobs of one ledger that the audit knows and that have no outcome: what a ledger that lost data gets back."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, func, select
from sqlalchemy.orm import InstrumentedAttribute

from models import Ended, Enqueued, Joined, Replied, Stamped, Started
from worker.audit.engine import reading
from worker.audit.stamp import ledger_stamp
from worker.job import CancelRequest, Job, JobId, Joiner, OrderId, Priority, Step

# Jobs looked at by one statement, ended ones too: some tens of milliseconds.
PAGE = 10_000
# Open jobs handed over at once: a call of the ledger that lasts some milliseconds.
MOST = 200
# Which jobs a page is about, said of any table's job_id.
Among = Callable[[InstrumentedAttribute[str]], list[ColumnElement[bool]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenJob:
    """A job as its own request came, and who joined it; `on_its_way`: an attempt has no answer on record."""

    job: Job
    joiners: tuple[Joiner, ...]
    on_its_way: bool


def open_jobs(engine: Engine, ledger: str) -> Iterator[list[OpenJob]]:
    """Page by page, oldest first; pages may be empty. No transaction outlasts a page."""
    after: str | None = ""
    while after is not None:
        with reading(engine) as connection:
            until = connection.execute(
                select(Enqueued.job_id)
                .where(Enqueued.job_id > after)
                .order_by(Enqueued.job_id)
                .offset(PAGE - 1)
                .limit(1)
            ).scalar()
            found = _without_outcome(connection, ledger, partial(_within, after=after, until=until))
        yield from (found[start : start + MOST] for start in range(0, len(found), MOST)) if found else [[]]
        after = until


def open_jobs_among(engine: Engine, ledger: str, jobs: Iterable[JobId]) -> Iterator[list[OpenJob]]:
    """Those of `jobs` that are open, page by page."""
    wanted = sorted(jobs)
    for start in range(0, len(wanted), MOST):
        page = wanted[start : start + MOST]
        with reading(engine) as connection:
            found = _without_outcome(connection, ledger, partial(_one_of, page))
        if found:
            yield found


def _without_outcome(connection: Connection, ledger: str, among: Among) -> list[OpenJob]:
    attempts = select(func.count()).where(Started.job_id == Enqueued.job_id).scalar_subquery()
    replies = select(func.count()).where(Replied.job_id == Enqueued.job_id).scalar_subquery()
    # The page's bounds for both tables: no plan may go through all outcomes for each page.
    ended = select(Ended.job_id).where(Ended.job_id == Enqueued.job_id, *among(Ended.job_id))
    stamped = select(Stamped.name).where(
        Stamped.name == ledger_stamp(Enqueued.writer), Stamped.value == ledger
    )
    wanted = (
        select(Enqueued.__table__, attempts.label("attempts"), replies.label("replies"))
        .where(*among(Enqueued.job_id), ~ended.exists(), stamped.exists())
        .order_by(Enqueued.job_id)
    )
    rows = connection.execute(wanted).all()
    joiners = _joiners(connection, [row.job_id for row in rows])
    return [
        OpenJob(job=_job(row), joiners=tuple(joiners[row.job_id]), on_its_way=row.attempts > row.replies)
        for row in rows
    ]


def _within(
    job_id: InstrumentedAttribute[str], *, after: str, until: str | None
) -> list[ColumnElement[bool]]:
    return [job_id > after] if until is None else [job_id > after, job_id <= until]


def _one_of(jobs: Sequence[JobId], job_id: InstrumentedAttribute[str]) -> list[ColumnElement[bool]]:
    return [job_id.in_(jobs)]


def _joiners(connection: Connection, job_ids: Sequence[str]) -> dict[str, list[Joiner]]:
    found: defaultdict[str, list[Joiner]] = defaultdict(list)
    for start in range(0, len(job_ids), MOST):
        chunk = job_ids[start : start + MOST]
        rows = connection.execute(
            select(Joined.__table__).where(Joined.job_id.in_(chunk)).order_by(Joined.requested_at)
        )
        for row in rows:
            found[row.job_id].append(
                Joiner(
                    request_id=row.request_id,
                    requested_by=row.requested_by,
                    priority=Priority(row.priority),
                    deadline=row.deadline,
                    requested_at=row.requested_at,
                    activation_time=row.activation_time,
                )
            )
    return found


def _job(row: Row[Any]) -> Job:
    request = CancelRequest(
        account=row.account,
        order_id=OrderId(row.order_id),
        request_id=row.request_id,
        requested_by=row.requested_by,
        cl_ord_id=row.cl_ord_id,
        activation_time=row.activation_time,
        custom_tag50=row.custom_tag50,
        is_automated=row.is_automated,
        priority=Priority(row.priority),
        deadline=row.deadline,
    )
    return Job(
        id=JobId(row.job_id),
        request=request,
        enqueued_at=row.enqueued_at,
        step=Step.RECONCILE,
        attempts=row.attempts,
        redrive_of=JobId(row.redrive_of) if row.redrive_of is not None else None,
    )
