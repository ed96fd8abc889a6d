"""Claim, renew, settle, close, finish: each writes only under the claim that holds the job."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.parts.exchange import eventually
from tests.parts.ledger import LEASE, NO_TIME, Door, claim, claimed_ids, closing, finish, lock_out, settlement
from tests.parts.valkey import PrivateValkey
from worker.clock import monotonic, span_micros
from worker.errors import LedgerUnavailable
from worker.job import ClaimId, JobId, Outcome, Step
from worker.ledger.client import Ledger

LARGEST = 2**63 - 1
LATER = timedelta(minutes=1)
MOMENT = timedelta(milliseconds=1)


def lapse(ledger: Ledger, claim_id: str = "dead") -> None:
    """Claim everything due, then let the holder fall silent until a sweep has noticed."""
    taken = len(claimed_ids(ledger, claim_id, lease=MOMENT))
    eventually(lambda: ledger.sweep(NO_TIME).lapsed == taken, what="the sweep of the lapsed leases")


def test_a_lost_job_says_whose_rows_there_may_be_until_it_is_given_back(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    for chain in ("chain-1", "chain-2"):
        ledger.claim(ClaimId(chain), f"host/1 {chain}", lease=MOMENT, jobs=1, confirms=0)
        eventually(lambda: ledger.sweep(NO_TIME).lapsed, what="the sweep of the lapsed lease")
    (job,) = claim(ledger).jobs
    assert job.lost_by == ("chain-1", "chain-2")
    ledger.settle([settlement(job_id)])
    assert claim(ledger, "claim-2").jobs[0].lost_by == ()


def test_a_job_that_was_lost_by_a_holder_without_a_name_is_nobodys_in_particular(
    door: Door, ledger: Ledger
) -> None:
    job_id = door.enqueue(1)["jobId"]
    lapse(ledger)  # by a program that says no chain
    assert door.job(job_id)["lost_by"] == "?"
    door.redis.hdel(door.key(f"job:{job_id}"), "lost_by")  # … and was swept by one that does not ask
    for number in range(30):
        ledger.claim(ClaimId(f"c{number}"), f"host/1 {number:036}", lease=MOMENT, jobs=1, confirms=0)
        eventually(lambda: ledger.sweep(NO_TIME).lapsed, what="the sweep of the lapsed lease")
        assert "?" in door.job(job_id)["lost_by"].split()
    assert len(door.job(job_id)["lost_by"]) <= 1000


def test_a_claim_takes_the_job_out_of_its_index_into_the_leases(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    assert door.places(job_id) == {"due"}
    before = monotonic()
    claimed = claim(ledger)
    assert [job.id for job in claimed.jobs] == [job_id]
    assert before <= claimed.asked_at <= monotonic()
    assert door.places(job_id) == {"leases"}
    assert door.status(jobId=job_id)["state"] == "claimed"
    assert claimed_ids(ledger, "claim-2") == []


def test_a_claim_takes_no_more_than_it_asked_for_and_rings_for_the_rest(door: Door, ledger: Ledger) -> None:
    ids = [door.enqueue(order)["jobId"] for order in range(1, 6)]
    door.redis.delete(door.key("bells"))
    claimed = claim(ledger, jobs=3)
    assert [job.id for job in claimed.jobs] == ids[:3]
    assert claimed.due_left
    assert len(door.bells()) == 1
    assert not claim(ledger, "claim-2").due_left
    assert len(door.bells()) == 1


def test_confirmations_have_their_own_share_of_a_claim(door: Door, ledger: Ledger) -> None:
    ids = [door.enqueue(order)["jobId"] for order in range(1, 4)]
    claim(ledger)
    ledger.settle([settlement(job_id, step=Step.CONFIRM) for job_id in ids[:2]] + [settlement(ids[2])])
    claimed = ledger.claim(ClaimId("c"), "w", lease=LEASE, jobs=0, confirms=1)
    assert [job.id for job in claimed.jobs] == ids[:1]
    claimed = ledger.claim(ClaimId("c"), "w", lease=LEASE, jobs=5, confirms=0)
    assert [job.id for job in claimed.jobs] == ids[2:]


def test_claim_order_is_lapsed_then_urgent_then_due_then_confirm(door: Door, ledger: Ledger) -> None:
    lapsed = door.enqueue(1)["jobId"]
    lapse(ledger)
    confirm = door.enqueue(2)["jobId"]
    ledger.claim(ClaimId("claim-1"), "w", lease=LEASE, jobs=1, confirms=0)  # the lapsed one again
    claim(ledger)
    ledger.settle([settlement(confirm, step=Step.CONFIRM)])
    lapse_again = ledger.renew(NO_TIME, [(JobId(lapsed), ClaimId("claim-1"))])
    assert lapse_again == frozenset()
    eventually(lambda: ledger.sweep(NO_TIME).lapsed == 1)
    due, due_later = door.enqueue(3)["jobId"], door.enqueue(4)["jobId"]
    urgent = door.enqueue(5, priority="urgent")["jobId"]
    assert claimed_ids(ledger, "claim-2") == [lapsed, urgent, due, due_later, confirm]


def test_a_parked_job_is_not_claimed_before_its_time(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger)
    assert ledger.settle([settlement(job_id, delay=LATER)]) == [True]
    claimed = claim(ledger, "claim-2")
    assert claimed.jobs == ()
    assert claimed.next_due is not None
    assert timedelta(0) < claimed.next_due - claimed.now <= LATER
    assert door.status(jobId=job_id)["state"] == "parked"


def test_a_job_claimed_again_shows_what_its_last_holder_wrote(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger)
    written = {"attempts": "2", "reason": "TooLate", "command_id": str(LARGEST), "memory": '{"reads": 3}'}
    ledger.settle([settlement(job_id, step=Step.RECONCILE, fields=written)])
    (job,) = claim(ledger, "claim-2").jobs
    assert (job.step, job.attempts, job.memory.reads, job.lapsed) == (Step.RECONCILE, 2, 3, False)
    status = door.status(jobId=job_id)
    assert (status["attempts"], status["reason"], status["commandId"]) == (2, "TooLate", LARGEST)


def test_a_holder_is_told_whether_the_audit_has_the_job_already(door: Door, ledger: Ledger) -> None:
    known, unknown, apart, gone = (JobId(door.enqueue(order)["jobId"]) for order in (1, 2, 3, 4))
    door.redis.delete(door.key(f"job:{gone}"))
    assert ledger.registered([(known, 0), (gone, 0)], shared=True) == [gone]
    assert ledger.registered([(apart, 0)], shared=False) == []
    assert {job.id: job.recorded for job in claim(ledger).jobs} == {
        known: True,
        unknown: False,
        apart: False,
    }
    assert not door.redis.exists(door.key(f"job:{gone}"))


def test_a_field_of_none_is_removed(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger)
    ledger.settle([settlement(job_id, fields={"reason": "TooLate"})])
    claim(ledger)
    ledger.settle([settlement(job_id, fields={"reason": None})])
    assert door.status(jobId=job_id)["reason"] is None


def test_a_reason_with_odd_characters_is_stored_readably(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger)
    assert ledger.settle([settlement(job_id, fields={"reason": 'a\ud800b\x00"é'})]) == [True]
    assert door.status(jobId=job_id)["reason"] == 'a\\ud800b\x00"é'


def test_a_holder_cannot_write_the_ledgers_own_fields(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    other = door.enqueue(2)["jobId"]
    claim(ledger)
    with pytest.raises(LedgerUnavailable, match="must not write the field claim"):
        ledger.settle([settlement(other), settlement(job_id, fields={"claim": "mine"})])
    assert door.places(other) == {"leases"}


def test_settling_for_now_rings_and_for_later_does_not(door: Door, ledger: Ledger) -> None:
    now, later = door.enqueue(1)["jobId"], door.enqueue(2)["jobId"]
    claim(ledger)
    door.redis.delete(door.key("bells"))
    ledger.settle([settlement(later, delay=LATER)])
    assert door.bells() == []
    ledger.settle([settlement(now)])
    assert len(door.bells()) == 1


# --- fences


def test_a_stale_claim_renews_nothing(door: Door, ledger: Ledger) -> None:
    held, other = door.enqueue(1)["jobId"], door.enqueue(2)["jobId"]
    claim(ledger)
    lost = ledger.renew(
        LEASE,
        [(JobId(held), ClaimId("claim-1")), (JobId(other), ClaimId("stale")), (JobId("no"), ClaimId("x"))],
    )
    assert lost == {other, "no"}


def test_a_stale_claim_settles_closes_and_finishes_nothing(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger)
    before = door.job(job_id)
    assert ledger.settle([settlement(job_id, "stale", fields={"reason": "x"})]) == [False]
    assert ledger.close([closing(job_id, "stale")]) == [None]
    assert not finish(ledger, job_id, "stale")
    assert door.job(job_id) == before
    assert door.places(job_id) == {"leases"}


def test_a_lapsed_holder_has_lost_its_claim(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    lapse(ledger, "dead")
    assert ledger.renew(LEASE, [(JobId(job_id), ClaimId("dead"))]) == {job_id}
    assert ledger.settle([settlement(job_id, "dead")]) == [False]
    assert ledger.close([closing(job_id, "dead")]) == [None]
    assert claimed_ids(ledger, "claim-2") == [job_id]
    assert ledger.settle([settlement(job_id, "dead")]) == [False]


def test_a_settled_job_is_out_of_its_old_holders_hands(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger)
    ledger.settle([settlement(job_id)])
    assert ledger.settle([settlement(job_id)]) == [False]
    assert ledger.close([closing(job_id)]) == [None]


def test_an_unknown_job_is_a_stale_claim(ledger: Ledger) -> None:
    assert ledger.settle([settlement("nobody")]) == [False]
    assert ledger.close([closing("nobody")]) == [None]
    assert not finish(ledger, "nobody")


def test_one_stale_item_does_not_hold_up_the_others(door: Door, ledger: Ledger) -> None:
    ids = [door.enqueue(order)["jobId"] for order in (1, 2, 3)]
    claim(ledger)
    claims = ["claim-1", "stale", "claim-1"]
    pairs = list(zip(ids, claims, strict=True))
    assert ledger.settle([settlement(j, c) for j, c in pairs]) == [True, False, True]


# --- the end


def test_closing_freezes_the_outcome_and_keeps_the_lease(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger)
    assert ledger.close([closing(job_id)]) == [()]
    kept, told = door.job(job_id), door.status(jobId=job_id)
    assert (kept["state"], kept["outcome"], kept["evidence"]) == ("closing", "canceled", "order_read")
    assert (told["state"], told["outcome"], told["evidence"]) == ("closing", None, None)
    assert door.places(job_id) == {"leases"}
    assert ledger.renew(LEASE, [(JobId(job_id), ClaimId("claim-1"))]) == frozenset()


def test_a_closing_job_whose_holder_died_comes_back_with_its_outcome(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger, lease=MOMENT)
    ledger.close([closing(job_id)])
    eventually(lambda: ledger.sweep(NO_TIME).lapsed)
    (job,) = claim(ledger, "claim-2").jobs
    assert (job.step, job.outcome, job.evidence, job.lapsed) == (
        Step.CLOSE,
        Outcome.CANCELED,
        "order_read",
        True,
    )
    assert ledger.close([closing(job_id, "claim-2")]) == [()]
    assert finish(ledger, job_id, "claim-2")


def test_an_end_that_was_decided_stays_decided(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger)
    ledger.close([closing(job_id)])
    other = replace(closing(job_id), outcome=Outcome.FILLED, evidence="reply", fields={"reason": "late"})
    assert ledger.close([other]) == [()]
    kept = door.job(job_id)
    assert (kept["outcome"], kept["evidence"], kept.get("reason")) == ("canceled", "order_read", None)


def test_a_closing_job_can_be_parked_but_not_reopened(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger)
    ledger.close([closing(job_id)])
    assert ledger.settle([settlement(job_id, step=Step.POST)]) == [False]
    assert ledger.settle([settlement(job_id, step=Step.CLOSE, delay=LATER)]) == [True]
    assert door.places(job_id) == {"closing"}


def test_a_finished_job_leaves_every_index_and_expires(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    door.enqueue(1)
    claim(ledger)
    ledger.close([closing(job_id)])
    assert finish(ledger, job_id)
    assert finish(ledger, job_id)  # repeated after a lost answer
    assert door.places(job_id) == set()
    assert ledger.unregistered(10, NO_TIME) == []
    for key in (f"job:{job_id}", f"joiners:{job_id}", "order:1:default"):
        assert 3500 < door.redis.ttl(door.key(key)) <= 3600
    status = door.status(orderId=1)
    assert (status["state"], status["outcome"], status["nextAt"]) == ("done", "canceled", None)
    assert status["finishedAt"].endswith("Z")


def test_a_finished_job_is_in_nobodys_hands(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger)
    ledger.close([closing(job_id)])
    finish(ledger, job_id)
    assert ledger.renew(LEASE, [(JobId(job_id), ClaimId("claim-1"))]) == {job_id}
    assert ledger.settle([settlement(job_id)]) == [False]
    assert ledger.close([closing(job_id)]) == [None]


# --- sweep


def test_a_lapsed_post_may_have_been_sent_and_is_read_first(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    lapse(ledger)
    assert door.places(job_id) == {"lapsed"}
    assert door.status(jobId=job_id)["state"] == "reconciling"
    (job,) = claim(ledger, "claim-2").jobs
    assert (job.step, job.lapsed) == (Step.RECONCILE, True)


@pytest.mark.parametrize("step", [Step.CONFIRM, Step.RECONCILE])
def test_another_lapsed_step_is_kept(door: Door, ledger: Ledger, step: Step) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger)
    ledger.settle([settlement(job_id, step=step)])
    lapse(ledger)
    (job,) = claim(ledger, "claim-2").jobs
    assert (job.step, job.lapsed) == (step, True)


def test_settling_ends_the_lapsed_mark(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    lapse(ledger)
    claim(ledger)
    ledger.settle([settlement(job_id, step=Step.POST)])
    (job,) = claim(ledger, "claim-2").jobs
    assert (job.step, job.lapsed) == (Step.POST, False)


def test_a_renewed_lease_is_not_swept(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger, lease=NO_TIME)
    ledger.renew(LEASE, [(JobId(job_id), ClaimId("claim-1"))])
    assert ledger.sweep(NO_TIME).lapsed == 0
    assert door.places(job_id) == {"leases"}


def test_a_sweep_runs_once_per_interval_whoever_calls(ledger: Ledger) -> None:
    assert ledger.sweep(LATER).ran
    assert not ledger.sweep(LATER).ran


def test_a_clock_that_was_set_back_does_not_stop_the_sweep(door: Door, ledger: Ledger) -> None:
    now = ledger.sweep(NO_TIME).now
    future = int((now + timedelta(days=1)).timestamp() * 1_000_000)
    door.redis.hset(door.key("meta"), "swept_at", str(future))
    assert ledger.sweep(LATER).ran


def test_a_sweep_rings_for_due_work_without_a_bell_only(door: Door, ledger: Ledger) -> None:
    door.enqueue(1)
    assert ledger.sweep(NO_TIME).bells == 1
    door.redis.delete(door.key("bells"))
    swept = ledger.sweep(NO_TIME)
    assert (swept.bells, swept.due) == (1, 1)
    assert swept.oldest_due is not None
    claim(ledger)
    door.redis.delete(door.key("bells"))
    assert ledger.sweep(NO_TIME).bells == 0


def test_a_sweep_tells_when_the_next_work_is_due(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger)
    ledger.settle([settlement(job_id, delay=LATER)])
    swept = ledger.sweep(NO_TIME)
    assert (swept.due, swept.oldest_due) == (0, None)
    assert swept.next_due is not None
    assert timedelta(0) < swept.next_due - swept.now <= LATER


# --- service


def test_a_lock_out_stops_claims_and_the_longer_one_stays(door: Door, ledger: Ledger) -> None:
    door.enqueue(1)
    door.redis.delete(door.key("bells"))
    ends = lock_out(ledger, LATER)
    assert lock_out(ledger, MOMENT) == ends
    claimed = claim(ledger)
    assert (claimed.jobs, claimed.due_left, claimed.next_due) == ((), False, ends)
    assert ledger.sweep(NO_TIME).bells == 0


def test_the_ledger_sums_up_for_how_long_all_stood_still(door: Door, ledger: Ledger) -> None:
    door.enqueue(1)
    assert claim(ledger, jobs=0).logins["default"].stood_still == 0
    lock_out(ledger, MOMENT)
    ends = lock_out(ledger, LATER)
    locked = claim(ledger)
    left = span_micros(ends - locked.now)
    assert left <= locked.logins["default"].stood_still <= span_micros(LATER) + span_micros(MOMENT)


def test_work_goes_on_after_the_lock_out(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    lock_out(ledger, timedelta(milliseconds=20))
    assert eventually(lambda: claimed_ids(ledger)) == [job_id]


def test_the_newest_head_of_a_writer_is_kept(ledger: Ledger) -> None:
    ledger.witness("w-1", 5, "five")
    ledger.witness("w-1", 4, "four")
    ledger.witness("w-2", 1, "one")
    ledger.witness("w-1", 10, "ten")
    assert ledger.heads() == {"w-1": (10, "ten"), "w-2": (1, "one")}


def test_a_chain_that_goes_on_in_a_journal_is_marked_until_it_is_back(ledger: Ledger) -> None:
    ledger.witness("w-1", 0, "", "journal host 1")
    ledger.witness("w-2", 5, "five", "journal host 6")
    assert (ledger.heads(), ledger.marks()) == (
        {"w-1": (0, ""), "w-2": (5, "five")},
        {"w-1": "journal host 1", "w-2": "journal host 6"},
    )
    ledger.witness("w-2", 4, "four")  # older news
    ledger.witness("w-2", 5, "another five")  # another row in its place: the first word stands
    assert ledger.marks()["w-2"] == "journal host 6"
    ledger.witness("w-2", 5, "five")
    ledger.witness("w-1", 0, "")
    assert (ledger.heads(), ledger.marks()) == ({"w-1": (0, ""), "w-2": (5, "five")}, {})


def test_at_most_ten_thousand_heads_are_kept(door: Door, ledger: Ledger) -> None:
    door.redis.hset(door.key("heads"), mapping={f"w-{n}": "1 x" for n in range(10_000)})
    ledger.witness("new", 1, "y")
    assert door.redis.hlen(door.key("heads")) == 10_000
    assert ledger.heads()["new"] == (1, "y")


def test_status_finds_the_newest_job_of_an_order(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1, account="A")["jobId"]
    assert ledger.status(order_id=1, account="A")["jobId"] == job_id
    assert ledger.status(job_id=job_id)["orderId"] == 1
    assert ledger.status(order_id=1) == {"status": "unknown"}


def test_every_status_answer_has_all_its_keys(door: Door) -> None:
    status = door.status(jobId=door.enqueue(1)["jobId"])
    keys = [
        *("jobId", "account", "orderId", "state", "attempts", "reason", "commandId", "joiners", "enqueuedAt"),
        *("firstSentAt", "nextAt", "deadline", "finishedAt", "outcome", "evidence"),
    ]
    assert list(status) == keys


def test_a_missing_library_is_said_so(private_valkey: PrivateValkey) -> None:
    with (
        Ledger(private_valkey.url, "none", timeout=timedelta(seconds=2)) as ledger,
        pytest.raises(LedgerUnavailable, match="cancelq migrate"),
    ):
        ledger.sweep(NO_TIME)
