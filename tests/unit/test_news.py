"""What Flower is told of a cancel: Celery's own reading of the events, in whatever order they come."""

from dataclasses import replace
from itertools import count, permutations
from typing import Any

import orjson
import pytest
from celery.events.state import State, Task

from tests.parts.happenings import again, claimed, ended, named, replied, swept, transient
from worker.app.news import MOST, TASK, News
from worker.job import Outcome, Step


def shown(*events: dict[str, Any]) -> Task:
    """The one task that Flower makes of these events."""
    state = State()
    for event in events:
        state.event({"hostname": "worker@here", "local_received": 0.0, **event})
    (task,) = state.tasks.values()
    return task


def told(*happenings: Any) -> list[dict[str, Any]]:
    news = News()
    for happening in happenings:
        news(happening)
    return news.pending(count(1).__next__, last=True)


def test_a_cancel_in_hand_is_a_started_task_with_order_account_and_attempt() -> None:
    task = shown(*told(claimed(named("job-1", attempts=2))))
    assert (task.id, task.name, task.state) == ("job-1", TASK, "STARTED")
    assert task.kwargs == "{'order': 123, 'account': 'DEMO1', 'attempt': 3}"


def test_what_the_exchange_says_oddly_can_be_told() -> None:
    """One event that cannot be sent would keep all the others."""
    odd = ended(named("job-1"))
    (event,) = told(replace(odd, decision=replace(odd.decision, detail="Odd\ud800")))
    assert "Odd\\ud800" in orjson.loads(orjson.dumps(event))["result"]


@pytest.mark.parametrize("outcome", Outcome)
def test_an_outcome_is_a_success_or_a_failure_as_the_contract_says(outcome: Outcome) -> None:
    task = shown(*told(ended(named("job-1"), outcome)))
    failed = outcome in {Outcome.REFUSED, Outcome.UNRESOLVED}
    assert task.state == ("FAILURE" if failed else "SUCCESS")
    assert task.result == f"{outcome} commandId=5 (order_read Canceled)"
    assert (task.exception is None) is not failed
    assert task.runtime == pytest.approx(1.0)


def test_a_transient_answer_is_a_retry_with_its_reason() -> None:
    task = shown(*told(again(named("job-1"), verdict=transient())))
    assert (task.state, task.exception, task.result) == (
        "RETRY",
        "AnotherCommandPending",
        "AnotherCommandPending",
    )


def test_what_is_still_being_proved_is_started_and_says_so() -> None:
    task = shown(*told(again(named("job-1"), step=Step.CONFIRM)))
    assert (task.state, task.result) == ("STARTED", "confirming commandId=5")


def test_a_retry_is_forgotten_once_it_ended() -> None:
    job = named("job-1")
    task = shown(*told(again(job, verdict=transient())), *told(ended(job)))
    assert (task.state, task.exception) == ("SUCCESS", None)


def test_an_end_stays_whatever_else_comes_late_but_a_retry() -> None:
    job = named("job-1")
    before = [*told(claimed(job)), *told(again(job, step=Step.CONFIRM)), *told(ended(job))]
    assert {shown(*events).state for events in permutations(before)} == {"SUCCESS"}


def test_an_end_waits_for_a_turn_so_that_another_worker_s_retry_is_out_before_it() -> None:
    clock, job = count(1).__next__, named("job-1")
    earlier, later = News(), News()
    earlier(again(job, verdict=transient()))
    later(ended(job))
    first = later.pending(clock)
    assert first == []
    events = [*first, *earlier.pending(clock), *later.pending(clock)]
    assert shown(*events).state == "SUCCESS"


def test_of_several_news_of_a_job_in_one_turn_only_the_newest_is_told() -> None:
    job = named("job-1")
    assert [event["type"] for event in told(claimed(job), again(job, verdict=transient()), ended(job))] == [
        "task-succeeded"
    ]


def test_what_is_not_about_a_task_is_not_told() -> None:
    assert told(swept(), replied(named("job-1")), claimed()) == []


def test_what_is_overtaken_within_a_turn_is_not_told() -> None:
    news, clock, job = News(), count(1).__next__, named("job-1")
    news(claimed(job))
    assert news.pending(clock) == []
    news(ended(job))
    assert news.pending(clock) == []
    assert [event["type"] for event in news.pending(clock)] == ["task-succeeded"]


def test_a_cancel_that_takes_long_is_told_once_while_it_does() -> None:
    news, clock = News(), count(1).__next__
    news(claimed(named("job-1")))
    told_in_turns = []
    for _ in range(3):
        told_in_turns.append([event["type"] for event in news.pending(clock)])
        news.sent()
    assert told_in_turns == [[], ["task-started"], []]


def test_news_that_could_not_be_sent_are_told_again_and_the_oldest_dropped_and_counted() -> None:
    news, clock = News(), count(1).__next__
    for nth in range(MOST + 3):
        news(again(named(f"job-{nth}"), verdict=transient()))
    assert (len(news.pending(clock)), news.dropped) == (MOST, 3)
    news(again(named("newest"), verdict=transient()))
    unsent = news.pending(clock)
    assert (len(unsent), news.dropped, unsent[-1]["uuid"]) == (MOST, 4, "newest")
    news.sent()
    assert news.pending(clock) == []
