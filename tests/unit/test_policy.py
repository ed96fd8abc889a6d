"""What follows each verdict and each read: pure decisions, told as sentences."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worker.clock import to_micros
from worker.errors import ConfigError
from worker.job import CancelRequest, Evidence, Job, JobId, Memory, OrderId, Outcome, State, Step
from worker.policy import (
    Again,
    End,
    Hold,
    Idle,
    Policy,
    after_read,
    after_reply,
    hold_of,
    instead_of_post,
    may_post,
    policy_from,
    resumed,
    unasked,
)
from worker.reasons import VERSION, Meaning
from worker.reply import Answered, NotSent, Unanswered
from worker.settings import Settings
from worker.verdict import OrderState, Sight, Verdict, classify, state_of

NOW = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
POLICY = Policy(
    transient=frozenset({"AnotherCommandPending", "RiskCheckTimeout", "ExecutionProviderUnavailable"}),
    max_attempts=10,
    retry_budget=timedelta(seconds=60),
    confirm=True,
    confirm_budget=timedelta(seconds=30),
    lockout=timedelta(hours=1),
    jitter=lambda: 0.5,
)


def job(attempts: int = 1, step: Step = Step.POST, deadline: datetime | None = None, **memory: Any) -> Job:
    memory.setdefault("first_claim_at", to_micros(NOW - 5 * SECOND))
    request = CancelRequest(account="A", order_id=OrderId(1), request_id="r", deadline=deadline)
    return Job(
        id=JobId("j"), request=request, enqueued_at=NOW, step=step, attempts=attempts, memory=Memory(**memory)
    )


def said(reason: str | None = None, command_id: int | None = None, status: int = 200) -> Verdict:
    body = b"{"
    body += b'"failureReason":"%s"' % reason.encode() if reason else b""
    body += b'"commandId":%d' % command_id if command_id else b""
    return classify(Answered(status=status, body=body + b"}", sent_at=NOW, answered_at=NOW))


UNANSWERED = classify(Unanswered(error="reset", sent_at=NOW, ended_at=NOW))
NOT_SENT = classify(NotSent(error="refused"))


def again(decision: object) -> Again:
    assert isinstance(decision, Again), decision
    return decision


def end(decision: object) -> End:
    assert isinstance(decision, End), decision
    return decision


def sight(state: OrderState, *, at: datetime = NOW, status: str | None = None) -> Sight:
    return Sight(state=state, asked_at=at, ord_status=status)


# ------------------------------------------------------------------------------------------ after a reply


def test_an_accepted_cancel_is_read_not_believed() -> None:
    decision = again(after_reply(job(), said(command_id=7), POLICY, NOW))
    assert (decision.step, decision.state, decision.memory.command_id) == (Step.CONFIRM, State.CONFIRMING, 7)


def test_with_confirmation_off_an_accepted_cancel_ends_as_accepted() -> None:
    decision = end(after_reply(job(), said(command_id=7), replace(POLICY, confirm=False), NOW))
    assert (decision.outcome, decision.evidence) == (Outcome.ACCEPTED, Evidence.REPLY)


def test_an_armed_cancel_is_read_only_after_its_activation() -> None:
    armed = job()
    armed = armed._replace(request=replace(armed.request, activation_time=NOW + 9 * SECOND))
    assert again(after_reply(armed, said(command_id=7), POLICY, NOW)).delay > 9 * SECOND


def test_another_command_pending_is_repeated_within_tens_of_milliseconds() -> None:
    decision = again(after_reply(job(), said("AnotherCommandPending"), POLICY, NOW))
    assert (decision.step, decision.delay) == (Step.POST, timedelta(milliseconds=30))


def test_waits_double_up_to_the_rule_s_longest() -> None:
    waits = [
        again(after_reply(job(transients=n), said("AnotherCommandPending"), POLICY, NOW)).delay
        for n in range(9)
    ]
    assert waits[:3] == [timedelta(milliseconds=ms) for ms in (30, 60, 120)]
    assert waits[-1] == timedelta(seconds=2)


def test_a_read_that_finds_the_order_open_does_not_make_the_next_wait_short_again() -> None:
    stuck = job(transients=6, transient_replies=3)
    read = again(after_read(stuck, sight(OrderState.OPEN), POLICY, NOW))
    stuck = stuck._replace(memory=read.memory)
    decision = again(after_reply(stuck, said("AnotherCommandPending"), POLICY, NOW))
    assert (decision.step, decision.delay) == (Step.POST, timedelta(milliseconds=1920))


def test_the_read_after_three_unread_repeats_comes_when_it_may_permit_a_post() -> None:
    stuck = job(transients=3, transient_replies=3)
    decision = again(after_reply(stuck, said("AnotherCommandPending"), POLICY, NOW))
    assert (decision.step, decision.delay) == (Step.RECONCILE, SECOND)


def test_after_three_unread_repeats_the_order_is_read_first() -> None:
    steps = [
        again(after_reply(job(transient_replies=n), said("RiskCheckTimeout"), POLICY, NOW)).step
        for n in range(4)
    ]
    assert steps == [Step.POST, Step.POST, Step.POST, Step.RECONCILE]


def test_what_was_not_sent_is_read_before_the_next_post_and_counts_as_no_answer() -> None:
    decision = again(after_reply(job(), NOT_SENT, POLICY, NOW))
    assert (decision.step, decision.memory.last_answer_at) == (Step.RECONCILE, None)


@pytest.mark.parametrize(
    "verdict", [UNANSWERED, said("TooLate"), said("BrandNew"), said(), said(status=500), said(status=404)]
)
def test_everything_ambiguous_is_read_first(verdict: Verdict) -> None:
    decision = again(after_reply(job(), verdict, POLICY, NOW))
    assert (decision.step, decision.state) == (Step.RECONCILE, State.RECONCILING)


def test_a_lock_out_stops_everybody() -> None:
    decision = again(after_reply(job(), said(status=429), POLICY, NOW))
    assert decision.delay == timedelta(hours=1)
    assert hold_of(said(status=429), POLICY) == Hold(span=timedelta(hours=1), lockout=True)


@pytest.mark.parametrize(("told", "held"), [(1, 1), (3, 3), (0.5, 1)])
def test_retry_after_makes_a_lock_out_longer_and_never_shorter(told: float, held: float) -> None:
    verdict = replace(said(status=429), penalty=timedelta(hours=told))
    assert hold_of(verdict, POLICY) == Hold(span=timedelta(hours=held), lockout=True)


def test_budgets_do_not_count_what_all_stood_still() -> None:
    hour = 3600 * 10**6
    before = Memory(first_claim_at=5, proof_since=7, stood_still=hour)
    after = resumed(before, NOW, Idle(held=3 * hour))
    assert (after.first_claim_at, after.proof_since, after.stood_still) == (
        5 + 2 * hour,
        7 + 2 * hour,
        3 * hour,
    )
    assert resumed(after, NOW, Idle(held=3 * hour)) == after
    assert resumed(Memory(), NOW, Idle(held=hour)) == Memory(first_claim_at=to_micros(NOW), stood_still=hour)


def test_proof_that_waits_for_the_reads_budget_costs_no_time_and_a_retry_does() -> None:
    after = resumed(Memory(first_claim_at=5, proof_since=7), NOW, Idle(dry=100))
    assert (after.first_claim_at, after.proof_since, after.ran_dry) == (5, 107, 100)


def test_a_read_that_was_withheld_counts_nothing_and_ends_nothing() -> None:
    spent = job(attempts=10, step=Step.CONFIRM, proof_since=to_micros(NOW - 31 * SECOND))
    assert (unasked(spent).step, unasked(spent).memory) == (Step.CONFIRM, spent.memory)


def test_a_closed_session_is_read_at_once_posted_to_slowly_and_costs_no_budget() -> None:
    before = job(attempts=2, shut_outs=1)
    decision = again(after_reply(before, said("SessionClosed"), POLICY, NOW))
    waited = (decision.memory.first_claim_at or 0) - (before.memory.first_claim_at or 0)
    assert (decision.step, decision.delay) == (Step.RECONCILE, timedelta(milliseconds=100))
    assert timedelta(microseconds=waited) == 60 * SECOND
    closed = before._replace(memory=decision.memory, step=Step.RECONCILE)
    later, open_again = NOW + 20 * SECOND, NOW + 60 * SECOND
    wait = again(after_read(closed, sight(OrderState.OPEN, at=later), POLICY, later))
    go = again(after_read(closed, sight(OrderState.OPEN, at=open_again), POLICY, open_again))
    assert ((wait.step, wait.delay), go.step) == ((Step.RECONCILE, 40 * SECOND), Step.POST)


def test_a_closed_session_is_not_waited_for_beyond_the_deadline() -> None:
    asked = job(deadline=NOW + 5 * SECOND)
    decision = again(after_reply(asked, said("SessionClosed"), POLICY, NOW))
    closed = asked._replace(memory=decision.memory, step=Step.RECONCILE)
    seen = again(after_read(closed, sight(OrderState.OPEN, at=NOW + SECOND), POLICY, NOW + SECOND))
    late = NOW + 5 * SECOND
    decided = end(after_read(closed, sight(OrderState.OPEN, at=late, status="Working"), POLICY, late))
    assert (seen.step, seen.delay) == (Step.RECONCILE, 4 * SECOND)
    assert (decided.outcome, decided.evidence_text) == (Outcome.UNRESOLVED, "seen_working Working")


def test_a_closed_session_is_forgotten_with_the_next_answer() -> None:
    closed = job(not_before=to_micros(NOW + 60 * SECOND))
    assert again(after_reply(closed, said("TooLate"), POLICY, NOW)).memory.not_before is None


def test_a_ticket_is_kept_for_the_next_post_only() -> None:
    ticket = replace(said(), meaning=Meaning.THROTTLED, rule="body:p-ticket", ticket="t", penalty=2 * SECOND)
    first = again(after_reply(job(), ticket, POLICY, NOW))
    later = again(after_reply(job()._replace(memory=first.memory), said("TooLate"), POLICY, NOW))
    assert (first.delay, first.memory.ticket, later.memory.ticket) == (2 * SECOND, "t", "")
    assert hold_of(ticket, POLICY) == Hold(span=2 * SECOND, lockout=False)


def test_a_ticket_waits_for_a_post_that_leaves() -> None:
    held = job(ticket="T1", ticket_of=1, ticket_armed=7)
    kept, sent = (after_reply(held, verdict, POLICY, NOW).memory for verdict in (NOT_SENT, UNANSWERED))
    assert (kept.ticket, kept.ticket_of, kept.ticket_armed) == ("T1", 1, 7)
    assert (sent.ticket, sent.ticket_of, sent.ticket_armed) == ("", 0, None)


@pytest.mark.parametrize(
    ("between", "refused"),
    [(said("SomethingNew"), False), (said(command_id=7), False), (NOT_SENT, True), (UNANSWERED, True)],
)
def test_only_401s_in_a_row_are_a_refusal(between: Verdict, refused: bool) -> None:  # noqa: FBT001
    """Whoever was let in between had a good token."""
    memory = Memory(first_claim_at=to_micros(NOW))
    for attempt, verdict in enumerate((said(status=401), between, said(status=401)), start=1):
        known = job(attempts=attempt)._replace(memory=memory)
        memory = after_reply(known, verdict, POLICY, NOW).memory
    assert (memory.pursuit == Meaning.REFUSED, memory.unauthorized) == (refused, 2)


@pytest.mark.parametrize(
    ("first", "own"), [(said("TooLate"), False), (said(command_id=7), True), (UNANSWERED, True)]
)
def test_a_pending_command_is_ours_only_if_one_may_be_under_way(first: Verdict, own: bool) -> None:  # noqa: FBT001
    """Another one, a modification say, is over within tens of milliseconds."""
    memory = after_reply(job(), first, POLICY, NOW).memory
    decision = again(
        after_reply(job(attempts=2)._replace(memory=memory), said("AnotherCommandPending"), POLICY, NOW)
    )
    assert decision.step is (Step.CONFIRM if own else Step.POST)


def test_a_rejected_command_is_not_under_way() -> None:
    seen = replace(sight(OrderState.OPEN), late_reject=said("RiskCheckTimeout"))
    at = to_micros(NOW - 3 * SECOND)
    accepted = job(pursuit="accepted", last_answer_at=at, proof_since=at, under_way=True, maybe_acted=True)
    memory = after_read(accepted, seen, POLICY, NOW).memory
    assert (memory.under_way, memory.maybe_acted) == (False, True)


def test_the_second_401_is_this_order_s_refusal() -> None:
    first = again(after_reply(job(), said(status=401), POLICY, NOW))
    second = again(after_reply(job()._replace(memory=first.memory), said(status=401), POLICY, NOW))
    assert (first.memory.pursuit, second.memory.pursuit) == (Meaning.UNAUTHORIZED, Meaning.REFUSED)


# -------------------------------------------------------------------------------------------- after a read

ENDS = [
    (OrderState.CANCELED, Outcome.CANCELED),
    (OrderState.FILLED, Outcome.FILLED),
    (OrderState.GONE, Outcome.GONE),
]


@pytest.mark.parametrize(("state", "outcome"), ENDS)
@pytest.mark.parametrize("pursuit", ["", *Meaning])
def test_an_end_that_was_seen_wins_over_any_reply(state: OrderState, outcome: Outcome, pursuit: str) -> None:
    decision = end(after_read(job(pursuit=pursuit), sight(state, status="X"), POLICY, NOW))
    assert (decision.outcome, decision.evidence_text) == (outcome, "order_read X")


def test_open_is_permission_to_post_a_second_after_the_last_answer() -> None:
    fresh = job(pursuit="ambiguous", last_answer_at=to_micros(NOW - SECOND / 2), step=Step.RECONCILE)
    old = job(pursuit="ambiguous", last_answer_at=to_micros(NOW - SECOND), step=Step.RECONCILE)
    wait = again(after_read(fresh, sight(OrderState.OPEN), POLICY, NOW))
    go = again(after_read(old, sight(OrderState.OPEN), POLICY, NOW))
    assert (wait.step, wait.delay) == (Step.RECONCILE, SECOND / 2)
    assert (go.step, go.delay) == (Step.POST, timedelta(0))


def test_pending_cancel_never_permits_a_post() -> None:
    old = job(pursuit="ambiguous", last_answer_at=to_micros(NOW - 20 * SECOND), step=Step.RECONCILE)
    assert again(after_read(old, sight(OrderState.CANCELING), POLICY, NOW)).step is Step.RECONCILE


def test_a_job_that_was_never_sent_may_post_as_soon_as_the_order_is_seen_open() -> None:
    lost = job(attempts=0, step=Step.RECONCILE)
    assert again(after_read(lost, sight(OrderState.OPEN), POLICY, NOW)).step is Step.POST


def test_an_accepted_cancel_whose_order_still_works_is_asked_again_after_patience() -> None:
    def accepted(age: int) -> Job:
        at = to_micros(NOW - age * SECOND)
        return job(pursuit="accepted", last_answer_at=at, proof_since=at, step=Step.CONFIRM)

    assert again(after_read(accepted(4), sight(OrderState.OPEN), POLICY, NOW)).step is Step.CONFIRM
    assert again(after_read(accepted(5), sight(OrderState.OPEN), POLICY, NOW)).step is Step.POST


def test_the_patience_with_an_armed_cancel_counts_from_its_activation() -> None:
    def armed(since: int) -> Job:
        at = to_micros(NOW - 60 * SECOND)
        first = job(pursuit="accepted", last_answer_at=at, first_claim_at=to_micros(NOW), step=Step.CONFIRM)
        return first._replace(request=replace(first.request, activation_time=NOW - since * SECOND))

    assert again(after_read(armed(4), sight(OrderState.OPEN), POLICY, NOW)).step is Step.CONFIRM
    assert again(after_read(armed(5), sight(OrderState.OPEN), POLICY, NOW)).step is Step.POST


def woken(armed: timedelta, *, age: int = 60) -> Job:
    """Accepted so many seconds ago for a time that lies `armed` from now; a joiner wants it at once."""
    at = to_micros(NOW - age * SECOND)
    later = to_micros(NOW + armed)
    return job(pursuit="accepted", last_answer_at=at, armed_for=later, proof_since=later, step=Step.CONFIRM)


def test_a_joiner_who_wants_an_armed_cancel_now_has_it_asked_for_again() -> None:
    assert again(after_read(woken(3600 * SECOND), sight(OrderState.OPEN), POLICY, NOW)).step is Step.POST


@pytest.mark.parametrize("state", [OrderState.UNREAD, OrderState.UNCLEAR, OrderState.CANCELING])
def test_a_read_that_says_nothing_does_not_make_that_joiner_wait_for_the_armed_time(
    state: OrderState,
) -> None:
    assert again(after_read(woken(3600 * SECOND), sight(state), POLICY, NOW)).delay < SECOND


def test_a_joiner_who_comes_after_the_armed_time_leaves_that_cancel_its_patience() -> None:
    assert again(after_read(woken(-4 * SECOND), sight(OrderState.OPEN), POLICY, NOW)).step is Step.CONFIRM
    assert again(after_read(woken(-5 * SECOND), sight(OrderState.OPEN), POLICY, NOW)).step is Step.POST


def test_a_refusal_waits_for_what_an_earlier_post_may_still_do() -> None:
    at = to_micros(NOW - 3 * SECOND)
    refused = job(pursuit="refused", refusal="x", last_answer_at=at, proof_since=at, under_way=True)
    assert again(after_read(refused, sight(OrderState.OPEN), POLICY, NOW)).step is Step.CONFIRM
    late = NOW + POLICY.confirm_budget
    seen = end(after_read(refused, sight(OrderState.OPEN, at=late), POLICY, late))
    unseen = end(after_read(refused, sight(OrderState.UNREAD, at=late), POLICY, late))
    assert (seen.outcome, unseen.outcome) == (Outcome.REFUSED, Outcome.UNRESOLVED)


def test_a_refusal_is_final_once_the_order_was_seen_open_late_enough() -> None:
    def refused(age: int) -> Job:
        return job(
            pursuit="refused",
            refusal="TradingLocked",
            last_answer_at=to_micros(NOW - age * SECOND),
            step=Step.CONFIRM,
        )

    assert again(after_read(refused(1), sight(OrderState.OPEN), POLICY, NOW)).delay == SECOND
    decision = end(after_read(refused(2), sight(OrderState.OPEN), POLICY, NOW))
    assert (decision.outcome, decision.evidence_text) == (Outcome.REFUSED, "reply TradingLocked")


def test_a_late_reject_goes_through_the_same_table() -> None:
    accepted = job(pursuit="accepted", last_answer_at=to_micros(NOW - 2 * SECOND), step=Step.CONFIRM)
    final = replace(sight(OrderState.OPEN), late_reject=said("TradingLocked"))
    passing = replace(sight(OrderState.OPEN), late_reject=said("RiskCheckTimeout"))
    refused = end(after_read(accepted, final, POLICY, NOW))
    assert (refused.outcome, refused.evidence) == (Outcome.REFUSED, Evidence.COMMAND_REPORT)
    assert again(after_read(accepted, passing, POLICY, NOW)).step is Step.RECONCILE


def test_a_final_late_reject_waits_for_a_read_that_is_old_enough_to_be_believed() -> None:
    accepted = job(pursuit="accepted", last_answer_at=to_micros(NOW - SECOND / 2), step=Step.CONFIRM)
    seen = replace(sight(OrderState.OPEN), late_reject=said("TradingLocked"))
    decision = again(after_read(accepted, seen, POLICY, NOW))
    assert (decision.step, decision.delay, decision.memory.pursuit) == (
        Step.CONFIRM,
        SECOND * 1.5,
        "accepted",
    )


def test_a_late_reject_for_a_closed_session_waits_for_the_session() -> None:
    accepted = job(pursuit="accepted", last_answer_at=to_micros(NOW - 3 * SECOND), step=Step.CONFIRM)
    seen = replace(sight(OrderState.OPEN), late_reject=said("SessionClosed"))
    decision = again(after_read(accepted, seen, POLICY, NOW))
    assert (decision.step, decision.memory.not_before) == (Step.RECONCILE, to_micros(NOW + 30 * SECOND))


def test_a_late_reject_after_the_budget_keeps_reading_until_proof_is_over() -> None:
    at = to_micros(NOW - 31 * SECOND)
    spent = job(attempts=10, pursuit="accepted", maybe_acted=True, last_answer_at=at, proof_since=at, reads=4)
    seen = replace(sight(OrderState.OPEN, status="Working"), late_reject=said("TooLate"))
    assert end(after_read(spent, seen, POLICY, NOW)).evidence_text == "seen_working Working"


# ------------------------------------------------------------------------------ another account's order

STRANGER = "the order is of DEMO2, not of DEMO1"


def strange(state: OrderState) -> Sight:
    return replace(sight(state, status="Working"), other_account=STRANGER)


def test_an_order_of_another_account_is_not_posted_again() -> None:
    asked = job(pursuit="ambiguous", last_answer_at=to_micros(NOW - 2 * SECOND), step=Step.RECONCILE)
    decision = end(after_read(asked, strange(OrderState.OPEN), POLICY, NOW))
    assert (decision.outcome, decision.evidence_text) == (Outcome.REFUSED, f"other_account {STRANGER}")


def test_an_order_of_another_account_that_was_never_posted_is_refused_at_once() -> None:
    unsent = job(attempts=0, step=Step.RECONCILE)
    assert end(after_read(unsent, strange(OrderState.OPEN), POLICY, NOW)).evidence is Evidence.OTHER_ACCOUNT


def test_what_was_sent_to_another_account_s_order_may_still_act() -> None:
    def sent(pursuit: str, age: int) -> Job:
        at = to_micros(NOW - age * SECOND)
        return job(pursuit=pursuit, last_answer_at=at, proof_since=at, step=Step.CONFIRM)

    waits = [("accepted", 4), ("ambiguous", 1), ("refused", 1)]
    ends = [("accepted", 5), ("ambiguous", 2), ("refused", 2)]
    seen = strange(OrderState.OPEN)
    assert {again(after_read(sent(*told), seen, POLICY, NOW)).step for told in waits} == {Step.CONFIRM}
    assert {end(after_read(sent(*told), seen, POLICY, NOW)).evidence for told in ends} == {
        Evidence.OTHER_ACCOUNT
    }


def test_an_end_wins_even_if_the_order_is_another_account_s() -> None:
    decision = end(
        after_read(job(), replace(strange(OrderState.CANCELED), ord_status="Canceled"), POLICY, NOW)
    )
    assert (decision.outcome, decision.evidence_text) == (
        Outcome.CANCELED,
        f"order_read Canceled: {STRANGER}",
    )


# ------------------------------------------------------------------------------------ penalties on reads


def test_a_lock_out_that_a_read_meets_stops_everybody() -> None:
    seen = replace(sight(OrderState.UNREAD), throttled=said(status=429))
    decision = again(after_read(job(step=Step.RECONCILE), seen, POLICY, NOW))
    assert (decision.step, decision.delay) == (Step.RECONCILE, POLICY.lockout)


def test_a_penalty_that_a_read_meets_is_waited_for_and_ends_with_the_budget() -> None:
    ticket = replace(said(), meaning=Meaning.THROTTLED, rule="body:p-ticket", ticket="t", penalty=7 * SECOND)
    seen = replace(sight(OrderState.UNREAD), throttled=ticket)
    decision = again(after_read(job(step=Step.CONFIRM, proof_since=to_micros(NOW)), seen, POLICY, NOW))
    spent = job(attempts=10, step=Step.CONFIRM, proof_since=to_micros(NOW - 31 * SECOND))
    assert (decision.delay, decision.memory.ticket) == (7 * SECOND, "")
    assert end(after_read(spent, seen, POLICY, NOW)).evidence is Evidence.UNPROVEN


# --------------------------------------------------------------------------------------- a missing order


def test_too_late_in_any_answer_makes_a_missing_order_unresolved() -> None:
    late = classify(Answered(status=409, body=b'{"failureReason":"TooLate"}', sent_at=NOW, answered_at=NOW))
    assert again(after_reply(job(), late, POLICY, NOW)).memory.maybe_acted
    assert not again(after_reply(job(), said(status=500), POLICY, NOW)).memory.maybe_acted


@pytest.mark.parametrize(("acted", "outcome"), [(True, Outcome.UNRESOLVED), (False, Outcome.REFUSED)])
def test_an_order_that_is_missing_twice_is_never_gone(acted: bool, outcome: Outcome) -> None:  # noqa: FBT001
    at = to_micros(NOW - 3 * SECOND)
    once = job(pursuit="ambiguous", last_answer_at=at, maybe_acted=acted, step=Step.RECONCILE)
    first = again(after_read(once, sight(OrderState.MISSING), POLICY, NOW))
    second = end(after_read(once._replace(memory=first.memory), sight(OrderState.MISSING), POLICY, NOW))
    assert (second.outcome, second.evidence) == (outcome, Evidence.ORDER_NOT_FOUND)


def test_a_young_order_may_be_missing_from_a_lagging_read() -> None:
    young = job(attempts=0, first_claim_at=to_micros(NOW - SECOND), missing=5, step=Step.RECONCILE)
    assert again(after_read(young, sight(OrderState.MISSING), POLICY, NOW)).step is Step.RECONCILE


def test_a_failed_read_neither_proves_nor_forgets() -> None:
    before = job(pursuit="ambiguous", missing=1, seen_open=True, step=Step.RECONCILE)
    memory = again(after_read(before, sight(OrderState.UNREAD), POLICY, NOW)).memory
    assert (memory.missing, memory.seen_open, memory.reads) == (1, True, 1)


@pytest.mark.parametrize(
    ("statuses", "state"),
    [
        (["Canceled"], OrderState.CANCELED),
        (["Canceled", "Canceled"], OrderState.CANCELED),
        (["Working", "Canceled", "PendingCancel"], OrderState.CANCELED),
        (["Filled", "Completed"], OrderState.FILLED),
        (["Canceled", "Filled"], OrderState.UNCLEAR),
        (["Canceled", "Expired", "Working"], OrderState.UNCLEAR),
        (["Halted", "Canceled"], OrderState.CANCELED),
        (["Working", "Suspended"], OrderState.OPEN),
        (["Working", "PendingCancel"], OrderState.CANCELING),
        (["Working", "Halted"], OrderState.UNCLEAR),
        (["Working", None], OrderState.UNCLEAR),
        ([None], OrderState.UNCLEAR),
        ([7], OrderState.UNCLEAR),
        ([["Canceled"]], OrderState.UNCLEAR),
        (["canceled"], OrderState.UNCLEAR),
        (["Unknown"], OrderState.UNCLEAR),
    ],
)
def test_an_end_wins_over_what_is_open_and_never_over_another_end(
    statuses: list[object], state: OrderState
) -> None:
    assert state_of(statuses) is state


# --------------------------------------------------------------------------------- budgets and deadlines


@pytest.mark.parametrize(
    ("held", "allowed"),
    [
        (job(attempts=9), True),
        (job(attempts=10), False),
        (job(first_claim_at=to_micros(NOW - 60 * SECOND)), False),
        (job(deadline=NOW), False),
        (job(deadline=NOW + SECOND), True),
    ],
)
def test_a_post_needs_attempts_budget_and_deadline(held: Job, allowed: bool) -> None:  # noqa: FBT001
    assert may_post(held, POLICY, NOW) is allowed


def test_a_deadline_that_passed_unsent_is_followed_by_one_read() -> None:
    late = job(attempts=0, deadline=NOW - SECOND)
    assert instead_of_post(late, NOW).step is Step.CONFIRM
    decision = end(after_read(late, sight(OrderState.OPEN), POLICY, NOW))
    assert (decision.outcome, decision.evidence) == (Outcome.UNRESOLVED, Evidence.DEADLINE)


def test_a_retry_that_would_come_after_the_deadline_is_not_planned() -> None:
    soon = job(deadline=NOW + timedelta(milliseconds=10))
    assert again(after_reply(soon, said("AnotherCommandPending"), POLICY, NOW)).step is Step.CONFIRM


def test_a_spent_budget_with_the_order_open_is_unresolved_as_seen_working() -> None:
    spent = job(
        attempts=10, pursuit="transient", last_answer_at=to_micros(NOW - 3 * SECOND), step=Step.CONFIRM
    )
    decision = end(after_read(spent, sight(OrderState.OPEN), POLICY, NOW))
    assert (decision.outcome, decision.evidence) == (Outcome.UNRESOLVED, Evidence.SEEN_WORKING)


def test_a_cancel_that_may_have_acted_is_proved_for_the_whole_confirm_budget() -> None:
    def spent(since: int) -> Job:
        at = to_micros(NOW - since * SECOND)
        return job(attempts=10, maybe_acted=True, pursuit="ambiguous", last_answer_at=at, proof_since=at)

    assert again(after_read(spent(29), sight(OrderState.OPEN), POLICY, NOW)).step is Step.CONFIRM
    assert end(after_read(spent(30), sight(OrderState.OPEN), POLICY, NOW)).outcome is Outcome.UNRESOLVED


@pytest.mark.parametrize("state", [OrderState.UNREAD, OrderState.UNCLEAR, OrderState.CANCELING])
def test_without_proof_every_job_ends_when_its_budgets_do(state: OrderState) -> None:
    at = to_micros(NOW - 31 * SECOND)
    spent = job(attempts=10, pursuit="accepted", accepted=True, last_answer_at=at, proof_since=at)
    assert end(after_read(spent, sight(state), POLICY, NOW)).outcome is Outcome.UNRESOLVED


def test_while_posting_is_allowed_reads_go_on_beyond_the_confirm_budget() -> None:
    """A joiner may have given more time after proving began."""
    at = to_micros(NOW - 31 * SECOND)
    unread = sight(OrderState.UNREAD)
    widened = job(pursuit="ambiguous", last_answer_at=at, proof_since=at)
    spent = job(pursuit="ambiguous", last_answer_at=at, proof_since=at, attempts=10)
    assert again(after_read(widened, unread, POLICY, NOW)).step is Step.CONFIRM
    assert end(after_read(spent, unread, POLICY, NOW)).outcome is Outcome.UNRESOLVED


def test_a_refusal_that_could_not_be_read_again_stays_a_refusal() -> None:
    at = to_micros(NOW - 31 * SECOND)
    blind = job(pursuit="refused", refusal="AccountClosed", last_answer_at=at, proof_since=at)
    assert end(after_read(blind, sight(OrderState.UNREAD), POLICY, NOW)).outcome is Outcome.REFUSED


# -------------------------------------------------------------------------------------------- configuration


def test_the_version_shows_when_configuration_bends_the_table() -> None:
    bent = replace(POLICY, transient=frozenset({"TooLate"}))
    assert POLICY.version == VERSION
    assert bent.version.startswith(f"{VERSION}+")


@pytest.mark.parametrize("reason", ["AnotherComandPending", "Success", "Sucess"])
def test_a_transient_reason_that_cannot_be_meant_is_refused(reason: str) -> None:
    with pytest.raises(ConfigError, match="CANCELQ_TRANSIENT_REASONS"):
        policy_from(Settings(transient_reasons=frozenset({reason})), lambda: 0.5)


def test_memory_survives_the_ledger_and_a_newer_program_s_extra_keys() -> None:
    memory = Memory(pursuit="accepted", command_id=2**63 - 1, missing=2)
    assert Memory.from_json(memory.to_json()) == memory
    assert Memory.from_json('{"missing":2,"from_the_future":1}') == Memory(missing=2)
