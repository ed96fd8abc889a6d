"""Calls are limited for the whole fleet: in the ledger, and by real workers that share it."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import count

import pytest

from tests.parts.exchange import eventually
from tests.parts.ledger import NO_TIME, Door, claim, claimed_ids, closing, lock_out, settlement
from worker.job import Step
from worker.ledger.client import Ledger
from worker.ledger.words import Call, Rules, Settlement
from worker.rate_limit import limits_from

A_DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
Limited = Callable[[str], Ledger]


@pytest.fixture
def limited(ledger: Ledger) -> Limited:
    """The ledger under a limit."""

    def limit(text: str) -> Ledger:
        ledger.configure(Rules(dedupe_life=A_DAY, limits=limits_from(text)))
        return ledger

    return limit


def enqueue(door: Door, orders: int, **fields: object) -> list[str]:
    return [door.enqueue(order, **fields)["jobId"] for order in range(1, orders + 1)]


def given_back(
    ids: Sequence[str], posts: int, *, step: Step = Step.CONFIRM, claim_id: str = "claim-1"
) -> list[Settlement]:
    return [settlement(job, claim_id, step=step, delay=HOUR, posts=posts) for job in ids]


def reads(ledger: Ledger) -> int:
    """How many reads are granted in a row."""
    return next(number for number in count() if not ledger.grant("default", Call.READ).granted)


# --- the ledger


def test_a_claim_takes_no_more_than_the_window_has_left(door: Door, limited: Limited) -> None:
    enqueue(door, 8)
    ledger = limited("5/s")
    first = claim(ledger)
    assert (len(first.jobs), first.due_left, first.for_budget) == (5, False, True)
    assert claimed_ids(ledger, "claim-2") == []


def test_what_was_posted_counts_until_its_window_is_over(door: Door, limited: Limited) -> None:
    enqueue(door, 8)
    ledger = limited("5/s")
    first = claim(ledger)
    before_report = ledger.sweep(NO_TIME).now
    assert all(ledger.settle(given_back([job.id for job in first.jobs], 1)))
    later = eventually(lambda: (c := claim(ledger, "claim-2")).jobs and c, what="a new window")
    assert later.now - before_report >= SECOND
    assert len(later.jobs) == 3


def test_what_was_not_posted_is_given_back(door: Door, limited: Limited) -> None:
    enqueue(door, 10)
    ledger = limited("5/h")
    assert all(ledger.settle(given_back(claimed_ids(ledger), 0)))
    assert len(claimed_ids(ledger, "claim-2")) == 5


def test_two_posts_under_one_claim_count_twice(door: Door, limited: Limited) -> None:
    enqueue(door, 10)
    ledger = limited("4/h")
    assert all(ledger.settle(given_back(claimed_ids(ledger, jobs=1), 2)))
    assert len(claimed_ids(ledger, "claim-2")) == 2


def test_only_where_there_is_plenty_a_claim_pays_for_a_second_post(door: Door, limited: Limited) -> None:
    enqueue(door, 6)
    ledger = limited("7/h")
    plenty, scarce = claim(ledger, jobs=3), claim(ledger, "claim-2", jobs=3)
    assert [job.calls for job in (*plenty.jobs, *scarce.jobs)] == [2, 2, 2, 1]


def test_without_a_limit_nothing_is_counted(door: Door, limited: Limited) -> None:
    enqueue(door, 3)
    ledger = limited("")
    assert [job.calls for job in claim(ledger).jobs] == [None] * 3
    assert not [key for key in door.all_keys() if ":calls:" in key]


def test_a_lapsed_claim_counts_as_if_it_had_posted(door: Door, limited: Limited) -> None:
    enqueue(door, 6)
    ledger = limited("5/h")
    claim(ledger, lease=NO_TIME)
    assert ledger.sweep(NO_TIME).lapsed == 5
    assert claimed_ids(ledger, "claim-2") == []


def test_a_claim_that_ends_its_job_counts_too(door: Door, limited: Limited) -> None:
    ids = enqueue(door, 2)
    ledger = limited("1/h")
    (first,) = claimed_ids(ledger)
    ledger.close([closing(first, posts=1)])
    assert claimed_ids(ledger, "claim-2") == []
    assert first in ids


def test_reads_leave_the_rest_of_a_window_to_cancels(door: Door, limited: Limited) -> None:
    enqueue(door, 5)
    ledger = limited("10/h")
    assert reads(ledger) == 8
    assert len(claimed_ids(ledger)) == 2


def test_cancels_may_take_what_reads_left(door: Door, limited: Limited) -> None:
    enqueue(door, 12)
    ledger = limited("10/h")
    assert len(claimed_ids(ledger)) == 10
    assert reads(ledger) == 0


def test_a_call_for_a_token_is_counted_and_never_refused(door: Door, limited: Limited) -> None:
    enqueue(door, 3)
    ledger = limited("3/h")
    assert all(ledger.grant("default", Call.TOKEN).granted for _ in range(4))
    assert claimed_ids(ledger) == []
    assert reads(ledger) == 0


def test_the_last_hundredth_of_a_large_window_is_kept_for_tokens(door: Door, limited: Limited) -> None:
    enqueue(door, 205)
    assert len(claimed_ids(limited("200/h"), jobs=300)) == 198


def test_the_tightest_of_several_limits_counts(door: Door, limited: Limited) -> None:
    enqueue(door, 9)
    ledger = limited("3/s,4/min,100/h")
    first = claimed_ids(ledger)
    ledger.settle(given_back(first, 1))
    second = eventually(lambda: claimed_ids(ledger, "claim-2"), what="the next second")
    assert (len(first), len(second)) == (3, 1)
    ledger.settle(given_back(second, 1, claim_id="claim-2"))
    waiting = claim(ledger, "claim-3")
    assert waiting.next_due is not None
    assert (waiting.jobs, waiting.for_budget) == ((), True)
    assert waiting.next_due - waiting.now > 50 * SECOND


def test_a_job_whose_end_is_decided_needs_no_budget_and_no_free_login(door: Door, limited: Limited) -> None:
    ledger = limited("1/h")
    (job_id,) = enqueue(door, 1)
    claim(ledger)
    ledger.close([closing(job_id, posts=1)])
    ledger.settle([settlement(job_id, step=Step.CLOSE)])
    lock_out(ledger, HOUR)
    assert claimed_ids(ledger, "claim-2") == [job_id]


def test_work_that_waits_for_a_budget_is_not_due_and_rings_no_bell(door: Door, limited: Limited) -> None:
    enqueue(door, 2)
    ledger = limited("1/h")
    claim(ledger)
    door.redis.delete(door.key("bells"))
    swept = ledger.sweep(NO_TIME)
    assert (swept.due, swept.oldest_due, swept.bells) == (0, None, 0)
    assert swept.next_due is not None


def test_proof_stands_still_while_reads_wait_for_their_budget(door: Door, limited: Limited) -> None:
    (job_id,) = enqueue(door, 1)
    ledger = limited("1/s")
    claim(ledger)
    ledger.settle([settlement(job_id, step=Step.CONFIRM, posts=1)])
    dry = claim(ledger, "claim-2")
    assert dry.jobs == ()
    later = eventually(lambda: (c := claim(ledger, "claim-3")).jobs and c, what="a read")
    ran_dry = later.logins["default"].ran_dry
    assert 0 < ran_dry <= (later.now - dry.now + SECOND) // timedelta(microseconds=1)


def test_a_window_that_is_over_can_be_watched_and_leaves_nothing_behind(door: Door, limited: Limited) -> None:
    ledger = limited("3/s")
    assert reads(ledger) == 2
    eventually(lambda: ledger.gauges() and ledger.grant("default", Call.READ).granted, what="a new window")
    key = door.key("calls:default:1000000")
    eventually(lambda: ledger.grant("default", Call.READ) and door.redis.hlen(key) <= 2, what="few slots")


# --- logins


def test_a_lock_out_or_a_spent_budget_of_one_login_leaves_the_others_alone(
    door: Door, ledger: Ledger
) -> None:
    logins = {"A": "ann", "B": "bob"}
    ledger.configure(Rules(dedupe_life=A_DAY, limits=limits_from("1/h"), logins=logins))
    ids = {account: door.enqueue(1, account=account)["jobId"] for account in ("A", "B", "C")}
    lock_out(ledger, HOUR, "ann")
    assert ledger.grant("default", Call.READ).granted
    claimed = claim(ledger)
    assert [(job.id, job.login) for job in claimed.jobs] == [(ids["B"], "bob")]
    assert list(claimed.lockouts) == list(ledger.sweep(NO_TIME).lockouts) == ["ann"]


def test_a_penalty_holds_a_login_without_an_alarm(door: Door, ledger: Ledger) -> None:
    (job_id,) = enqueue(door, 1)
    ends = ledger.hold("default", timedelta(milliseconds=300), lockout=False)
    claimed = claim(ledger)
    assert (claimed.jobs, claimed.next_due, claimed.lockouts) == ((), ends, {})
    assert ledger.survey().locked_out_until is None
    later = eventually(lambda: (c := claim(ledger)).jobs and c, what="the penalty's end")
    assert later.now >= ends
    assert later.jobs[0].id == job_id
    assert later.logins["default"].stood_still == 300_000


def test_the_jobs_of_an_account_follow_it_to_another_login(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1, account="A")["jobId"]
    ledger.configure(Rules(dedupe_life=A_DAY, logins={"A": "ann"}))
    lock_out(ledger, HOUR, "ann")
    assert claimed_ids(ledger) == []
    assert door.redis.zrange(door.key("due@ann"), 0, -1) == [job_id]
    ledger.configure(Rules(dedupe_life=A_DAY, logins={}))
    assert claimed_ids(ledger) == []  # still held back where it lies
    assert ledger.survey().open == 1


def test_a_backlog_of_one_login_lets_the_others_through(door: Door, ledger: Ledger) -> None:
    ledger.configure(Rules(dedupe_life=A_DAY, logins={"A": "ann"}))
    enqueue(door, 200)
    door.enqueue(1, account="A")
    rounds = [claim(ledger, f"claim-{n}", jobs=10) for n in range(20)]
    assert any(job.login == "ann" for claimed in rounds[:8] for job in claimed.jobs)
