"""What makes a process reach each gap and kills it there: one scene a gap; a worker has twelve orders of many kinds."""

import json
import signal
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

from redis import Redis

from tests.parts.databases import database_taking_no_rows, empty_database_beside
from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet
from tests.parts.kills import assert_nothing_lost
from tests.parts.receiver import receiving
from tests.parts.understudy import Doom
from worker.audit.schema import head
from worker.gaps import Gap
from worker.job import Steering
from worker.ledger.receipt import Fate
from worker.ledger.spool import Spool
from worker.ledger.words import Rules

ORDERS = range(1001, 1013)
# The shortest there is: what a killed worker held is taken over a second later.
QUICK = {"lease": "1", "concurrency": "4"}
# A right to ask for a token lapses two seconds after the longest call.
LOGIN = {
    "username": "alice",
    "password": "pw",
    "connect_timeout": "1",
    "read_timeout": "1",
    "total_timeout": "1",
}
A_DAY = timedelta(days=1)
A_MOMENT = timedelta(0)

Step = dict[str, Any]
Scene = Callable[[Gap, Fleet], None]

POSTS: dict[int, Step] = {
    1002: {"reason": "AnotherCommandPending"},
    1003: {"reason": "RiskCheckTimeout"},
    1004: {"reason": "AnotherCommandPending", "repeat": 2},
    1005: {"delay": 0.8},
    1006: {"delay": 0.4, "effect": "after", "effect_delay": 0},
    1007: {"drop": "after"},
    1008: {"fill_first": True},
    1009: {"fill_after": True},
    1010: {"drip": {"bytes_per_second": 200, "part": "body"}},
    1011: {"partial_fill": 1},
}
SLOW = 1005


def set_up(fleet: Fleet, last: Step | None = None) -> None:
    """Twelve orders on the book, and a ledger that takes requests before any worker is there.

    `last` is what the POST of the last order meets.
    """
    fleet.exchange.add_orders(*ORDERS, account="default")
    for order, step in (POSTS | {ORDERS[-1]: last or {}}).items():
        fleet.exchange.script(order, step)
    fleet.ledger_client().prepare(Rules(dedupe_life=A_DAY))


def enqueue(fleet: Fleet, *orders: int) -> None:
    """A cancel of each, and another one that joins it."""
    wishes = [{"order_id": order} for order in (*orders, *orders)]
    fates = [receipt.status for receipt in fleet.queue().cancel_many(wishes)]
    assert fates == [Fate.ACCEPTED] * len(orders) + [Fate.JOINED] * len(orders)


def at_work(gap: Gap, fleet: Fleet, *, nth: int = 1, last: Step | None = None, **settings: str) -> None:
    """Reached by a worker that has twelve cancels to do."""
    set_up(fleet, last)
    enqueue(fleet, *ORDERS)
    fleet.die_at(Doom(gap, nth), **QUICK | settings)


def in_the_commit_after(earlier: Gap, gap: Gap, fleet: Fleet) -> None:
    """Reached by the rows that follow upon an earlier gap: of one cancel, so that no others are in the batch."""
    set_up(fleet)
    enqueue(fleet, ORDERS[0])
    fleet.die_at(Doom(gap, after=earlier), **QUICK)
    enqueue(fleet, *ORDERS[1:])


def while_paused(gap: Gap, fleet: Fleet) -> None:
    """Reached beside the path, while nothing may be claimed: the first attempt's row would bring the job's with it."""
    set_up(fleet)
    enqueue(fleet, *ORDERS)
    steer(fleet, Steering.PAUSE)
    fleet.die_at(Doom(gap), **QUICK)
    steer(fleet, Steering.RESUME)


def steer(fleet: Fleet, kind: Steering) -> None:
    fleet.ledger_client().steer(kind, action_id=str(uuid4()), by="test", because="a scene")


def after_another_kill(gap: Gap, fleet: Fleet) -> None:
    """Reached only by who takes over from a worker that was killed."""
    at_work(Gap.REQUEST_SENT, fleet)
    fleet.die_at(Doom(gap), **QUICK)


def asked_to_end(gap: Gap, fleet: Fleet) -> None:
    """Reached by a worker that ends in good order, until it is killed."""
    set_up(fleet)
    enqueue(fleet, *ORDERS)
    victim = fleet.fork(doom=Doom(gap), **QUICK)
    fleet.exchange.wait_for_posts(1, SLOW)
    victim.signal(signal.SIGTERM)
    victim.meet(Doom(gap))


