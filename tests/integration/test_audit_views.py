"""The published views: exactly the contract's columns, same meaning on both databases."""

from typing import Any

import pytest
from sqlalchemy import Engine

from tests.parts.cancels import (
    ENVIRONMENT,
    POLICY,
    a_finding,
    a_job,
    a_joiner,
    a_late_reply,
    a_reply,
    a_start,
    a_whole_life,
    an_action,
    an_outcome,
    answered,
    at,
    not_sent,
    record,
    unanswered,
)
from worker.audit.facts import job_fact, reply_fact, request_fact
from worker.audit.surface import rows
from worker.job import JobId, Outcome
from worker.reply import Answered

# As promised to people outside; what we add comes after.
PROMISED = {
    "audit_attempts": "job_id attempt account order_id command_id failure_reason failure_text http_status transport "
    "verdict sent_at answered_at latency_ms worker policy_version",
    "audit_jobs": "job_id account order_id cl_ord_id requested_by request_id joiners enqueued_at first_sent_at "
    "finished_at attempts command_id outcome evidence redrive_of",
    "audit_requests": "request_id job_id requested_by priority deadline requested_at joined",
}


@pytest.mark.parametrize("view", sorted(PROMISED))
def test_a_view_has_the_promised_columns_first(audit_engine: Engine, view: str) -> None:
    with audit_engine.connect() as connection:
        columns = list(connection.exec_driver_sql(f"SELECT * FROM {view}").keys())
    promised = PROMISED[view].split()
    assert columns[: len(promised)] == promised


def only(engine: Engine, view: str) -> dict[str, Any]:
    (row,) = rows(engine, view)
    return row


def test_every_column_of_an_answered_attempt(audit_engine: Engine) -> None:
    record(audit_engine, *a_whole_life())
    assert only(audit_engine, "audit_attempts") == {
        "job_id": "job-1",
        "attempt": 1,
        "account": "DEMO1",
        "order_id": 123,
        "command_id": 9007199254740993,
        "failure_reason": None,
        "failure_text": None,
        "http_status": 200,
        "transport": "answered",
        "verdict": "accepted",
        "sent_at": at(4),
        "answered_at": at(34.5),
        "latency_ms": 30.5,
        "worker": "host/1",
        "policy_version": POLICY,
        "started_at": at(2),
        "rule": "reason:missing",
        "error": None,
        "environment": ENVIRONMENT,
        "answered_late_at": None,
    }


def test_every_column_of_a_finished_job(audit_engine: Engine) -> None:
    record(audit_engine, *a_whole_life())
    assert only(audit_engine, "audit_jobs") == {
        "job_id": "job-1",
        "account": "DEMO1",
        "order_id": 123,
        "cl_ord_id": "mine",
        "requested_by": "momentum",
        "request_id": "request-of-job-1",
        "joiners": 1,
        "enqueued_at": at(0),
        "first_sent_at": at(4),
        "finished_at": at(100),
        "attempts": 1,
        "command_id": 9007199254740993,
        "outcome": "canceled",
        "evidence": "order_read",
        "redrive_of": None,
        "detail": "Canceled",
        "filled_qty": 2,
        "priority": "normal",
        "deadline": at(60_000),
        "environment": ENVIRONMENT,
        "resolved_as": None,
        "resolved_by": None,
        "resolved_at": None,
        "resolved_because": None,
    }


def test_every_column_of_the_requests(audit_engine: Engine) -> None:
    record(audit_engine, job_fact(a_job()), request_fact("job-1", a_joiner()))
    first, second = sorted(rows(audit_engine, "audit_requests"), key=lambda row: row["joined"])
    assert first == {
        "request_id": "request-of-job-1",
        "job_id": "job-1",
        "requested_by": "momentum",
        "priority": "normal",
        "deadline": at(60_000),
        "requested_at": at(0),
        "joined": False,
    }
    assert second == {
        "request_id": "joiner-1",
        "job_id": "job-1",
        "requested_by": "hedger",
        "priority": "urgent",
        "deadline": None,
        "requested_at": at(1),
        "joined": True,
    }


def test_an_open_job_has_no_end(audit_engine: Engine) -> None:
    record(audit_engine, job_fact(a_job()))
    job = only(audit_engine, "audit_jobs")
    unknown = ("outcome", "evidence", "finished_at", "first_sent_at", "command_id")
    assert [job[column] for column in unknown] == [None] * 5
    assert (job["attempts"], job["joiners"]) == (0, 0)


def test_an_attempt_without_any_reply_row_counts_from_its_start_row(audit_engine: Engine) -> None:
    record(audit_engine, job_fact(a_job()), a_start(after=2))
    attempt = only(audit_engine, "audit_attempts")
    assert (attempt["sent_at"], attempt["transport"], attempt["verdict"]) == (at(2), None, None)
    assert only(audit_engine, "audit_jobs")["first_sent_at"] == at(2)


def test_an_attempt_closed_by_recovery_counts_from_its_start_row(audit_engine: Engine) -> None:
    record(audit_engine, job_fact(a_job()), a_start(after=2), *a_reply(unanswered(sent=None)))
    attempt = only(audit_engine, "audit_attempts")
    assert (attempt["sent_at"], attempt["transport"]) == (at(2), "unanswered")


