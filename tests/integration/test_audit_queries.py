"""What recovery and a status question learn from the audit."""

import pytest
from sqlalchemy import Engine

from tests.parts.cancels import (
    POLICY,
    a_job,
    a_joiner,
    a_reply,
    a_start,
    a_whole_life,
    an_outcome,
    answered,
    at,
    not_sent,
    record,
    unanswered,
)
from worker.audit.facts import job_fact, reply_fact, request_fact
from worker.audit.queries import Story, status, story
from worker.job import JobId, Outcome
from worker.reasons import Meaning
from worker.reply import Answered, Reply
from worker.verdict import classify

JOB = JobId("job-1")
ODD = {"status": 200, "sent_at": at(4), "answered_at": at(5)}


@pytest.mark.parametrize(
    "reply",
    [
        answered(),
        answered(b"\xff\0 not text"),
        Answered(body=b'{"commandId":1', truncated=True, **ODD),
        Answered(body=b"\x1f\x8b", headers={"content-encoding": "gzip"}, **ODD),
        Answered(body=b"{}", truncated=True, headers={"content-encoding": "br"}, **ODD),
        not_sent(),
    ],
)
def test_a_reply_comes_back_as_it_was_and_is_judged_the_same(audit_engine: Engine, reply: Reply) -> None:
    record(audit_engine, job_fact(a_job()), a_start(), reply_fact(JOB, 1, reply, recorded_at=at(9)))
    (attempt,) = story(audit_engine, [JOB])[JOB].attempts
    assert attempt.reply == reply
    assert classify(attempt.reply) == classify(reply)
    assert attempt.verdict is None


def test_an_unanswered_attempt_ended_when_it_was_written_down(audit_engine: Engine) -> None:
    record(audit_engine, job_fact(a_job()), a_start(), *a_reply(unanswered()))
    (attempt,) = story(audit_engine, [JOB])[JOB].attempts
    assert (attempt.reply.sent_at, attempt.reply.ended_at) == (at(4), at(60))


def test_a_story_has_every_attempt_in_order_and_the_end(audit_engine: Engine) -> None:
    busy = answered(b'{"failureReason":"AnotherCommandPending"}')
    record(
        audit_engine,
        job_fact(a_job()),
        a_start(attempt=1),
        a_start(attempt=2),
        *a_reply(busy, attempt=1),
        an_outcome(),
    )
    told = story(audit_engine, [JOB])[JOB]
    first, second = told.attempts
    assert (first.attempt, first.verdict.verdict) == (1, Meaning.TRANSIENT)
    assert first.verdict.failure_reason == "AnotherCommandPending"
    assert (second.attempt, second.reply, second.verdict) == (2, None, None)
    assert (second.started_at, second.policy_version) == (at(2), POLICY)
    assert (told.outcome.outcome, told.outcome.filled_qty) == (Outcome.CANCELED, 2)


def test_a_job_that_nobody_wrote_of_has_an_empty_story(audit_engine: Engine) -> None:
    assert story(audit_engine, [JOB]) == {JOB: Story()}


def test_many_stories_are_told_at_once(audit_engine: Engine) -> None:
    names = [JobId(f"job-{number}") for number in range(1100)]
    record(audit_engine, *(a_start(name) for name in names))
    told = story(audit_engine, names)
    assert [len(told[name].attempts) for name in names] == [1] * 1100


def test_the_status_of_a_finished_job_has_every_key(audit_engine: Engine) -> None:
    record(audit_engine, *a_whole_life())
    assert status(audit_engine, job_id="job-1") == {
        "jobId": "job-1",
        "account": "DEMO1",
        "orderId": 123,
        "state": "done",
        "attempts": 1,
        "reason": None,
        "commandId": 9007199254740993,
        "joiners": 1,
        "enqueuedAt": "2026-11-23T12:00:00.000000Z",
        "firstSentAt": "2026-11-23T12:00:00.004000Z",
        "nextAt": None,
        "deadline": "2026-11-23T12:01:30.000000Z",
        "finishedAt": "2026-11-23T12:00:00.100000Z",
        "outcome": "canceled",
        "evidence": "order_read",
    }


def test_a_joiner_without_a_deadline_makes_the_job_endless(audit_engine: Engine) -> None:
    record(audit_engine, job_fact(a_job()), request_fact(JOB, a_joiner()), an_outcome())
    assert status(audit_engine, job_id="job-1")["deadline"] is None


def test_the_newest_job_of_an_order_answers_for_it(audit_engine: Engine) -> None:
    record(audit_engine, *a_whole_life("job-1"), *a_whole_life("job-2"))
    record(audit_engine, *a_whole_life("job-3", account="OTHER"))
    assert status(audit_engine, order_id=123, account="DEMO1")["jobId"] == "job-2"


def test_an_unknown_job_is_unknown(audit_engine: Engine) -> None:
    assert status(audit_engine, job_id="job-9") == {"status": "unknown"}
    assert status(audit_engine, order_id=9) == {"status": "unknown"}
