"""The report's sums come from the views and are the same on both databases."""

import csv
import json
from datetime import UTC, timedelta
from io import StringIO
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, select

from tests.parts.cancels import (
    ENVIRONMENT,
    POLICY,
    a_finding,
    a_job,
    a_joiner,
    a_late_reply,
    a_read,
    a_reply,
    a_start,
    an_outcome,
    answered,
    at,
    not_sent,
    record,
    unanswered,
)
from worker.audit.facts import Fact, job_fact, request_fact
from worker.audit.views import audit_jobs
from worker.job import Outcome
from worker.report.build import audit_report
from worker.report.content import Line, Report, Scope
from worker.report.machine import csv_parts, json_parts
from worker.report.page import render_html
from worker.report.table import render_table

EVERYTHING = Scope(zone=UTC)


def life(name: str, outcome: Outcome, *, tries: int = 1, ended: float = 100) -> list[Fact]:
    """Transient answers, then an accepted one, then the outcome."""
    busy = answered(b'{"failureReason":"AnotherCommandPending"}', sent=3, took=10)
    facts = [job_fact(a_job(name))]
    for attempt in range(1, tries + 1):
        reply = answered(sent=20, took=30) if attempt == tries else busy
        facts += [a_start(name, attempt), *a_reply(reply, name, attempt)]
    return [*facts, an_outcome(name, outcome, after=ended)]


@pytest.fixture
def report(audit_engine: Engine) -> Report:
    record(
        audit_engine,
        *life("job-1", Outcome.CANCELED, tries=3),
        *life("job-2", Outcome.CANCELED, ended=5_000),
        *life("job-3", Outcome.UNRESOLVED),
        job_fact(a_job("job-4", account="DEMO2")),
        *life("job-5", Outcome.FILLED),
    )
    return audit_report(audit_engine, EVERYTHING)


def test_the_outcomes_are_counted_unresolved_first(report: Report) -> None:
    assert list(report.outcomes.items()) == [("unresolved", 1), ("open", 1), ("filled", 1), ("canceled", 2)]


def test_the_unresolved_lead_the_rows(report: Report) -> None:
    assert [line.job_id for line in report.lines] == ["job-3", "job-1", "job-2", "job-4", "job-5"]


def test_the_reasons_of_what_was_not_accepted_are_counted(report: Report) -> None:
    assert report.reasons == {"AnotherCommandPending": 2}


def test_the_attempts_a_cancel_took_are_counted(report: Report) -> None:
    assert report.attempts == {0: 1, 1: 3, 3: 1}


def test_the_contracts_filled_meanwhile_are_summed(report: Report) -> None:
    assert report.filled_contracts == 8


def test_each_stage_of_the_way_has_its_latency(report: Report) -> None:
    stages = report.latency
    assert stages.enqueue_to_wire.longest == timedelta(milliseconds=20)
    assert (stages.wire_to_answer.count, stages.wire_to_answer.p50) == (6, timedelta(milliseconds=30))
    assert stages.answer_to_end.p50 == timedelta(milliseconds=50)
    assert (stages.enqueue_to_end.count, stages.enqueue_to_end.longest) == (4, timedelta(seconds=5))


def test_the_slowest_come_first(report: Report) -> None:
    assert report.slowest[0].job_id == "job-2"
    assert len(report.slowest) == 4


def test_the_header_says_what_is_reported_and_that_it_can_be_trusted(report: Report) -> None:
    assert report.environments == (ENVIRONMENT,)
    assert (report.live, report.policy_versions) == (False, (POLICY,))
    assert report.verification.ok
    assert "writer-1" in report.verification.heads


def test_a_scope_leaves_out_the_others(audit_engine: Engine, report: Report) -> None:
    def jobs(**limits: object) -> list[str]:
        return [line.job_id for line in audit_report(audit_engine, Scope(zone=UTC, **limits)).lines]

    assert jobs(account="DEMO2") == ["job-4"]
    assert jobs(since=at(0.001)) == []
    assert jobs(until=at(0)) == []
    assert len(jobs(since=at(0), until=at(1))) == 5