def test_an_unanswered_attempt_counts_from_its_first_byte(audit_engine: Engine) -> None:
    record(audit_engine, job_fact(a_job()), a_start(after=2), *a_reply(unanswered(sent=4)))
    attempt = only(audit_engine, "audit_attempts")
    assert (attempt["sent_at"], attempt["answered_at"], attempt["latency_ms"]) == (at(4), None, None)


def test_what_was_never_sent_has_no_time_of_sending(audit_engine: Engine) -> None:
    record(audit_engine, job_fact(a_job()), a_start(), *a_reply(not_sent()))
    assert only(audit_engine, "audit_attempts")["sent_at"] is None
    assert only(audit_engine, "audit_jobs")["first_sent_at"] is None


def test_a_failure_is_told_in_the_words_of_the_exchange(audit_engine: Engine) -> None:
    reply = answered(b'{"failureReason":"TooLate","failureText":"too late"}')
    record(audit_engine, job_fact(a_job()), a_start(), *a_reply(reply))
    attempt = only(audit_engine, "audit_attempts")
    assert (attempt["failure_reason"], attempt["failure_text"]) == ("TooLate", "too late")
    assert attempt["verdict"] == "ambiguous"


def test_the_command_id_of_a_job_is_the_latest_that_an_answer_carried(audit_engine: Engine) -> None:
    lives = [
        *(a_start(attempt=n) for n in (1, 2, 3)),
        *a_reply(answered(b'{"commandId":11}', sent=5), attempt=1),
        *a_reply(answered(b'{"commandId":22}', sent=6), attempt=2),
        *a_reply(unanswered(sent=7), attempt=3),
    ]
    record(audit_engine, job_fact(a_job()), *lives, an_outcome(outcome=Outcome.FILLED))
    job = only(audit_engine, "audit_jobs")
    assert (job["command_id"], job["attempts"], job["first_sent_at"]) == (22, 3, at(5))


def test_the_largest_ids_are_exact(audit_engine: Engine) -> None:
    largest = 2**63 - 1
    reply = answered(b'{"commandId":%d}' % largest)
    record(audit_engine, job_fact(a_job(order_id=largest)), a_start(), *a_reply(reply))
    attempt = only(audit_engine, "audit_attempts")
    assert (attempt["order_id"], attempt["command_id"]) == (largest, largest)


def test_a_reply_that_arrives_without_a_verdict_is_already_seen(audit_engine: Engine) -> None:
    reply = Answered(status=503, body=b"\xff\0", sent_at=at(4), answered_at=at(5))
    record(audit_engine, job_fact(a_job()), a_start(), reply_fact("job-1", 1, reply, recorded_at=at(6)))
    attempt = only(audit_engine, "audit_attempts")
    assert (attempt["http_status"], attempt["verdict"], attempt["latency_ms"]) == (503, None, 1.0)


def test_an_answer_that_came_late_is_told_with_its_attempt(audit_engine: Engine) -> None:
    record(audit_engine, job_fact(a_job()), a_start(), *a_reply(unanswered()), a_late_reply(command_id=77))
    attempt = only(audit_engine, "audit_attempts")
    assert (attempt["command_id"], attempt["answered_late_at"]) == (77, at(34.5))
    assert (attempt["transport"], attempt["verdict"]) == ("unanswered", "ambiguous")
    assert only(audit_engine, "audit_jobs")["command_id"] == 77


def test_a_persons_newest_finding_stands_beside_the_outcome(audit_engine: Engine) -> None:
    unresolved = an_outcome(outcome=Outcome.UNRESOLVED)
    older, newer = a_finding(name="f-2", after=1000), a_finding(name="f-1", after=2000)
    record(audit_engine, job_fact(a_job()), unresolved, newer, older)
    job = only(audit_engine, "audit_jobs")
    assert (job["outcome"], job["resolved_as"], job["resolved_at"]) == ("unresolved", "filled", at(2000))
    assert (job["resolved_by"], job["resolved_because"]) == ("alice", "seen in the platform")


def test_what_people_did_is_one_list(audit_engine: Engine) -> None:
    redriven = a_job("job-2")._replace(redrive_of=JobId("job-1"))
    facts = [job_fact(a_job()), job_fact(redriven), a_finding(after=2000), an_action(after=1000)]
    record(audit_engine, *facts)
    found = sorted(rows(audit_engine, "audit_actions"), key=lambda row: str(row["acted_at"]))
    told = [(row["action"], row["acted_by"], row["job_id"], row["ledger"]) for row in found]
    assert told == [
        ("redrive", "momentum", "job-2", None),
        ("pause", "bob", None, "cancelq"),
        ("resolve", "alice", "job-1", None),
    ]


@pytest.mark.parametrize(
    ("second_sent", "overlaps"), [(3, 1), (20, 1), (40, 0)], ids=["within", "beside", "after"]
)
def test_two_posts_of_one_order_in_flight_at_once_are_found(
    audit_engine: Engine, second_sent: float, overlaps: int
) -> None:
    """The first answer, sent at 4 and answered at 34.5, came after its attempt had been written off."""
    record(
        audit_engine,
        *(job_fact(a_job()), a_start(attempt=1), *a_reply(unanswered(sent=None)), a_late_reply()),
        *(a_start(attempt=2), *a_reply(answered(sent=second_sent, took=5), attempt=2)),
    )
    found = list(rows(audit_engine, "audit_overlaps"))
    assert len(found) == overlaps
    assert [(row["attempt"], row["other_attempt"]) for row in found] == [(1, 2)] * overlaps
