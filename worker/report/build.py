"""Builds the audit report from the published views. Reads only."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import nlargest
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, select

from worker.audit.engine import reading
from worker.audit.verify import verify
from worker.audit.views import audit_attempts, audit_jobs
from worker.clock import utc_now
from worker.reasons import Meaning
from worker.report.content import ORDER, Latency, Line, Report, Scope
from worker.report.figures import spread
from worker.report.timelines import timelines
from worker.report.totals import by_account, by_hour, by_strategy, outcomes

SLOWEST = 10
ROWS_AT_ONCE = 1000


@dataclass(slots=True)
class _Tries:
    """What the attempts of one job add to its line."""

    last: int = 0
    reason: str | None = None
    answered_at: datetime | None = None

    def add(self, row: Row[Any]) -> None:
        if row.attempt > self.last:
            self.last, self.reason = row.attempt, row.failure_reason
        if row.answered_at is not None:
            self.answered_at = max(row.answered_at, self.answered_at or row.answered_at)


@dataclass(slots=True)
class _Attempts:
    """All attempts in scope, summed up while they stream by."""

    by_job: dict[str, _Tries] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    policy_versions: set[str] = field(default_factory=set)
    latencies: list[timedelta] = field(default_factory=list)

    def add(self, row: Row[Any]) -> None:
        self.by_job.setdefault(row.job_id, _Tries()).add(row)
        self.policy_versions.add(row.policy_version)
        if row.verdict is not None and row.verdict != Meaning.ACCEPTED:
            self.reasons[row.failure_reason or row.rule] += 1
        if row.latency_ms is not None:
            self.latencies.append(timedelta(milliseconds=row.latency_ms))


def audit_report(
    engine: Engine, scope: Scope, *, heads: Mapping[str, tuple[int, str]] | None = None
) -> Report:
    """Report on the jobs in scope and check the whole audit; `heads` as for `verify`."""
    with reading(engine) as connection:
        tries = _attempts(connection, scope)
        lines = [_line(row, tries.by_job.get(row.job_id, _Tries())) for row in _jobs(connection, scope)]
        slowest = _slowest(lines)
        stories = timelines(connection, slowest)
    lines.sort(key=lambda line: (line.end != ORDER[0], line.enqueued_at, line.job_id))
    return Report(
        scope=scope,
        made_at=utc_now(),
        environments=tuple(sorted({line.environment for line in lines})),
        policy_versions=tuple(sorted(tries.policy_versions)),
        verification=verify(engine, heads),
        witnessed=heads is not None,
        outcomes=outcomes(lines),
        reasons=dict(tries.reasons.most_common()),
        attempts=dict(sorted(Counter(line.attempts for line in lines).items())),
        filled_contracts=sum(line.filled_qty or 0 for line in lines),
        latency=_latency(lines, tries.latencies),
        by_account=by_account(lines),
        by_strategy=by_strategy(lines),
        by_hour=by_hour(lines, scope.zone),
        slowest=slowest,
        timelines=stories,
        lines=tuple(lines),
    )


def _latency(lines: Sequence[Line], answers: Sequence[timedelta]) -> Latency:
    return Latency(
        enqueue_to_wire=spread(line.to_wire for line in lines),
        wire_to_answer=spread(answers),
        answer_to_end=spread(line.proof for line in lines),
        enqueue_to_end=spread(line.to_end for line in lines),
    )


def _slowest(lines: Iterable[Line]) -> tuple[Line, ...]:
    ended = (line for line in lines if line.to_end is not None)
    return tuple(nlargest(SLOWEST, ended, key=_slowness))


def _slowness(line: Line) -> timedelta:
    return line.to_end or timedelta()


def _jobs(connection: Connection, scope: Scope) -> Iterable[Row[Any]]:
    found = select(audit_jobs).where(*_in_scope(scope))
    return connection.execution_options(yield_per=ROWS_AT_ONCE).execute(found)


def _attempts(connection: Connection, scope: Scope) -> _Attempts:
    tries = _Attempts()
    theirs = audit_attempts.c.job_id == audit_jobs.c.job_id
    found = select(audit_attempts).join(audit_jobs, theirs).where(*_in_scope(scope))
    for row in connection.execution_options(yield_per=ROWS_AT_ONCE).execute(found):
        tries.add(row)
    return tries


def _in_scope(scope: Scope) -> list[ColumnElement[bool]]:
    jobs = audit_jobs.c
    limits: list[ColumnElement[bool]] = []
    if scope.since is not None:
        limits.append(jobs.enqueued_at >= scope.since)
    if scope.until is not None:
        limits.append(jobs.enqueued_at < scope.until)
    if scope.account is not None:
        limits.append(jobs.account == scope.account)
    return limits


def _line(row: Row[Any], tries: _Tries) -> Line:
    shared = {name: row._mapping[name] for name in Line.__dataclass_fields__ if name in row._mapping}  # noqa: SLF001
    return Line(**shared, reason=tries.reason, last_answered_at=tries.answered_at)
