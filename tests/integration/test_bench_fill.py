"""The bulk that size is measured on is a sound audit, not merely many rows."""

from datetime import UTC, timedelta

from sqlalchemy import Engine

from bench.fill import DAYS, FIRST_DAY, FIRST_ORDER, fill, jobs
from worker.audit import surface
from worker.audit.order_story import order_story
from worker.audit.verify import verify
from worker.report.build import audit_report
from worker.report.content import Scope

ATTEMPTS = DAYS * 5


def test_a_filled_audit_is_intact_and_told_as_any_other(audit_engine: Engine) -> None:
    fill(audit_engine, ATTEMPTS)
    found = verify(audit_engine)
    assert found.fault is None
    assert len(found.heads) == DAYS
    told = list(surface.rows(audit_engine, "audit_jobs"))
    assert len(told) == jobs(ATTEMPTS)
    assert sum(job["attempts"] for job in told) == ATTEMPTS
    assert {(job["outcome"], job["evidence"].split()[0]) for job in told} == {("canceled", "order_read")}
    (job,) = order_story(audit_engine, FIRST_ORDER).jobs
    assert [verdict.verdict for verdict in job.verdicts] == ["transient", "accepted"]
    day = Scope(since=FIRST_DAY, until=FIRST_DAY + timedelta(days=1), zone=UTC)
    report = audit_report(audit_engine, day, verification=found)
    assert report.verification is found
    assert len(report.lines) == jobs(ATTEMPTS) // DAYS