def overtaken(gap: Gap, fleet: Fleet) -> None:
    """Reached by a worker that was frozen for longer than its lease while its answer came."""
    set_up(fleet)
    fleet.exchange.script(SLOW, {"delay": 1.5})
    enqueue(fleet, SLOW)
    slow = QUICK | {"read_timeout": "20", "total_timeout": "30"}
    victim = fleet.fork(doom=Doom(gap), **slow)
    fleet.exchange.wait_for_posts(1, SLOW)
    # Frozen inside a commit it would hold SQLite's lock: this one is its last.
    eventually(lambda: not fleet.ledger_client().unregistered(1, A_MOMENT), what="a job on record")
    victim.signal(signal.SIGSTOP)
    enqueue(fleet, *(order for order in ORDERS if order != SLOW))
    other = fleet.fork(**QUICK)
    eventually(lambda: lost(fleet, SLOW), seconds=20, what="an attempt that was written off")
    eventually(lambda: fleet.exchange.requests(SLOW)[0]["fate"] == "answered", what="the late answer")
    victim.signal(signal.SIGCONT)
    victim.meet(Doom(gap))
    other.kill()


def with_an_alert(gap: Gap, fleet: Fleet, *, sent: int) -> None:
    """Reached once a lock-out is to be told; the alert is still in the ledger, whether it was sent or not."""
    with receiving() as receiver:
        url, told = receiver.url, receiver.alerts
        at_work(gap, fleet, last={"status": 429}, lockout="1", alert_url=url)
    assert told.qsize() == sent
    with Redis.from_url(fleet.redis_url) as redis:
        assert redis.zcard(f"{{{fleet.ledger}}}:alerts") == 1


def while_the_database_is_away(gap: Gap, fleet: Fleet) -> None:
    """Reached by a worker that meets an outage, and goes on through its journal."""
    set_up(fleet)
    victim = fleet.fork(doom=Doom(gap), **QUICK).when_ready()
    fleet.when_compared()
    with database_taking_no_rows(fleet.database_url):
        enqueue(fleet, *ORDERS)
        victim.meet(Doom(gap))


def once_the_database_is_back(gap: Gap, fleet: Fleet) -> None:
    """Reached by the worker that carries over what its journal keeps."""
    set_up(fleet)
    victim = fleet.fork(doom=Doom(gap), **QUICK).when_ready()
    fleet.when_compared()
    with database_taking_no_rows(fleet.database_url):
        enqueue(fleet, *ORDERS)
        eventually(lambda: "audit.journaling" in victim.said(), seconds=30, what="a journal in use")
    victim.meet(Doom(gap))


def bringing_an_attempt_after_its_end(gap: Gap, fleet: Fleet) -> None:
    """Reached by who carries over an attempt of a killed worker, whose job another host has ended meanwhile."""
    set_up(fleet)
    fleet.exchange.script(SLOW, {"delay": 10})  # the worker dies before it has an answer
    lost = fleet.fork(**QUICK).when_ready()
    fleet.when_compared()
    with database_taking_no_rows(fleet.database_url):
        enqueue(fleet, SLOW)
        fleet.exchange.wait_for_posts(1, SLOW)
        lost.kill()
    enqueue(fleet, *(order for order in ORDERS if order != SLOW))
    elsewhere = fleet.fork(home=str(fleet.folder / "elsewhere"), **QUICK)
    fleet.ends(len(ORDERS))
    elsewhere.kill()
    assert fleet.attempts(SLOW) == []
    fleet.die_at(Doom(gap), **QUICK)
    assert fleet.attempts(SLOW)[0]["verdict"] is None
    fleet.fork(**QUICK)  # nothing is left to be carried over
    eventually(lambda: fleet.attempts(SLOW)[0]["verdict"], seconds=20, what="a verdict of the late attempt")


def asking_for_a_token(gap: Gap, fleet: Fleet) -> None:
    """Reached by who asks for the fleet's token; another worker asks again once that right has lapsed."""
    at_work(gap, fleet, **LOGIN)
    logins = fleet.exchange.auth_counts()["logins"]
    assert logins == (0 if gap is Gap.GRANT_DUE else 1)
    other = fleet.fork(**QUICK | LOGIN)
    eventually(lambda: "token.taken" in other.said(), seconds=20, what="a token")
    assert fleet.exchange.auth_counts()["logins"] == (2 if gap is Gap.GRANTED else 1)


