"""What a worker and a status question ask of the audit. Reads only."""

from base64 import b64decode
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, CursorResult, Engine, Row, and_, case, func, select

from models import Ended, Judged, Replied, Started
from worker.audit.engine import reading
from worker.audit.facts import CUT
from worker.audit.views import audit_attempts, audit_jobs, audit_requests
from worker.clock import iso
from worker.job import JobId, Outcome, State
from worker.reasons import Meaning
from worker.reply import Answered, NotSent, Reply, Transport, Unanswered

# Both databases bound the number of parameters of one statement.
CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """What was decided at the time; to decide anew, classify the reply."""

    verdict: Meaning
    rule: str
    policy_version: str
    command_id: int | None
    failure_reason: str | None
    failure_text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """One POST: that it was about to leave, what came back (None: nobody wrote it down), what it was taken for."""

    attempt: int
    worker: str
    writer: str  # the chain of its start row
    policy_version: str
    started_at: datetime
    reply: Reply | None
    verdict: VerdictRow | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    outcome: Outcome
    evidence: str
    detail: str | None
    filled_qty: int | None
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class Story:
    """All that the audit knows of one job; empty for a job it has never heard of."""

    attempts: tuple[AttemptRow, ...] = ()
    outcome: OutcomeRow | None = None


def story(engine: Engine, job_ids: Iterable[JobId], *, beside: Engine | None = None) -> dict[JobId, Story]:
    """The stories of the given jobs, one for each; for whoever takes over a job that another worker lost.

    `beside`: a journal, whose rows are looked at first; what is carried over in between is then seen twice.
    """
    wanted = list(dict.fromkeys(job_ids))
    rows = _Rows()
    for source in (beside, engine):
        if source is not None:
            with reading(source) as connection:
                for chunk in _chunks(wanted):
                    rows.read(connection, chunk)
    return {job_id: rows.story(job_id) for job_id in wanted}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What the audit has beyond a status answer of how a job came to its end."""

    first_sent_at: datetime | None
    finished_at: datetime | None
    evidence: str | None
    detail: str | None
    filled_qty: int | None


def proofs(engine: Engine, job_ids: Sequence[JobId]) -> dict[JobId, Proof]:
    """Of those jobs that the audit knows."""
    cells = audit_jobs.c
    wanted = [cells.job_id, *(cells[name] for name in Proof.__slots__)]
    found: dict[JobId, Proof] = {}
    with reading(engine) as connection:
        for chunk in _chunks(job_ids):
            rows = connection.execute(select(*wanted).where(cells.job_id.in_(chunk)))
            found |= {
                row["job_id"]: Proof(**{name: row[name] for name in Proof.__slots__})
                for row in rows.mappings()
            }
    return found


def status(
    engine: Engine, *, job_id: str | None = None, order_id: int | None = None, account: str = "default"
) -> dict[str, Any]:
    """The status answer for one job, or for the newest job of an order; {"status": "unknown"} when there is none."""
    jobs = audit_jobs.c
    which: ColumnElement[bool] = (
        jobs.job_id == job_id
        if job_id is not None
        else and_(jobs.order_id == order_id, jobs.account == account)
    )
    newest = select(audit_jobs).where(which).order_by(jobs.enqueued_at.desc(), jobs.job_id.desc()).limit(1)
    with reading(engine) as connection:
        job = connection.execute(newest).first()
        if job is None:
            return {"status": "unknown"}
        return _status(job, _last_reason(connection, job.job_id), _widest_deadline(connection, job.job_id))


def _status(job: Row[Any], reason: str | None, deadline: datetime | None) -> dict[str, Any]:
    return {
        "jobId": job.job_id,
        "account": job.account,
        "orderId": job.order_id,
        "state": State.DONE.value if job.outcome is not None else None,
        "attempts": job.attempts,
        "reason": reason,
        "commandId": job.command_id,
        "joiners": job.joiners,
        "enqueuedAt": _iso(job.enqueued_at),
        "firstSentAt": _iso(job.first_sent_at),
        "nextAt": None,
        "deadline": _iso(deadline),
        "finishedAt": _iso(job.finished_at),
        "outcome": job.outcome,
        "evidence": job.evidence,
    }


def _iso(moment: datetime | None) -> str | None:
    return iso(moment) if moment is not None else None


def _last_reason(connection: Connection, job_id: str) -> str | None:
    """The exchange's word for the last attempt, or the rule that spoke in its place."""
    attempts = audit_attempts.c
    accepted = attempts.verdict == Meaning.ACCEPTED
    said = func.coalesce(attempts.failure_reason, case((accepted, None), else_=attempts.rule))
    last = select(said).where(attempts.job_id == job_id).order_by(attempts.attempt.desc()).limit(1)
    return connection.execute(last).scalar()


