"""Closed sessions, the daily reset, lost answers and tickets: what is waited for, and what is known by whom."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tests.unit.test_policy import NOW, POLICY, SECOND, UNANSWERED, again, job, said, sight
from worker.clock import from_micros, to_micros
from worker.exchange.client import cancel_body
from worker.job import Job, Step
from worker.policy import after_read, after_reply, may_post
from worker.reasons import Meaning
from worker.verdict import OrderState


def armed_job(armed: datetime, attempts: int = 1) -> Job:
    asked = job(attempts)
    return asked._replace(request=replace(asked.request, activation_time=armed))


# ---------------------------------------------------------------------------------------- the daily reset

EVE = datetime(2026, 7, 15, 20, 56, tzinfo=UTC)  # two minutes before the last look
LOOK = EVE + timedelta(minutes=2)


def test_no_wait_leads_past_the_daily_reset_unread() -> None:
    closed = job(shut_outs=5)
    decision = again(after_reply(closed, said("SessionClosed"), POLICY, EVE))
    shut = closed._replace(memory=decision.memory, step=Step.RECONCILE)
    wait = again(after_read(shut, sight(OrderState.OPEN, at=EVE), POLICY, EVE))
    assert (wait.step, wait.delay) == (Step.RECONCILE, LOOK - EVE)
    after = again(after_read(shut, sight(OrderState.OPEN, at=LOOK), POLICY, LOOK))
    assert LOOK + after.delay == from_micros(decision.memory.not_before or 0)


def test_a_post_that_would_wait_past_the_reset_is_a_read_before_it() -> None:
    late = LOOK - SECOND
    decision = again(after_reply(job(), said("ExecutionProviderUnavailable"), POLICY, late))
    assert (decision.step, decision.delay) == (Step.RECONCILE, SECOND)


def test_what_is_armed_for_after_the_reset_is_looked_at_before_and_then_left_alone() -> None:
    armed = EVE + timedelta(hours=3)
    before = armed_job(armed)
    decision = again(after_reply(before, said(command_id=1), POLICY, EVE))
    assert decision.delay == LOOK - EVE
    held = before._replace(memory=decision.memory, step=Step.CONFIRM)
    after = again(after_read(held, sight(OrderState.OPEN, at=LOOK), POLICY, LOOK))
    assert LOOK + after.delay == armed


# ------------------------------------------------------------------------------------------ closed session


def test_a_closed_session_costs_no_attempt() -> None:
    tried = job(attempts=10, shut_outs=7)
    assert may_post(tried, POLICY, NOW)
    assert not may_post(job(attempts=10), POLICY, NOW)


def test_waits_for_a_session_grow_from_half_a_minute_to_five() -> None:
    waits = []
    asked = job()
    for _ in range(6):
        decision = again(after_reply(asked, said("SessionClosed"), POLICY, NOW))
        waits.append(from_micros(decision.memory.not_before or 0) - NOW)
        asked = asked._replace(memory=decision.memory, attempts=asked.attempts + 1)
    assert waits == [s * SECOND for s in (30, 60, 120, 240, 300, 300)]


# ---------------------------------------------------------------------------------------------- unknowns


def test_a_pending_command_after_an_unknown_counts_as_delivered() -> None:
    unknown = job()._replace(memory=again(after_reply(job(), UNANSWERED, POLICY, NOW)).memory)
    decision = again(after_reply(unknown, said("AnotherCommandPending"), POLICY, NOW))
    assert (decision.step, decision.memory.pursuit) == (Step.CONFIRM, Meaning.ACCEPTED)
    plain = again(after_reply(job(), said("AnotherCommandPending"), POLICY, NOW))
    assert plain.step is Step.POST


def test_an_unknown_is_as_old_as_its_first_lost_answer_and_ends_with_a_read() -> None:
    first = again(after_reply(job(), UNANSWERED, POLICY, NOW)).memory
    second = again(after_reply(job()._replace(memory=first), UNANSWERED, POLICY, NOW + SECOND)).memory
    assert second.unknown_since == to_micros(NOW)
    unknown = job(step=Step.RECONCILE)._replace(memory=second)
    for state in OrderState:
        if state in {OrderState.UNREAD, OrderState.UNCLEAR}:
            assert after_read(unknown, sight(state), POLICY, NOW).memory.unknown_since is not None
    assert after_read(unknown, sight(OrderState.OPEN), POLICY, NOW).memory.unknown_since is None


def test_one_of_our_own_commands_at_the_exchange_is_an_acceptance() -> None:
    unknown = job(step=Step.RECONCILE)._replace(
        memory=again(after_reply(job(), UNANSWERED, POLICY, NOW)).memory
    )
    late = NOW + 2 * SECOND
    found = replace(sight(OrderState.OPEN, at=late), command_id=7)
    delivered = again(after_read(unknown, found, POLICY, late))
    assert (delivered.step, delivered.memory.command_id) == (Step.RECONCILE, 7)
    assert again(after_read(unknown, sight(OrderState.OPEN, at=late), POLICY, late)).step is Step.POST


# ---------------------------------------------------------------------------------------------- tickets


def test_a_ticket_is_redeemed_with_the_very_body_that_it_was_given_for() -> None:
    ticket = replace(said(), meaning=Meaning.THROTTLED, rule="body:p-ticket", ticket="t", penalty=SECOND)
    armed = NOW + 60 * SECOND
    asked = armed_job(armed, attempts=3)
    penalised = asked._replace(memory=again(after_reply(asked, ticket, POLICY, NOW)).memory)
    widened = penalised._replace(request=replace(penalised.request, activation_time=None))
    body = json.loads(cancel_body(widened, 4))
    assert body == json.loads(cancel_body(asked, 3)) | {"p-ticket": "t"}
    again_penalised = again(after_reply(widened._replace(attempts=4), ticket, POLICY, NOW)).memory
    assert (again_penalised.ticket_of, again_penalised.ticket_armed) == (3, to_micros(armed))
    done = again(after_reply(widened._replace(attempts=4), said(command_id=1), POLICY, NOW)).memory
    assert (done.ticket_of, done.armed_for) == (0, to_micros(armed))


def test_each_attempt_has_a_label_of_its_own_unless_the_producer_gave_one() -> None:
    labels = {json.loads(cancel_body(job(), attempt))["clOrdId"] for attempt in (1, 2, 3)}
    assert len(labels) == 3
    assert all(len(label) <= 64 for label in labels)
    named = job()._replace(request=replace(job().request, cl_ord_id="mine"))
    assert json.loads(cancel_body(named, 2))["clOrdId"] == "mine"