def after_a_loss(gap: Gap, fleet: Fleet) -> None:
    """Reached by who meets a ledger that was emptied while nobody was there."""
    set_up(fleet)
    enqueue(fleet, *ORDERS)
    steer(fleet, Steering.PAUSE)
    registrar = fleet.fork(**QUICK)
    eventually(lambda: len(fleet.table("requests")) == len(ORDERS), seconds=20, what="all jobs on record")
    registrar.kill()
    with Redis.from_url(fleet.redis_url) as redis:
        redis.delete(*redis.scan_iter(f"{{{fleet.ledger}}}*"))
    fleet.die_at(Doom(gap), **QUICK)
    steer(fleet, Steering.RESUME)  # the pause is on record, and would be put back as well


def lost(fleet: Fleet, order: int) -> bool:
    return [row["error"] for row in fleet.attempts(order)] == ["worker lost"]


# Start row, reply row, verdict, outcome.
EACH_COMMIT = tuple(
    partial(in_the_commit_after, gap) for gap in (Gap.START_DUE, Gap.ANSWERED, Gap.DECIDED, Gap.CLOSED)
)
SCENES: dict[Gap, tuple[Scene, ...]] = {
    Gap.BELL_TAKEN: (at_work,),
    Gap.CLAIMED: (partial(at_work, nth=2),),
    Gap.START_DUE: (partial(at_work, nth=3),),
    Gap.START_ON_DISK: (partial(at_work, nth=2),),
    Gap.PERMITTED: (partial(at_work, nth=2),),
    Gap.REQUEST_DUE: (at_work,),
    Gap.REQUEST_SENT: (partial(at_work, nth=2),),
    Gap.ANSWER_HALF_READ: (at_work,),
    Gap.ANSWERED: (partial(at_work, nth=3),),
    Gap.REPLY_ON_DISK: (partial(at_work, nth=2),),
    Gap.RETRY_IN_HAND: (partial(at_work, concurrency="32"),),
    Gap.LATE_REPLY_DUE: (overtaken,),
    Gap.DECIDED: (partial(at_work, nth=2),),
    Gap.VERDICT_ON_DISK: (partial(at_work, nth=2),),
    Gap.LOCK_OUT_SET: (partial(at_work, last={"status": 429}, lockout="1"),),
    Gap.SETTLED: (at_work,),
    Gap.STORY_READ: (after_another_kill,),
    Gap.ORDER_READ: (at_work,),
    Gap.COMMANDS_READ: (partial(at_work, last={"drop": "before"}),),
    Gap.REPORTS_READ: (partial(at_work, last={"late_reject": True, "quiet": True}),),
    Gap.FILLS_READ: (at_work,),
    Gap.CLOSED: (at_work,),
    Gap.OUTCOME_ON_DISK: (partial(at_work, nth=2),),
    Gap.FINISHED: (at_work,),
    Gap.BATCH_DUE: EACH_COMMIT,
    Gap.BATCH_ON_DISK: EACH_COMMIT,
    Gap.JOURNAL_TOLD: (while_the_database_is_away,),
    Gap.JOURNAL_DUE: (while_the_database_is_away,),
    Gap.JOURNAL_ON_DISK: (while_the_database_is_away,),
    Gap.CARRIED: (once_the_database_is_back,),
    Gap.JOURNAL_CLEARED: (once_the_database_is_back,),
    Gap.LEFT_OPEN: (bringing_an_attempt_after_its_end,),
    Gap.RENEWED: (at_work,),
    Gap.SWEPT: (partial(at_work, nth=2),),
    Gap.UNREGISTERED_READ: (while_paused,),
    Gap.REGISTERED_ON_DISK: (while_paused,),
    Gap.ACTION_ON_DISK: (while_paused,),
    Gap.WITNESS_DUE: (at_work,),
    Gap.COMPARISON_BEGUN: (after_a_loss,),
    Gap.PUT_BACK: (after_a_loss,),
    Gap.ALERT_TAKEN: (partial(with_an_alert, sent=0),),
    Gap.ALERT_SENT: (partial(with_an_alert, sent=1),),
    Gap.GRANT_DUE: (asking_for_a_token,),
    Gap.GRANTED: (asking_for_a_token,),
    Gap.SHELVED: (asking_for_a_token,),
    Gap.SIGNED_ON: (at_work,),
    Gap.SENDERS_ENDED: (asked_to_end,),
}


