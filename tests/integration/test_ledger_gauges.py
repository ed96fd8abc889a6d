"""How much waits, and for how long: the ledger's own count, seen through bare calls."""

from datetime import timedelta

from tests.parts.ledger import LEASE, NO_TIME, Door, claim, finish, settlement
from worker.clock import MICROSECOND, from_micros, to_micros, utc_now
from worker.job import Step
from worker.ledger.client import Ledger
from worker.ledger.shelf import Call
from worker.ledger.words import Rules
from worker.rate_limit import limits_from

HOUR = timedelta(hours=1)


def test_an_empty_ledger_counts_nothing(ledger: Ledger) -> None:
    gauges = ledger.gauges()
    assert (gauges.open, gauges.due, gauges.in_hand, gauges.parked, gauges.unknown, gauges.bells) == (0,) * 6
    assert (gauges.oldest_due, gauges.oldest_unknown, gauges.locked_out_until) == (None,) * 3
    assert (gauges.paused, gauges.draining) == (False, False)


def test_each_cancel_is_counted_where_it_is(door: Door, ledger: Ledger) -> None:
    parked, reconciling, confirming, held = (door.enqueue(n)["jobId"] for n in range(1, 5))
    claim(ledger)
    ledger.settle(
        [
            settlement(parked, delay=HOUR),
            settlement(reconciling, step=Step.RECONCILE, delay=HOUR, fields={"unknown_since": "1"}),
            settlement(confirming, step=Step.CONFIRM, delay=HOUR),
        ]
    )
    waiting = door.enqueue(5)["jobId"]
    gauges = ledger.gauges()
    assert (gauges.open, gauges.due, gauges.in_hand, gauges.parked, gauges.unknown) == (5, 1, 1, 1, 1)
    assert gauges.bells >= 1
    assert gauges.oldest_due is not None
    assert to_micros(gauges.oldest_due) == int(door.job(waiting)["enqueued_at"])
    finish(ledger, held)


def test_the_oldest_unknown_is_the_one_that_nobody_has_read_for_the_longest_time(
    door: Door, ledger: Ledger
) -> None:
    young, old = door.enqueue(1)["jobId"], door.enqueue(2)["jobId"]
    claim(ledger)
    now = to_micros(utc_now())
    long_ago = now - HOUR // MICROSECOND
    for job, since in ((young, now), (old, long_ago)):
        fields = {"unknown_since": str(since)}
        ledger.settle([settlement(job, step=Step.RECONCILE, delay=HOUR, fields=fields)])
    assert ledger.gauges().oldest_unknown == from_micros(long_ago)


def test_a_lock_out_is_told_until_it_ends(ledger: Ledger) -> None:
    until = ledger.hold("default", HOUR, lockout=True)
    assert ledger.gauges().locked_out_until == until


def test_a_lapsed_claim_whose_post_may_have_left_is_unknown(door: Door, ledger: Ledger) -> None:
    door.enqueue(1)
    claim(ledger, lease=NO_TIME)
    assert (ledger.gauges().in_hand, ledger.gauges().unknown) == (1, 0)
    ledger.sweep(NO_TIME)
    assert (ledger.gauges().in_hand, ledger.gauges().unknown) == (0, 1)
    claim(ledger, lease=LEASE)
    assert (ledger.gauges().in_hand, ledger.gauges().unknown) == (1, 1)


def test_the_budget_left_is_that_of_the_login_with_the_least(door: Door, ledger: Ledger) -> None:
    assert ledger.gauges().budget_left is None
    rules = Rules(dedupe_life=HOUR, limits=limits_from("200/h"), logins={"A": "ann"})
    ledger.configure(rules)
    assert ledger.gauges().budget_left == 198  # the last hundredth is kept for tokens
    door.enqueue(1, account="A")
    claim(ledger)
    assert ledger.gauges().budget_left == 198 - calls_in_hand(door)


def calls_in_hand(door: Door) -> int:
    """What the claim reserved: one call, or one more for a repetition in hand."""
    (job,) = [door.redis.hgetall(key) for key in door.all_keys() if ":job:" in key]
    return int(job["calls"].split("@")[0])


def test_the_age_of_the_oldest_token(ledger: Ledger) -> None:
    ledger.configure(Rules(dedupe_life=HOUR, logins={"A": "ann", "B": "bob"}))
    assert ledger.gauges().oldest_token is None
    tokens = []
    for login in ("ann", "bob"):
        shelf = ledger.shelf(login)
        shelf.take("keeper", Call.LOGIN, revision=0, hold=HOUR)
        shelf.put("keeper", ("sealed", "seal"), revision=0, renew_in=HOUR, ends_in=HOUR)
        tokens.append(ledger.gauges())
    assert tokens[0].oldest_token is not None
    assert tokens[0].oldest_token <= tokens[0].now < tokens[1].now
    assert tokens[1].oldest_token == tokens[0].oldest_token
