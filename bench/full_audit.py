"""A full audit: what a commit takes beside an empty one, and what report, why and verify take."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import median, quantiles

from sqlalchemy import Engine, text

from bench.fill import BOUND, DAYS, ENVIRONMENT, FIRST_DAY, FIRST_ORDER, POLICY, jobs
from bench.processes import BenchError
from tests.parts.databases import empty_database_beside
from worker.audit.engine import open_engine
from worker.audit.facts import Fact, job_fact, start_fact
from worker.audit.migrating import migrate
from worker.audit.order_story import order_story
from worker.audit.verify import Verification, verify
from worker.audit.writer import AuditWriter
from worker.job import CancelRequest, Job, JobId, OrderId, Priority, Step
from worker.report.build import audit_report
from worker.report.content import Scope
from worker.report.story_text import render_text
from worker.report.why import Sources, tell

STORIES, COMMITS = 100, 200
# A day in the middle of the year.
REPORTED = FIRST_DAY + timedelta(days=DAYS // 2)


def measure_audit(url: str, attempts: int) -> dict[str, float]:
    """Of a database that `bench.fill` filled; a commit's span is in ms."""
    engine = open_engine(url, statement_bound=BOUND)
    try:
        if engine.dialect.name == "postgresql":
            with engine.begin() as connection:
                connection.execute(text("ANALYZE"))  # autovacuum would, in its own time
        commits = _commits(engine, url)
        stories = [_seconds(_why, engine, order) * 1e3 for order in _orders(attempts)]
        begun = time.perf_counter()
        verification = verify(engine)
        verifying = time.perf_counter() - begun
        if not verification.ok:
            raise BenchError(f"the filled audit is not intact: {verification.fault}")
        # The command checks the whole audit besides, which has its own figure.
        report = _seconds(_day_report, engine, verification)
    finally:
        engine.dispose()
    return {
        **commits,
        "why p50 ms": median(stories),
        "why p95 ms": quantiles(stories, n=20, method="inclusive")[18],
        "day report s": report,
        "verify rows": verification.rows,
        "verify rows/s": verification.rows / verifying,
    }


def _commits(full: Engine, url: str) -> dict[str, float]:
    """What is written ahead of a POST, by the audit's own writer: in an empty database beside the full one, in turn."""
    beside = empty_database_beside(url)
    migrate(beside)
    empty = open_engine(beside)
    writers = {name: _writer(engine, name) for name, engine in (("empty", empty), ("full", full))}
    spans: dict[str, list[float]] = {name: [] for name in writers}
    try:
        for writer in writers.values():
            writer.start()
        for nth in range(COMMITS):
            for name, writer in writers.items():
                spans[name].append(_seconds(writer.commit, list(_ahead(nth))))
    finally:
        for writer in writers.values():
            writer.stop()
        empty.dispose()
    return {f"commit {name}": median(taken) * 1e3 for name, taken in spans.items()}


def _writer(engine: Engine, name: str) -> AuditWriter:
    return AuditWriter(engine, writer=f"bench-{name}", environment=ENVIRONMENT)


def _ahead(nth: int) -> Iterator[Fact]:
    job, now = JobId(f"bench-{nth}"), datetime.now(UTC)
    asked = CancelRequest(
        account="DEMO1", order_id=OrderId(1 + nth), request_id=f"bench-{nth}", priority=Priority.NORMAL
    )
    yield job_fact(Job(id=job, request=asked, enqueued_at=now, step=Step.POST, attempts=0))
    yield start_fact(job, 1, worker="bench", started_at=now, policy_version=POLICY, body="{}")


def _orders(attempts: int) -> list[int]:
    """The same ones for each database."""
    known = range(FIRST_ORDER, FIRST_ORDER + jobs(attempts))
    return Random(attempts).sample(known, min(STORIES, len(known)))


def _why(engine: Engine, order: int) -> None:
    """As `cancelq why` tells it, where no ledger and no exchange is asked."""
    tale = tell(order, Sources(recorded=order_story(engine, order), present={}, links={}), UTC)
    assert render_text(tale)


def _day_report(engine: Engine, verification: Verification) -> None:
    scope = Scope(since=REPORTED, until=REPORTED + timedelta(days=1), zone=UTC)
    assert audit_report(engine, scope, verification=verification).lines


def _seconds(action: Callable[..., object], *arguments: object) -> float:
    begun = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - begun
