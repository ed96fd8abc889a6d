"""Pause, drain, resume, sign-on: what the ledger does with itself, seen through bare calls."""

from datetime import timedelta
from itertools import count

import pytest

from tests.parts.exchange import eventually
from tests.parts.ledger import NO_TIME, Door, claim, claimed_ids, finish, lock_out, settlement
from worker.clock import utc_now
from worker.errors import ConfigError, Refused
from worker.job import ClaimId, JobId, Outcome, Steering, Step
from worker.ledger.client import Ledger, Post
from worker.ledger.encoding import Survey
from worker.ledger.receipt import write_letter
from worker.ledger.words import Standing

EXCHANGE = "http://127.0.0.1:1/v1"
NUMBERS = count()
HOUR = timedelta(hours=1)


def steer(ledger: Ledger, kind: Steering, because: str | None = None) -> Survey:
    return ledger.steer(kind, action_id=f"action-{next(NUMBERS)}", by="alice", because=because)


# --- pause


def test_a_pause_holds_back_posts_and_lets_reads_go_on(door: Door, ledger: Ledger) -> None:
    read = door.enqueue(1)["jobId"]
    claim(ledger)
    ledger.settle([settlement(read, step=Step.RECONCILE)])
    normal, urgent = door.enqueue(2)["jobId"], door.enqueue(3, priority="urgent")["jobId"]
    survey = steer(ledger, Steering.PAUSE)
    assert (survey.paused, survey.open) == (True, 3)
    paused = claim(ledger, "claim-2")
    assert ([job.id for job in paused.jobs], paused.held, paused.due_left) == ([read], True, False)
    assert ledger.sweep(NO_TIME).due == 0
    steer(ledger, Steering.RESUME)
    assert claimed_ids(ledger, "claim-3") == [urgent, normal]


def test_a_job_whose_holder_died_in_a_pause_is_read_in_it(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger, lease=NO_TIME)
    steer(ledger, Steering.PAUSE)
    eventually(lambda: ledger.sweep(NO_TIME).lapsed == 1, what="the lapse")
    (job,) = claim(ledger, "claim-2").jobs
    assert (job.id, job.step) == (job_id, Step.RECONCILE)


def test_a_deadline_that_passes_in_a_pause_sends_the_job_to_its_proof(door: Door, ledger: Ledger) -> None:
    steer(ledger, Steering.PAUSE)
    job_id = door.enqueue(1, deadline=0.05)["jobId"]
    door.enqueue(2, deadline=60)
    eventually(lambda: ledger.sweep(NO_TIME).due == 1, what="the deadline")
    assert door.places(job_id) == {"confirm"}
    (job,) = claim(ledger).jobs
    assert (job.id, job.step) == (job_id, Step.CONFIRM)


def test_a_deadline_that_a_joiner_moved_is_the_one_that_counts(door: Door, ledger: Ledger) -> None:
    later, never = door.enqueue(1, deadline=0.01)["jobId"], door.enqueue(2, deadline=0.01)["jobId"]
    door.enqueue(1, deadline=60)
    door.enqueue(2)
    passed = door.enqueue(3, deadline=0.02)["jobId"]
    eventually(lambda: ledger.sweep(NO_TIME) and door.places(passed) == {"confirm"}, what="the deadline")
    assert door.places(later) == door.places(never) == {"due"}
    assert door.redis.zrange(door.key("deadlines"), 0, -1) == [later]


def standing(ledger: Ledger) -> Standing:
    return claim(ledger).logins["default"]


def test_the_time_of_a_pause_is_counted_without_the_lock_out_in_it(door: Door, ledger: Ledger) -> None:
    assert standing(ledger).held_back == 0
    steer(ledger, Steering.PAUSE)
    lock_out(ledger, timedelta(milliseconds=200))
    first = eventually(lambda: (c := standing(ledger)).stood_still and c, what="the lock-out")
    assert first.held_back < 100_000
    ended = eventually(lambda: (c := standing(ledger)).held_back > 300_000 and c, what="some time of pause")
    assert ended.stood_still == 200_000
    swept = ledger.sweep(NO_TIME)
    paused_for = (swept.now - ledger.survey().paused_at) // timedelta(microseconds=1)
    assert standing(ledger).held_back - (paused_for - 200_000) in range(
        200_000
    )  # the time between the two calls
    after = steer(ledger, Steering.RESUME)
    assert not after.paused
    kept = standing(ledger).held_back
    assert kept >= ended.held_back
    assert standing(ledger).held_back == kept