def _widest_deadline(connection: Connection, job_id: str) -> datetime | None:
    """The latest wish counts; one wish without a deadline makes the job endless."""
    requests = audit_requests.c
    deadlines = connection.execute(select(requests.deadline).where(requests.job_id == job_id)).scalars().all()
    known = [deadline for deadline in deadlines if deadline is not None]
    return max(known) if known and len(known) == len(deadlines) else None


@dataclass(slots=True)
class _Rows:
    """The rows of some jobs; of two with one key the later read counts."""

    starts: defaultdict[str, dict[int, Row[Any]]] = field(default_factory=lambda: defaultdict(dict))
    replies: dict[tuple[str, int], Row[Any]] = field(default_factory=dict)
    verdicts: dict[tuple[str, int], Row[Any]] = field(default_factory=dict)
    outcomes: dict[str, Row[Any]] = field(default_factory=dict)

    def read(self, connection: Connection, job_ids: Sequence[JobId]) -> None:
        for row in _of(connection, Started, job_ids):
            self.starts[row.job_id][row.attempt] = row
        for model, found in ((Replied, self.replies), (Judged, self.verdicts)):
            found.update(((row.job_id, row.attempt), row) for row in _of(connection, model, job_ids))
        self.outcomes.update((row.job_id, row) for row in _of(connection, Ended, job_ids))

    def story(self, job_id: JobId) -> Story:
        attempts = tuple(self._attempt(row) for _, row in sorted(self.starts.get(job_id, {}).items()))
        ended = self.outcomes.get(job_id)
        return Story(attempts, _outcome_row(ended) if ended is not None else None)

    def _attempt(self, start: Row[Any]) -> AttemptRow:
        place = (start.job_id, start.attempt)
        reply, verdict = self.replies.get(place), self.verdicts.get(place)
        return AttemptRow(
            attempt=start.attempt,
            worker=start.worker,
            writer=start.writer,
            policy_version=start.policy_version,
            started_at=start.started_at,
            reply=_reply(reply) if reply is not None else None,
            verdict=_verdict_row(verdict) if verdict is not None else None,
        )


def _of(connection: Connection, model: Any, job_ids: Sequence[JobId]) -> CursorResult[Any]:
    return connection.execute(select(model.__table__).where(model.job_id.in_(job_ids)))


def _reply(row: Row[Any]) -> Reply:
    """The reply as it was, so that it can be judged again with the same result."""
    match row.transport:
        case Transport.NOT_SENT:
            return NotSent(error=row.error or "")
        case Transport.UNANSWERED:
            return Unanswered(error=row.error or "", sent_at=row.sent_at, ended_at=row.recorded_at)
    oddities = (row.error or "").split("; ")
    encodings = [text.split(" ", 1)[1] for text in oddities if text.startswith("content-encoding ")]
    return Answered(
        status=row.http_status,
        body=b64decode(row.body) if row.body_encoding == "base64" else (row.body or "").encode(),
        headers={"content-encoding": encodings[0]} if encodings else {},
        truncated=CUT in oddities,
        sent_at=row.sent_at,
        answered_at=row.answered_at,
    )


def _verdict_row(row: Row[Any]) -> VerdictRow:
    return VerdictRow(
        verdict=Meaning(row.verdict),
        rule=row.rule,
        policy_version=row.policy_version,
        command_id=row.command_id,
        failure_reason=row.failure_reason,
        failure_text=row.failure_text,
    )


def _outcome_row(row: Row[Any]) -> OutcomeRow:
    return OutcomeRow(
        outcome=Outcome(row.outcome),
        evidence=row.evidence,
        detail=row.detail,
        filled_qty=row.filled_qty,
        finished_at=row.finished_at,
    )


def _chunks(items: Sequence[JobId]) -> Iterator[Sequence[JobId]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
