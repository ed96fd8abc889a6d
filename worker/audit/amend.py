"""What a person may set right afterwards: which jobs ended badly, and whether one may be resolved. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, Select, and_, exists, func, or_, select

from models import Ended, Enqueued, Found
from worker.audit.engine import reading
from worker.audit.views import audit_attempts
from worker.job import JobId, Outcome

BAD = (Outcome.REFUSED.value, Outcome.UNRESOLVED.value)
# One call; more than that is to be narrowed by whoever asks.
MOST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedJob:
    """A job with its end (None: open), and what its request said."""

    job_id: JobId
    outcome: Outcome | None
    account: str
    order_id: int
    cl_ord_id: str | None
    custom_tag50: str | None
    is_automated: bool
    priority: str
    redriven_by: JobId | None
    resolved_as: str | None

    @property
    def ended_badly(self) -> bool:
        return self.outcome in {Outcome.REFUSED, Outcome.UNRESOLVED}


def jobs_by_id(engine: Engine, job_ids: Sequence[str]) -> dict[str, EndedJob]:
    """The jobs that the audit knows, by id."""
    with reading(engine) as connection:
        found = _found(connection, _jobs().where(Enqueued.job_id.in_(job_ids)))
    return {job.job_id: job for job in found}


def badly_ended_since(
    engine: Engine, since: datetime, reason: str, *, account: str | None = None
) -> list[EndedJob]:
    """Jobs that ended refused or unresolved at or after `since`, for `reason`, and were neither redriven nor resolved.

    `reason` is a failureReason or a rule of the last attempt, or the first word of the evidence. At most MOST + 1.
    """
    last = (
        select(func.coalesce(audit_attempts.c.failure_reason, audit_attempts.c.rule))
        .where(audit_attempts.c.job_id == Enqueued.job_id)
        .order_by(audit_attempts.c.attempt.desc())
        .limit(1)
        .scalar_subquery()
    )
    limits = [
        Ended.outcome.in_(BAD),
        Ended.finished_at >= since,
        or_(
            last == reason, Ended.evidence == reason, Ended.evidence.startswith(reason + " ", autoescape=True)
        ),
    ]
    if account is not None:
        limits.append(Enqueued.account == account)
    later = Enqueued.__table__.alias("again")
    limits.append(~exists().where(later.c.redrive_of == Enqueued.job_id))
    limits.append(~exists().where(Found.job_id == Enqueued.job_id))
    statement = _jobs().where(and_(*limits)).order_by(Ended.finished_at, Enqueued.job_id).limit(MOST + 1)
    with reading(engine) as connection:
        return _found(connection, statement)


def _jobs() -> "Select[tuple[object, ...]]":
    later = Enqueued.__table__.alias("later")
    redriven = select(func.max(later.c.job_id)).where(later.c.redrive_of == Enqueued.job_id).scalar_subquery()
    resolved = select(func.max(Found.finding)).where(Found.job_id == Enqueued.job_id).scalar_subquery()
    return select(
        Enqueued.job_id,
        Ended.outcome,
        Enqueued.account,
        Enqueued.order_id,
        Enqueued.cl_ord_id,
        Enqueued.custom_tag50,
        Enqueued.is_automated,
        Enqueued.priority,
        redriven.label("redriven_by"),
        resolved.label("resolved_as"),
    ).outerjoin_from(Enqueued, Ended, Ended.job_id == Enqueued.job_id)


def _found(connection: Connection, statement: "Select[tuple[object, ...]]") -> list[EndedJob]:
    return [
        EndedJob(**{**row, "outcome": Outcome(row["outcome"]) if row["outcome"] is not None else None})
        for row in connection.execute(statement).mappings()
    ]