def test_a_deadline_that_passes_while_the_job_is_in_hand_is_seen_to_when_it_comes_back(
    door: Door, ledger: Ledger
) -> None:
    job_id = door.enqueue(1, deadline=0.01)["jobId"]
    claim(ledger)
    passed = door.enqueue(2, deadline=0.02)["jobId"]
    eventually(lambda: ledger.sweep(NO_TIME) and door.places(passed) == {"confirm"}, what="the deadline")
    ledger.settle([settlement(job_id, delay=HOUR)])
    eventually(lambda: ledger.sweep(NO_TIME) and door.places(job_id) == {"confirm"}, what="the proof of both")


# --- drain


def test_a_drained_ledger_takes_no_new_request_and_finishes_what_is_open(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1, requestId="r")["jobId"]
    assert steer(ledger, Steering.DRAIN).draining
    for refused in (door.enqueue(2), door.enqueue(1)):
        assert refused["status"] == "refused"
        assert "drained" in refused["error"]
    assert door.enqueue(1, requestId="r")["status"] == "duplicate"
    assert not ledger.sweep(NO_TIME).drained
    claim(ledger)
    assert not ledger.sweep(NO_TIME).drained
    assert ledger.survey().posting == 1
    assert finish(ledger, job_id)
    assert ledger.sweep(NO_TIME).drained
    assert steer(ledger, Steering.RESUME).open == 0
    assert not ledger.sweep(NO_TIME).drained
    assert door.enqueue(2)["status"] == "accepted"


def test_a_paused_ledger_cannot_be_drained(ledger: Ledger) -> None:
    steer(ledger, Steering.PAUSE)
    with pytest.raises(Refused, match="resume"):
        steer(ledger, Steering.DRAIN)
    assert not ledger.survey().draining


# --- who did it


def test_every_action_is_kept_until_the_audit_has_it(ledger: Ledger) -> None:
    steer(ledger, Steering.PAUSE, because='a "test"')
    steer(ledger, Steering.RESUME)
    pause, resume = sorted(ledger.actions(), key=lambda action: action.at)
    assert (pause.kind, pause.by, pause.because) == (Steering.PAUSE, "alice", 'a "test"')
    assert (resume.kind, resume.because) == (Steering.RESUME, None)
    ledger.actions_recorded([pause.id])
    assert ledger.actions() == [resume]


def test_actions_that_nobody_records_do_not_grow_without_end(door: Door, ledger: Ledger) -> None:
    door.redis.hset(door.key("actions"), mapping={f"a{n}": "{}" for n in range(1000)})
    with pytest.raises(Refused, match="start a worker"):
        steer(ledger, Steering.PAUSE)
    assert not ledger.survey().paused
    door.redis.hset(door.key("meta"), "draining", "1")
    assert not steer(ledger, Steering.RESUME).draining  # nobody is locked out


def test_what_changes_nothing_is_not_recorded_and_a_pause_counts_from_its_beginning(ledger: Ledger) -> None:
    first = steer(ledger, Steering.PAUSE)
    assert steer(ledger, Steering.PAUSE).paused_at == first.paused_at
    steer(ledger, Steering.RESUME)
    steer(ledger, Steering.RESUME)
    assert len(ledger.actions()) == 2


@pytest.mark.parametrize("by", ["", "x" * 129])
def test_an_action_needs_a_name_of_some_length(ledger: Ledger, by: str) -> None:
    with pytest.raises(Refused, match="1 to 128 bytes"):
        ledger.steer(Steering.PAUSE, action_id="a", by=by, because=None)
    assert not ledger.survey().paused


def test_an_action_that_is_none_is_refused(door: Door) -> None:
    assert "must be pause, drain or resume" in door.redis.fcall(
        "cancelq_steer", 1, door.prefix, "stop", "id", "alice", ""
    )


# --- whose ledger it is


