"""Builds the audit report from the published views. Reads only."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import nlargest
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, FromClause, Row, select

from models import Enqueued
from worker.audit.engine import reading
from worker.audit.journal import Journal
from worker.audit.stamp import owner
from worker.audit.verify import Verification, verify
from worker.audit.views import audit_attempts, audit_jobs
from worker.clock import utc_now
from worker.reasons import Meaning
from worker.report.content import ORDER, Latency, Line, Report, Scope
from worker.report.figures import spread
from worker.report.timelines import timelines
from worker.report.totals import by_account, by_hour, by_strategy, outcomes

SLOWEST = 10
ROWS_AT_ONCE = 1000


# What a line says of a job's attempts is summed up here, from the rows that are read anyway: asked of the view, each
# would be looked for once more. Of the other columns there are as many as Line has fields, in their order.
OF_ATTEMPTS = ("first_sent_at", "last_answered_at", "attempts", "command_id", "reason")
OF_JOB = [audit_jobs.c[name] for name in Line._fields if name not in OF_ATTEMPTS]


class _Try(NamedTuple):
    """One attempt; its fields are the columns that are asked for."""

    job_id: str
    attempt: int
    sent_at: datetime | None
    answered_at: datetime | None
    command_id: int | None
    failure_reason: str | None
    verdict: str | None
    rule: str  # as long as there is a verdict
    latency_ms: float | None
    policy_version: str


@dataclass(slots=True)
class _Tries:
    """What the attempts of one job add to its line; they come in no order."""

    last: int = 0
    reason: str | None = None
    sent_at: datetime | None = None
    answered_at: datetime | None = None
    count: int = 0
    commanded: int = 0  # the latest attempt with a command
    command_id: int | None = None

    def add(self, one: _Try) -> None:
        self.count += 1
        if one.attempt > self.last:
            self.last, self.reason = one.attempt, one.failure_reason
        if one.command_id is not None and one.attempt > self.commanded:
            self.commanded, self.command_id = one.attempt, one.command_id
        if one.sent_at is not None and (self.sent_at is None or one.sent_at < self.sent_at):
            self.sent_at = one.sent_at
        if one.answered_at is not None and (self.answered_at is None or one.answered_at > self.answered_at):
            self.answered_at = one.answered_at

    def line(self, row: Iterable[Any]) -> Line:
        """`row` holds OF_JOB."""
        return Line(self.sent_at, self.answered_at, self.count, self.command_id, self.reason, *row)


@dataclass(slots=True)
class _Attempts:
    """All attempts in scope, summed up while they stream by."""

    by_job: defaultdict[str, _Tries] = field(default_factory=lambda: defaultdict(_Tries))
    reasons: Counter[str] = field(default_factory=Counter)
    policy_versions: set[str] = field(default_factory=set)
    latencies: list[timedelta] = field(default_factory=list)

    def add(self, one: _Try) -> None:
        self.by_job[one.job_id].add(one)
        self.policy_versions.add(one.policy_version)
        if one.verdict is not None and one.verdict != Meaning.ACCEPTED:
            self.reasons[one.failure_reason or one.rule] += 1
        if one.latency_ms is not None:
            self.latencies.append(timedelta(milliseconds=one.latency_ms))


def audit_report(
    engine: Engine,
    scope: Scope,
    *,
    heads: Mapping[str, tuple[int, str]] | None = None,
    marks: Mapping[str, str] | None = None,
    journal: Journal | None = None,
    verification: Verification | None = None,
) -> Report:
    """Report on the jobs in scope and check the whole audit, unless that was done; the rest as for `verify`."""
    with reading(engine) as connection:
        tries = _attempts(connection, scope)
        lines = [tries.by_job[row[0]].line(row) for row in _jobs(connection, scope)]
        slowest = _slowest(lines)
        stories = timelines(connection, slowest)
    lines.sort(key=lambda line: (line.end != ORDER[0], line.enqueued_at, line.job_id))
    return Report(
        scope=scope,
        made_at=utc_now(),
        owner=owner(engine),
        environments=tuple(sorted({line.environment for line in lines})),
        policy_versions=tuple(sorted(tries.policy_versions)),
        verification=verification or verify(engine, heads, marks=marks, journal=journal),
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
    found = select(*OF_JOB).where(*_in_scope(audit_jobs, scope))
    return connection.execution_options(yield_per=ROWS_AT_ONCE).execute(found)


def _attempts(connection: Connection, scope: Scope) -> _Attempts:
    tries = _Attempts()
    # Beside another view these would be more tables than PostgreSQL (join_collapse_limit) puts into an order of its own:
    # it joined all attempts there are, and took the day out of them.
    jobs = Enqueued.__table__
    wanted = (audit_attempts.c[name] for name in _Try._fields)
    found = (
        select(*wanted).join(jobs, audit_attempts.c.job_id == jobs.c.job_id).where(*_in_scope(jobs, scope))
    )
    for row in connection.execution_options(yield_per=ROWS_AT_ONCE).execute(found):
        tries.add(_Try._make(row))
    return tries


def _in_scope(table: FromClause, scope: Scope) -> list[ColumnElement[bool]]:
    jobs = table.c
    limits: list[ColumnElement[bool]] = []
    if scope.since is not None:
        limits.append(jobs.enqueued_at >= scope.since)
    if scope.until is not None:
        limits.append(jobs.enqueued_at < scope.until)
    if scope.account is not None:
        limits.append(jobs.account == scope.account)
    return limits