# What a death at the gap proves: at least so many rows of a table were on disk before it.
ON_DISK: dict[Gap, tuple[str, int]] = {
    Gap.START_ON_DISK: ("starts", 2),
    Gap.PERMITTED: ("starts", 2),
    Gap.REQUEST_DUE: ("starts", 1),
    Gap.REQUEST_SENT: ("starts", 2),
    Gap.ANSWERED: ("starts", 3),
    Gap.REPLY_ON_DISK: ("replies", 2),
    Gap.RETRY_IN_HAND: ("replies", 1),
    Gap.DECIDED: ("replies", 2),
    Gap.VERDICT_ON_DISK: ("verdicts", 2),
    Gap.LOCK_OUT_SET: ("verdicts", 1),
    Gap.SETTLED: ("verdicts", 1),
    Gap.FILLS_READ: ("verdicts", 1),
    Gap.CLOSED: ("reads", 1),
    Gap.OUTCOME_ON_DISK: ("outcomes", 2),
    Gap.FINISHED: ("outcomes", 1),
    Gap.CARRIED: ("starts", 1),
    Gap.JOURNAL_CLEARED: ("starts", 1),
    Gap.REGISTERED_ON_DISK: ("jobs", len(ORDERS)),
    Gap.ACTION_ON_DISK: ("actions", 1),
    Gap.BATCH_ON_DISK: ("jobs", 1),
}


# --- commands


def ask(gap: Gap, fleet: Fleet) -> None:
    """A producer that died before it knew asks again under the same request id."""
    fleet.exchange.add_orders(1)
    fleet.ledger_client().prepare(Rules(dedupe_life=A_DAY))
    request = ("enqueue", "1", "--request-id", "mine")
    fleet.die_at(Doom(gap), *request)
    assert json.loads(fleet.run(*request).stdout)["status"] == Fate.DUPLICATE
    fleet.fork()
    assert_nothing_lost(fleet, 1)


def forget(gap: Gap, fleet: Fleet) -> None:
    """Whoever dies while it empties a spool leaves one that later requests can be kept in."""
    fleet.exchange.add_orders(1, 2, 3)
    fleet.ledger_client().prepare(Rules(dedupe_life=A_DAY))
    path, nobody = fleet.folder / "spool", "redis://127.0.0.1:1/0"

    def kept(*orders: int) -> None:
        for order in orders:
            told = fleet.run("enqueue", str(order), "--spool", str(path), redis_url=nobody)
            assert json.loads(told.stdout)["status"] == Fate.SPOOLED

    kept(1, 2)
    spool = Spool(path, fleet.ledger)
    spool.drop(spool.read()[0].end)  # the first one was sent on before
    fleet.die_at(Doom(gap), "enqueue", "--spool", str(path))
    kept(3)
    sent = fleet.run("enqueue", "--spool", str(path)).stdout.splitlines()
    assert [json.loads(line)["orderId"] for line in sent][-1] == 3
    fleet.queue().cancel(order_id=1)
    fleet.fork()
    assert_nothing_lost(fleet, 3)


def keep(gap: Gap, fleet: Fleet) -> None:
    """A request in a spool is sent on by whoever comes next; one that was sent before is a duplicate."""
    fleet.exchange.add_orders(1)
    fleet.ledger_client().prepare(Rules(dedupe_life=A_DAY))
    spool = ("--spool", str(fleet.folder / "spool"))
    request, nobody = ("enqueue", "1", *spool), "redis://127.0.0.1:1/0"
    if gap is Gap.SPOOLED:
        fleet.die_at(Doom(gap), *request, redis_url=nobody)
    else:
        assert json.loads(fleet.run(*request, redis_url=nobody).stdout)["status"] == Fate.SPOOLED
        fleet.die_at(Doom(gap), "enqueue", *spool)
    sent = json.loads(fleet.run("enqueue", *spool).stdout)
    assert sent["status"] == (Fate.ACCEPTED if gap is Gap.SPOOLED else Fate.DUPLICATE)
    fleet.fork()
    assert_nothing_lost(fleet, 1)