def test_a_report_on_another_zone_shows_the_same_moment(audit_engine: Engine, report: Report) -> None:
    zurich = audit_report(audit_engine, Scope(zone=ZoneInfo("Europe/Zurich")))
    (first, *_) = json.loads("".join(json_parts(zurich)))["jobs"]
    assert first["enqueued_at"] == "2026-11-23T13:00:00.000000+01:00"
    assert "2026-11-23 13:00:00.000" in render_table(zurich)
    assert "Europe/Zurich" in render_table(zurich)


def test_the_json_holds_the_same_sums(report: Report) -> None:
    shown = json.loads("".join(json_parts(report)))
    assert shown["outcomes"] == dict(report.outcomes)
    assert shown["unresolved"] == ["job-3"]
    assert shown["latency_ms"]["enqueue_to_end"]["longest"] == 5000.0
    assert shown["jobs"][0]["command_id"] == 9007199254740993
    assert shown["verified"] is True


def test_the_csv_has_one_row_a_job(report: Report) -> None:
    found = list(csv.DictReader(StringIO("".join(csv_parts(report)))))
    assert [row["job_id"] for row in found] == [line.job_id for line in report.lines]
    assert found[0]["enqueued_at"] == "2026-11-23T12:00:00.000000Z"


def test_the_table_shows_what_needs_a_person_before_everything_else(report: Report) -> None:
    page = render_table(report)
    assert page.index("Unresolved: a person is needed") < page.index("Outcomes")
    assert "yes, 27 rows in 1 chains" in page


def test_the_sums_are_told_by_account_by_strategy_and_by_hour(report: Report) -> None:
    assert {name: total.jobs for name, total in report.by_account.items()} == {"DEMO1": 4, "DEMO2": 1}
    assert report.by_account["DEMO1"].attempts == 6
    assert report.by_account["DEMO1"].filled_contracts == 8
    assert report.by_strategy["momentum"].outcomes == dict(report.outcomes)
    assert {hour: total.jobs for hour, total in report.by_hour.items()} == {at(0): 5}


def test_the_story_of_a_slow_one_has_every_row_in_order(audit_engine: Engine) -> None:
    refused = answered(b'{"failureReason":"RiskCheckTimeout","failureText":"slow"}', sent=10, took=5)
    record(
        audit_engine,
        job_fact(a_job()),
        request_fact("job-1", a_joiner()),
        *(a_start(after=9), *a_reply(refused)),
        *(a_start(attempt=2, after=19), *a_reply(unanswered(sent=20), attempt=2)),
        *(a_start(attempt=3, after=29), *a_reply(not_sent(), attempt=3)),
        *(a_start(attempt=4, after=39), *a_reply(answered(sent=40, took=10), attempt=4)),
        a_read(found=False, status=None),
        an_outcome(outcome=Outcome.UNRESOLVED),
        a_late_reply(attempt=2),
        a_finding(),
    )
    (told,) = audit_report(audit_engine, EVERYTHING).timelines
    assert [(event.kind, event.at, event.said) for event in told.events] == [
        ("enqueued", at(0), "momentum"),
        ("joined", at(1), "hedger"),
        ("attempt", at(10), "transient"),
        ("attempt", at(20), "ambiguous"),
        ("attempt", at(29), "transient"),
        ("late reply", at(34.5), "answered"),
        ("attempt", at(40), "accepted"),
        ("read", at(70), "not found"),
        ("finished", at(100), "unresolved"),
        ("found", at(200_000), "filled"),
    ]
    first, last = told.events[2], told.events[6]
    assert (first.until, first.detail) == (at(15), "RiskCheckTimeout · slow · HTTP 200")
    assert (last.until, last.number, last.detail) == (at(50), 4, "HTTP 200 · command 9007199254740993")