def test_the_first_worker_stamps_the_ledger(ledger: Ledger) -> None:
    ledger.sign_on(Post(exchange=EXCHANGE))
    ledger.sign_on(Post(exchange=EXCHANGE))
    assert ledger.survey().exchange == EXCHANGE
    with pytest.raises(ConfigError, match=f"belongs to the exchange {EXCHANGE}"):
        ledger.sign_on(Post(exchange="https://live.tradovateapi.com/v1"))


@pytest.mark.parametrize("dry_run", [False, True])
def test_dry_and_real_workers_do_not_share_a_ledger(ledger: Ledger, *, dry_run: bool) -> None:
    first, second = (Post(exchange=EXCHANGE, worker=name, dry_run=not dry_run) for name in ("a", "b"))
    here = Post(exchange=EXCHANGE, worker="c", dry_run=dry_run)
    ledger.sign_on(first)
    ledger.sign_on(second)
    ledger.sign_off(first)
    with pytest.raises(ConfigError, match="CANCELQ_DRY_RUN"):
        ledger.sign_on(here)
    ledger.sign_off(second)
    ledger.sign_on(here)


def test_a_real_worker_at_work_stays_and_the_dry_one_beside_it_leaves(door: Door, ledger: Ledger) -> None:
    dry = Post(exchange=EXCHANGE, worker="dry", dry_run=True)
    ledger.sign_on(dry)
    ledger.sign_on(Post(exchange=EXCHANGE, worker="real"), at_work=True)
    with pytest.raises(ConfigError, match="CANCELQ_DRY_RUN"):
        ledger.sign_on(dry, at_work=True)
    assert [name.split()[0] for name in door.redis.zrange(door.key("workers"), 0, -1)] == ["dry", "real"]


def test_to_look_whose_ledger_it_is_stamps_nothing(ledger: Ledger) -> None:
    ledger.require_owner(EXCHANGE)
    assert ledger.survey().exchange is None
    ledger.sign_on(Post(exchange=EXCHANGE))
    with pytest.raises(ConfigError, match="belongs to the exchange"):
        ledger.require_owner("https://live.tradovateapi.com/v1")


# --- redrive


def test_a_redriven_job_is_read_before_it_is_sent(door: Door, ledger: Ledger) -> None:
    receipt = ledger.redrive(write_letter({"order_id": 1, "priority": "urgent"}), JobId("old"))
    (job,) = claim(ledger).jobs
    assert (job.id, job.step, job.redrive_of) == (receipt.job_id, Step.RECONCILE, "old")
    assert door.status(orderId=1)["state"] == "reconciling"


# --- alerts


def test_an_alert_is_kept_only_while_somebody_delivers(door: Door, ledger: Ledger) -> None:
    lock_out(ledger, timedelta(milliseconds=1))
    assert ledger.next_alert(HOUR) is None
    ledger.sign_on(Post(exchange=EXCHANGE, alerts=True))
    eventually(lambda: not ledger.survey().locked_out_until, what="the end of the lock-out")
    lock_out(ledger, timedelta(seconds=1))
    lock_out(ledger, timedelta(seconds=2))
    alert = ledger.next_alert(HOUR)
    assert alert is not None
    assert '"event":"locked_out"' in alert
    assert ledger.next_alert(HOUR) is None
    ledger.alerted(alert)
    assert not {door.key("alerts"), door.key("alert_tries")} & door.all_keys()


def test_an_end_that_is_recorded_twice_is_told_once(door: Door, ledger: Ledger) -> None:
    ledger.sign_on(Post(exchange=EXCHANGE, alerts=True))
    job_id = JobId(door.enqueue(1)["jobId"])
    claim(ledger)
    end = (job_id, ClaimId("claim-1"), Outcome.REFUSED, "reply TradingLocked", utc_now())
    assert ledger.finish([end]) == [True]
    alert = ledger.next_alert(HOUR)
    assert alert is not None
    ledger.alerted(alert)
    ledger.finish([end])
    assert ledger.next_alert(HOUR) is None


def test_an_alert_that_nobody_takes_is_given_up(door: Door, ledger: Ledger) -> None:
    ledger.sign_on(Post(exchange=EXCHANGE, alerts=True))
    lock_out(ledger, timedelta(seconds=1))
    tries = sum(ledger.next_alert(NO_TIME) is not None for _ in range(30))
    assert tries == 20
    assert not {door.key("alerts"), door.key("alert_tries")} & door.all_keys()