def migrate(gap: Gap, fleet: Fleet) -> None:
    """A migration that died half-way is done by running it again."""
    fleet.database_url = empty_database_beside(fleet.database_url)
    fleet.die_at(Doom(gap), "migrate")
    done = fleet.run("migrate")
    assert (done.returncode, f"schema is at {head()}" in done.stderr) == (0, True), done.stderr
    fleet.exchange.add_orders(1)
    fleet.queue().cancel(order_id=1)
    fleet.fork()
    assert_nothing_lost(fleet, 1)


def resolve(gap: Gap, fleet: Fleet) -> None:
    """A finding is recorded whole or not at all, and may be recorded again."""
    job_id = ended_badly(fleet, {"reason": "RiskCheckTimeout", "repeat": 50})
    words = ("resolve", job_id, "--as", "gone", "--by", "alice", "--because", "seen in the blotter")
    fleet.die_at(Doom(Gap.BATCH_DUE), *words)
    assert fleet.table("findings") == []
    fleet.die_at(Doom(gap), *words)
    assert [row["job_id"] for row in fleet.table("findings")] == [job_id]
    assert fleet.run(*words).returncode == 0
    assert_nothing_lost(fleet, 1)


def redrive(gap: Gap, fleet: Fleet) -> None:
    """Whoever asks again, because nobody told the new job's id, does not make another one."""
    job_id = ended_badly(fleet, {"reason": "TradingLocked"})
    fleet.die_at(Doom(gap), "redrive", job_id)
    said = json.loads(fleet.run("redrive", job_id).stdout)
    again = said.get("status") == Fate.JOINED or "redriven already" in said["error"]
    assert again, said
    fleet.ends(1)
    eventually(lambda: len(fleet.view("audit_jobs")) == 2, what="the row of the new job")
    (new,) = [row for row in fleet.view("audit_jobs") if row["redrive_of"] == job_id]
    assert fleet.wait_for_end(new["job_id"])["outcome"] == "canceled"
    assert fleet.fault_of_audit() is None


def cancel_all(gap: Gap, fleet: Fleet) -> None:
    """Who died in the midst of a mass cancel starts it again: the same one goes on, and no order is asked for twice."""
    fleet.exchange.add_orders(*range(1, 6), account="A")
    fleet.ledger_client().prepare(Rules(dedupe_life=A_DAY))
    fleet.fork()
    words = ("cancel-all", "--account", "A")
    fleet.die_at(Doom(gap), *words)
    sheet = json.loads(fleet.run(*words).stdout)
    ended = gap is Gap.MASS_ENDED
    assert (sheet["result"], sheet["resumed"], sheet["seen"]) == ("none_left", not ended, 0 if ended else 5)
    assert_nothing_lost(fleet, 5)
    assert len(fleet.view("audit_jobs")) == 5
    # A worker carries what the ledger has on record to SQL in its own time: the end comes last.
    eventually(
        lambda: actions(fleet, "cancel_all_end") == 1 + ended, what="the end of the mass cancel on record"
    )
    assert actions(fleet, "cancel_all") == 1 + ended


def actions(fleet: Fleet, name: str) -> int:
    return sum(row["action"] == name for row in fleet.view("audit_actions"))


def ended_badly(fleet: Fleet, step: Step) -> str:
    """The job of a cancel that a worker brought to a bad end; the worker stays."""
    fleet.exchange.add_orders(1)
    fleet.exchange.script(1, step)
    fleet.fork(retry_budget="1", confirm_budget="1")
    fleet.queue().cancel(order_id=1)
    job_id: str = fleet.ends(1)[1]["job_id"]
    return job_id


COMMANDS: dict[Gap, tuple[Scene, ...]] = {
    Gap.ENQUEUE_SENT: (ask,),
    Gap.SPOOLED: (keep,),
    Gap.SPOOL_SENT: (keep,),
    Gap.SPOOL_POINTED: (forget,),
    Gap.SCHEMA_STEP_DONE: (migrate,),
    Gap.SCHEMA_ON_DISK: (migrate,),
    Gap.FINDING_ON_DISK: (resolve,),
    Gap.REDRIVEN: (redrive,),
    Gap.MASS_BEGUN: (cancel_all,),
    Gap.MASS_NOTED: (cancel_all,),
    Gap.MASS_SENT: (cancel_all,),
    Gap.MASS_ENDED: (cancel_all,),
}