def test_a_line_says_of_its_job_what_the_view_says(audit_engine: Engine) -> None:
    record(
        audit_engine,
        *(job_fact(a_job()), request_fact("job-1", a_joiner())),
        *(a_start(attempt=1, after=9), a_start(attempt=2, after=19), a_start(attempt=3, after=29)),
        *a_reply(unanswered(sent=31), attempt=3),
        *a_reply(answered(sent=20, took=10), attempt=2),
        a_late_reply(attempt=1),
        *(an_outcome(outcome=Outcome.UNRESOLVED), a_finding()),
        job_fact(a_job("job-2")),
    )
    with audit_engine.connect() as connection:
        viewed = {row["job_id"]: row for row in connection.execute(select(audit_jobs)).mappings()}
    lines = audit_report(audit_engine, EVERYTHING).lines
    shared = set(Line._fields) - {"reason", "last_answered_at"}
    for line in lines:
        assert {name: getattr(line, name) for name in shared} == {
            name: viewed[line.job_id][name] for name in shared
        }
    assert (lines[0].attempts, lines[0].command_id, lines[0].first_sent_at) == (3, 9007199254740993, at(9))


def test_a_finding_stands_in_every_format_and_the_outcome_stays(audit_engine: Engine) -> None:
    record(audit_engine, *life("job-1", Outcome.UNRESOLVED), a_finding())
    found = audit_report(audit_engine, EVERYTHING)
    (line,) = found.unresolved
    assert (line.outcome, line.resolved_as, line.resolved_by) == ("unresolved", "filled", "alice")
    (row,) = csv.DictReader(StringIO("".join(csv_parts(found))))
    (job,) = json.loads("".join(json_parts(found)))["jobs"]
    for shown in (row, job):
        assert (shown["resolved_as"], shown["resolved_at"]) == ("filled", "2026-11-23T12:03:20.000000Z")
        assert shown["resolved_because"] == "seen in the platform"
    assert "filled by alice: seen in the platform" in render_table(found)
    assert "found filled by <bdi>alice</bdi>" in render_html(found)


def test_only_the_slowest_ten_have_their_story_told(audit_engine: Engine) -> None:
    lives = [fact for i in range(12) for fact in life(f"job-{i}", Outcome.CANCELED, ended=100 + i)]
    record(audit_engine, *lives)
    told = [timeline.line.job_id for timeline in audit_report(audit_engine, EVERYTHING).timelines]
    assert told == [f"job-{i}" for i in range(11, 1, -1)]


def test_the_page_says_the_same_as_the_audit(report: Report) -> None:
    page = ET.fromstring(render_html(report))
    said = " ".join("".join(page.itertext()).split())
    assert "Unresolved: 1" in said
    assert "8 contracts in 4 orders" in said
    assert "yes: 27 rows in 1 chain" in said
    assert report.verification.digest in said
    assert [text.text for text in page.findall(".//svg/text[@class='value']")][:4] == [
        "1 · 20 %", "1 · 20 %", "1 · 20 %", "2 · 40 %",
    ]  # fmt: skip


def test_the_ledger_is_named_when_it_was_asked(audit_engine: Engine, report: Report) -> None:
    heads = {writer: (head.seq, head.digest) for writer, head in report.verification.heads.items()}
    assert audit_report(audit_engine, EVERYTHING, heads=heads).witnessed
    assert not report.witnessed


def test_an_attempt_without_an_answer_is_counted_by_its_rule(audit_engine: Engine) -> None:
    record(audit_engine, job_fact(a_job()), a_start(), *a_reply(unanswered()))
    assert audit_report(audit_engine, EVERYTHING).reasons == {"transport:unanswered": 1}


def test_an_empty_audit_makes_an_empty_report(audit_engine: Engine) -> None:
    empty = audit_report(audit_engine, EVERYTHING)
    assert (empty.lines, empty.outcomes, empty.latency.enqueue_to_end.p50) == ((), {}, None)
    assert "none in this period" in render_table(empty)
    assert "none in this period" in render_html(empty)
    assert "".join(csv_parts(empty)).count("\n") == 1
