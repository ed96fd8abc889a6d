"""A server that was not compared with the audit gives nothing to POST; what comes back is read, and stays one per order."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from tests.parts.cancels import a_job, a_joiner
from tests.parts.exchange import eventually
from tests.parts.ledger import LEASE, NO_TIME, Door, claim, closing, finish, settlement
from tests.parts.valkey import PrivateValkey
from worker.job import ClaimId, JobId, Steering, Step
from worker.ledger.client import Ledger
from worker.ledger.restored import Restored


def uncompare(door: Door) -> None:
    door.redis.hdel(door.key("meta"), "compared")


def lost(name: str = "lost", *, attempts: int = 0, delay: timedelta = NO_TIME) -> Restored:
    job = a_job(name, account="default", deadline=None)._replace(attempts=attempts)
    return Restored(job=job, joiners=(), delay=delay)


def put_back(ledger: Ledger, *jobs: Restored) -> None:
    assert ledger.compare("me", LEASE)
    assert ledger.restore("me", LEASE, jobs) == len(jobs)
    assert ledger.compared("me")


def test_only_reads_are_given_out_before_the_comparison(door: Door, ledger: Ledger) -> None:
    read, post = door.enqueue(1)["jobId"], None
    claim(ledger)
    ledger.settle([settlement(read, step=Step.CONFIRM)])
    post = door.enqueue(2)["jobId"]
    uncompare(door)
    held = claim(ledger, "claim-2")
    assert ([job.id for job in held.jobs], held.held, held.due_left) == ([read], True, False)
    swept = ledger.sweep(NO_TIME)
    assert (swept.uncompared, swept.held, swept.due) == (True, True, 0)
    put_back(ledger)
    assert [job.id for job in claim(ledger, "claim-3").jobs] == [post]
    assert not ledger.sweep(NO_TIME).uncompared


def test_a_restarted_server_has_to_be_compared(
    private_valkey: PrivateValkey, make_ledger: Callable[[str, str], Ledger]
) -> None:
    ledger = make_ledger(private_valkey.url, "cancelq")
    assert not ledger.sweep(NO_TIME).uncompared
    private_valkey.kill()
    private_valkey.start()
    assert ledger.sweep(NO_TIME).uncompared


def test_nobody_waits_for_who_compared_on_a_server_that_died(
    private_valkey: PrivateValkey, make_ledger: Callable[[str, str], Ledger]
) -> None:
    ledger = make_ledger(private_valkey.url, "cancelq")
    for who in ("me", "you"):
        private_valkey.kill()
        private_valkey.start()
        assert ledger.compare(who, timedelta(minutes=1))
    assert not ledger.compare("me", LEASE)


def test_another_history_on_the_same_server_has_to_be_compared(
    private_valkey: PrivateValkey, make_ledger: Callable[[str, str], Ledger]
) -> None:
    """A master that becomes one again may have been filled by another in between."""
    ledger = make_ledger(private_valkey.url, "cancelq")
    with Redis.from_url(private_valkey.url) as redis:
        redis.replicaof("127.0.0.1", "1")
        redis.replicaof("NO", "ONE")
    assert ledger.sweep(NO_TIME).uncompared


def test_one_worker_compares_at_a_time(door: Door, ledger: Ledger) -> None:
    uncompare(door)
    assert ledger.compare("me", LEASE)
    assert not ledger.compare("you", LEASE)
    assert ledger.compare("me", timedelta(milliseconds=1))
    eventually(lambda: ledger.compare("you", LEASE), what="the end of a silent comparer's note")
    assert ledger.restore("me", LEASE, [lost()]) is None
    assert not ledger.compared("me")
    assert ledger.compared("you")
    assert not ledger.compare("you", LEASE)


def test_a_ledger_that_is_emptied_meanwhile_is_not_compared(door: Door, ledger: Ledger) -> None:
    uncompare(door)
    assert ledger.compare("me", LEASE)
    door.redis.delete(*door.all_keys())
    assert ledger.restore("me", LEASE, [lost()]) is None
    assert not ledger.compared("me")
    assert ledger.sweep(NO_TIME).uncompared


def test_the_time_of_a_comparison_is_counted_as_a_hold(door: Door, ledger: Ledger) -> None:
    uncompare(door)
    eventually(lambda: claim(ledger).logins["default"].held_back > 20_000, what="some time of hold")
    put_back(ledger)
    held_back = claim(ledger).logins["default"].held_back
    assert held_back > 20_000
    assert claim(ledger).logins["default"].held_back == held_back


def test_a_job_whose_answer_is_on_its_way_waits_for_a_lease(door: Door, ledger: Ledger) -> None:
    uncompare(door)
    put_back(ledger, lost("flying", attempts=1, delay=timedelta(minutes=1)), lost("waiting"))
    assert [job.id for job in claim(ledger).jobs] == ["waiting"]
    assert door.places("flying") == {"lapsed"}


@pytest.mark.parametrize("attempts", [0, 1])
def test_a_job_in_hand_or_as_far_as_the_audit_is_left_alone(
    door: Door, ledger: Ledger, attempts: int
) -> None:
    held = door.enqueue(123)["jobId"]
    claim(ledger)
    uncompare(door)
    assert ledger.compare("me", LEASE)
    assert ledger.restore("me", LEASE, [lost(held, attempts=1)]) == 0
    ledger.settle([settlement(held, step=Step.CONFIRM, fields={"attempts": str(attempts)})])
    assert ledger.restore("me", LEASE, [lost(held, attempts=attempts)]) == 0
    assert door.places(held) == {"confirm"}


def test_after_a_loss_nothing_is_posted_before_a_read(door: Door, ledger: Ledger) -> None:
    """What comes after the loss goes out at once."""
    early = door.enqueue(1)["jobId"]
    door.redis.hset(door.key("meta"), "compared", "another server")
    put_back(ledger)
    fresh = door.enqueue(2)["jobId"]
    found = [(job.id, job.step) for job in claim(ledger, "claim-1").jobs]
    assert found == [(fresh, Step.POST), (early, Step.RECONCILE)]
    ledger.settle([settlement(early, "claim-1")])
    assert [(job.id, job.step) for job in claim(ledger, "claim-2").jobs] == [(early, Step.POST)]


def test_where_nothing_was_lost_nothing_is_read_first(door: Door, ledger: Ledger) -> None:
    """A new ledger, whose first worker finds requests that it has on record already."""
    known = door.enqueue(1)["jobId"]
    uncompare(door)
    assert ledger.compare("me", LEASE)
    assert ledger.restore("me", LEASE, [lost(known)]) == 0
    assert ledger.compared("me")
    assert [(job.id, job.step) for job in claim(ledger).jobs] == [(known, Step.POST)]


@pytest.mark.parametrize("head", [(1, "digest"), (0, "")], ids=["a chain went on in it", "one began in it"])
def test_after_a_loss_beside_a_journal_the_read_comes_a_lease_later(
    door: Door, ledger: Ledger, head: tuple[int, str]
) -> None:
    """What was lost may have said that a holder is POSTing it just now; what comes after the loss goes out at once."""
    ledger.witness("writer", *head, "journal host 1")
    unclear, early, soon = (door.enqueue(order)["jobId"] for order in (1, 2, 3))
    claim(ledger)
    ledger.settle([settlement(unclear), settlement(early, step=Step.CONFIRM)])
    ledger.settle([settlement(soon, step=Step.CONFIRM, delay=LEASE)])
    door.redis.hset(door.key("meta"), "compared", "another server")
    assert [job.id for job in claim(ledger, "claim-2").jobs] == [early]
    put_back(ledger)
    door.redis.zadd(door.key("confirm"), {soon: 0})
    assert [job.id for job in claim(ledger, "claim-2").jobs] == [soon]
    ledger.settle(
        [settlement(job, "claim-2") for job in (early, soon)]
    )  # read too early: it counts for nothing
    fresh = door.enqueue(4)["jobId"]
    assert [job.id for job in claim(ledger, "claim-3").jobs] == [fresh]
    assert claim(ledger, "claim-4").jobs == ()
    doubtful = (unclear, early, soon)
    assert [door.places(job) for job in doubtful] == [{"confirm"}] * 3
    assert int(door.job(early)["next_at"]) == int(door.redis.hget(door.key("meta"), "loss_at")) + 30_000_000
    for job in doubtful:
        door.redis.zadd(door.key("confirm"), {job: 0})
    door.redis.hincrby(door.key("meta"), "loss_at", -30_000_000)
    read = claim(ledger, "claim-5")
    assert {(job.id, job.step) for job in read.jobs} == {(job, Step.RECONCILE) for job in doubtful}
    ledger.settle([settlement(job, "claim-5") for job in doubtful])
    assert [job.step for job in claim(ledger, "claim-6").jobs] == [Step.POST] * 3


def test_a_wish_that_joined_comes_back_to_a_job_that_is_still_there(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(123, deadline=60, requestId="first")["jobId"]
    known = a_joiner("kept", deadline=None)
    found = Restored(
        job=a_job(job_id, account="default"), joiners=(known, a_joiner("lost", deadline=None)), delay=NO_TIME
    )
    door.enqueue(123, deadline=90, requestId="kept")
    uncompare(door)
    assert ledger.compare("me", LEASE)
    assert [ledger.restore("me", LEASE, [found]) for _ in range(2)] == [1, 0]
    assert ledger.compared("me")
    told = door.status(jobId=job_id)
    assert (told["joiners"], told["deadline"], door.redis.zcard(door.key("deadlines"))) == (2, None, 0)
    assert door.enqueue(123, requestId="lost")["status"] == "duplicate"
    assert int(door.job(job_id)["first_deadline"]) > 0
    door.redis.hset(door.key(f"job:{job_id}"), "state", "closing")
    assert ledger.restore("", NO_TIME, [replace(found, joiners=(a_joiner("later", deadline=None),))]) == 0


def test_no_deadline_ends_a_cancel_before_the_comparison(door: Door, ledger: Ledger) -> None:
    """Who joined may have given it more time, and be lost."""
    job_id = door.enqueue(123, deadline=0)["jobId"]
    uncompare(door)
    ledger.sweep(NO_TIME)
    assert door.places(job_id) == {"due"}
    put_back(ledger)
    ledger.sweep(NO_TIME)
    assert door.places(job_id) == {"confirm"}


def test_the_newest_word_of_an_operator_is_in_force(door: Door, ledger: Ledger) -> None:
    earlier, later = (datetime.now(UTC) + timedelta(seconds=s) for s in (-9, 9))
    assert ledger.steer_again(earlier, earlier, draining=False)
    assert (ledger.survey().paused_at, claim(ledger).held) == (earlier, True)
    assert not ledger.steer_again(earlier, None, draining=True)  # told before
    ledger.steer(Steering.RESUME, action_id="a", by="me", because=None)
    assert not ledger.steer_again(earlier, earlier, draining=False)  # the ledger knows better
    assert ledger.steer_again(later, None, draining=True)
    assert (ledger.survey().paused, ledger.survey().draining) == (False, True)


def test_who_asks_again_waits_for_a_post_that_may_be_on_its_way(door: Door, ledger: Ledger) -> None:
    uncompare(door)
    later, apart = door.enqueue(123)["jobId"], door.enqueue(124)["jobId"]
    put_back(ledger, lost("flying", attempts=1, delay=timedelta(minutes=1)))
    assert [(job.id, job.step) for job in claim(ledger).jobs] == [(apart, Step.RECONCILE)]
    assert [job.id for job in claim(ledger, "claim-2").jobs] == []
    door.redis.hset(door.key(f"job:{later}"), "read_from", "0")  # as if the minute were over
    door.redis.zadd(door.key("confirm"), {later: 0})
    assert [(job.id, job.step) for job in claim(ledger, "claim-3").jobs] == [(later, Step.RECONCILE)]
    ledger.settle([settlement(later, "claim-3")])
    assert [(job.id, job.step) for job in claim(ledger, "claim-4").jobs] == [(later, Step.POST)]


def test_an_order_that_was_asked_for_again_has_one_post_in_flight(door: Door, ledger: Ledger) -> None:
    """The job that comes back reads the order, and is not POSTed before the later one has ended."""
    uncompare(door)
    later = door.enqueue(123)["jobId"]
    put_back(ledger, lost())
    first = claim(ledger, "claim-1", jobs=1)
    assert [(job.id, job.step) for job in first.jobs] == [("lost", Step.RECONCILE)]
    door.redis.hdel(door.key("meta"), "loss_at")  # as if that were long ago, and the later one read since
    assert [job.id for job in claim(ledger, "claim-2").jobs] == [later]
    ledger.settle([settlement("lost", "claim-1")])  # an open order was read: to be POSTed
    assert claim(ledger, "claim-3").jobs == ()
    assert (door.places("lost"), door.job("lost")["step"]) == ({"confirm"}, "reconcile")
    ledger.close([closing(later, "claim-2")])
    assert finish(ledger, later, "claim-2")
    ready = eventually(lambda: claim(ledger, "claim-4").jobs, what="the other one's turn")
    ledger.settle([settlement("lost", "claim-4")])
    assert [job.step for job in ready] == [Step.RECONCILE]
    assert [job.step for job in claim(ledger, "claim-5").jobs] == [Step.POST]
    again = door.enqueue(123)
    assert (again["status"], again["jobId"]) == ("joined", "lost")
    assert ledger.renew(LEASE, [(JobId("lost"), ClaimId("claim-5"))]) == frozenset()
