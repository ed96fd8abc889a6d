"""What this process holds: a lease counts from before it was asked for, and the permit is its last word."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from worker.clock import monotonic
from worker.errors import LeaseLapsed
from worker.job import CancelRequest, ClaimId, Job, JobId, OrderId, Step
from worker.work.hand import LEASE_MARGIN, Hand, LedgerClock

LEASE = timedelta(seconds=60)
LONG = timedelta(hours=1)
NONE = timedelta(0)
MINE, NEWER = ClaimId("mine"), ClaimId("newer")


def job(name: str = "a", deadline: datetime | None = None) -> Job:
    request = CancelRequest(account="default", order_id=OrderId(1), request_id=name, deadline=deadline)
    return Job(id=JobId(name), request=request, enqueued_at=datetime.now(UTC), step=Step.POST, attempts=0)


def holding(*jobs: Job, age: timedelta = NONE, work_bound: timedelta = LONG, claim: ClaimId = MINE) -> Hand:
    """A hand that asked for these jobs `age` ago."""
    hand = Hand(lease=LEASE, work_bound=work_bound)
    hand.take(jobs, claim, monotonic() - age)
    return hand


def permit(hand: Hand, wanted: Job, claim: ClaimId = MINE) -> Callable[[], None]:
    return hand.permit(wanted, claim, clock=LedgerClock())


def test_a_fresh_lease_permits_a_post() -> None:
    permit(holding(job()), job())()


def test_a_lease_counts_from_before_it_was_asked_for() -> None:
    almost_over = LEASE - LEASE_MARGIN / 2
    with pytest.raises(LeaseLapsed):
        permit(holding(job(), age=almost_over), job())()


def test_what_is_not_in_hand_is_not_sent() -> None:
    with pytest.raises(LeaseLapsed):
        permit(holding(job("a")), job("b"))()


def test_a_claim_that_was_taken_anew_permits_nothing_under_the_old_one() -> None:
    """A process that was frozen may hold the same job twice: by an old thread, and by a new claim."""
    hand = holding(job())
    asked = permit(hand, job())
    hand.take([job()], NEWER, monotonic())
    with pytest.raises(LeaseLapsed):
        asked()
    permit(hand, job(), NEWER)()


def test_a_job_that_was_let_go_is_not_sent() -> None:
    hand = holding(job())
    asked = permit(hand, job())
    hand.drop([(job().id, MINE)])
    with pytest.raises(LeaseLapsed):
        asked()


def test_a_renewal_prolongs_the_permit() -> None:
    hand = holding(job(), age=LEASE)
    hand.renewed(hand.renewable(), frozenset(), monotonic())
    permit(hand, job())()


def test_a_renewal_that_was_asked_for_long_ago_prolongs_nothing() -> None:
    hand = holding(job())
    hand.renewed(hand.renewable(), frozenset(), monotonic() - LEASE)
    with pytest.raises(LeaseLapsed):
        permit(hand, job())()


def test_a_lost_job_is_not_sent_though_its_lease_had_time_left() -> None:
    hand = holding(job("a"), job("b"))
    hand.renewed(hand.renewable(), frozenset({JobId("a")}), monotonic())
    with pytest.raises(LeaseLapsed):
        permit(hand, job("a"))()
    permit(hand, job("b"))()


def test_a_renewal_of_an_older_claim_changes_nothing() -> None:
    hand = holding(job(), claim=NEWER)
    hand.renewed([(job().id, MINE)], frozenset({job().id}), monotonic())
    permit(hand, job(), NEWER)()
    assert hand.holds(job().id, NEWER)


def test_letting_go_of_an_older_claim_keeps_the_newer_one() -> None:
    hand = holding(job(), claim=NEWER)
    hand.drop([(job().id, MINE)])
    assert (len(hand), hand.holds(job().id, NEWER)) == (1, True)


def test_a_renewal_after_the_end_does_not_bring_a_job_back() -> None:
    hand = holding(job())
    named = hand.renewable()
    hand.drop(named)
    hand.renewed(named, frozenset(), monotonic())
    assert (len(hand), hand.holds(job().id, MINE)) == (0, False)


def test_a_stuck_job_is_no_longer_named_in_renewals() -> None:
    assert holding(job(), work_bound=LONG).renewable() == [(job().id, MINE)]
    assert holding(job(), work_bound=NONE).renewable() == []


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(days=3650)])
def test_a_deadline_ahead_permits_a_post(ahead: timedelta) -> None:
    waiting = job(deadline=datetime.now(UTC) + ahead)
    permit(holding(waiting), waiting)()


def test_a_deadline_that_has_passed_forbids_it() -> None:
    late = job(deadline=datetime.now(UTC) - timedelta(milliseconds=1))
    with pytest.raises(LeaseLapsed, match="deadline"):
        permit(holding(late), late)()


def test_the_deadline_is_held_to_the_ledgers_clock() -> None:
    """A host whose clock is an hour slow must not send an hour late."""
    clock = LedgerClock()
    clock.observe(datetime.now(UTC) + timedelta(hours=1), monotonic())
    due = job(deadline=datetime.now(UTC) + timedelta(minutes=30))
    with pytest.raises(LeaseLapsed, match="deadline"):
        holding(due).permit(due, MINE, clock=clock)()


def test_the_ledgers_clock_goes_on_between_two_answers() -> None:
    clock = LedgerClock()
    said = datetime(2026, 11, 23, tzinfo=UTC)
    clock.observe(said, monotonic())
    first, second = clock.now(), clock.now()
    assert said <= first <= second < said + timedelta(seconds=5)


def test_an_answer_is_taken_to_be_half_a_round_trip_old() -> None:
    clock = LedgerClock()
    said = datetime(2026, 11, 23, tzinfo=UTC)
    clock.observe(said, monotonic() - timedelta(seconds=10))
    assert abs(clock.now() - said - timedelta(seconds=5)) < timedelta(seconds=1)


def test_a_claim_is_held_until_its_lease_ends_or_another_takes_it() -> None:
    taken = job()
    hand = holding(taken)
    assert hand.holds(taken.id, MINE)
    assert not hand.holds(taken.id, ClaimId("another"))
    hand.renewed([(taken.id, MINE)], frozenset({taken.id}), monotonic())
    assert not hand.holds(taken.id, MINE)
