"""Redis dies, or comes back emptied or in the past: what the audit knows decides. Nothing is lost, nothing sent unread.

The scenes are nearly all waiting: they play at once, each on a server, a database and an exchange of its own.
"""

import re
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis

from tests.parts.cancels import an_outcome, record
from tests.parts.databases import migrated
from tests.parts.exchange import eventually, running_exchange
from tests.parts.fleet import Fleet
from tests.parts.kills import assert_ledger_at_rest, assert_nothing_lost
from tests.parts.ledger import claimed_ids, settle_in, settlement
from tests.parts.valkey import Server
from worker.audit.engine import open_engine
from worker.job import Outcome, Step

# Some end before the loss, some wait for another try across it, some were sent and not answered.
ORDERS = range(1, 25)
QUICK = {"lease": "1", "concurrency": "4"}
COMPARED = re.compile(r"ledger\.compared.*?\bput_back\W+(?:\x1b\[\d+m)*(\d+)")


@dataclass
class Stage:
    """A fleet at work on a server of its own."""

    fleet: Fleet
    server: Server

    def redis(self) -> "Redis":
        return self.fleet.closing.enter_context(Redis.from_url(self.server.url, decode_responses=True))

    def set_to_work(self) -> None:
        """Two requests for each order."""
        fleet = self.fleet
        fleet.exchange.defaults(latency=0.05)
        fleet.exchange.add_orders(*ORDERS, account="default")
        for order in ORDERS:
            if order % 3 == 0:
                fleet.exchange.script(order, {"reason": "ExecutionProviderUnavailable"})
            if order % 5 == 0:
                fleet.exchange.script(order, {"drop": "after"})
        for _ in range(2):
            fleet.fork(**QUICK).when_ready()
        self.enqueue(ORDERS[: len(ORDERS) // 2])

    def enqueue(self, orders: range) -> None:
        wishes = [{"order_id": order, "deadline": 3600} for order in orders]
        receipts = self.fleet.queue().cancel_many([*wishes, *({"order_id": order} for order in orders)])
        assert {receipt.status for receipt in receipts} == {"accepted", "joined"}

    def wait_until_recorded(self) -> set[int]:
        """All requests are in SQL; the orders whose cancels have ended already."""
        fleet = self.fleet
        for table in ("jobs", "requests"):
            eventually(
                lambda table=table: len(fleet.table(table)) == len(ORDERS),
                seconds=30,
                what=f"all {table} on record",
            )
        return set(fleet.ends(len(ORDERS) // 3))

    def comparisons(self) -> list[int]:
        """How many jobs came back in each: 0 for a new ledger, and for a server that got its first replica."""
        return [int(n) for worker in self.fleet.workers for n in COMPARED.findall(worker.said())]

    def after(self, loss: Callable[[], None]) -> int:
        """How many jobs came back once the server was compared again."""
        before = self.comparisons()
        loss()
        eventually(lambda: len(self.comparisons()) > len(before), seconds=20, what="a comparison")
        return sum(self.comparisons()) - sum(before)

    def posts(self, orders: set[int]) -> int:
        return sum(request["order_id"] in orders for request in self.fleet.exchange.requests())


def emptied(stage: Stage) -> int:
    return stage.after(lambda: stage.redis().flushall())


def restarted_empty(stage: Stage) -> int:
    """Its functions are gone too."""

    def restart() -> None:
        stage.server.stop()
        shutil.rmtree(stage.server.folder)
        stage.server.start()

    return stage.after(restart)


def failed_over(stage: Stage) -> int:
    """A replica, behind by all that was done since it lost its master, takes over at the same address."""

    def take_over() -> None:
        stage.server.stop()
        stage.server.folder = stage.server.folder.with_name("replica")
        stage.server.start()

    return stage.after(take_over)


def killed(stage: Stage) -> int:
    def restart() -> None:
        stage.server.stop()
        stage.server.start()

    return stage.after(restart)


def frozen(stage: Stage) -> int:
    """For longer than a lease: nothing is lost but time."""
    assert stage.server.process is not None
    stage.server.process.send_signal(signal.SIGSTOP)
    for worker in stage.fleet.workers:
        eventually(lambda worker=worker: "duty.failed" in worker.said(), what="a duty that failed")
    stage.server.process.send_signal(signal.SIGCONT)
    return 0


SCENES = {
    scene: kind
    for kind, scenes in {
        "postgresql": (emptied, failed_over),
        "sqlite": (restarted_empty, killed, frozen),
    }.items()
    for scene in scenes
}


def play(scene: Callable[[Stage], int], stage: Stage, replica: Server | None) -> None:
    fleet = stage.fleet
    stage.set_to_work()
    if replica is not None:
        with Redis.from_url(replica.url) as redis:
            redis.replicaof("127.0.0.1", stage.server.port)
            eventually(lambda: redis.info("replication").get("master_sync_in_progress") == 0, what="a copy")
            eventually(lambda: redis.info("replication")["master_link_status"] == "up", what="a replica")
            redis.replicaof("NO", "ONE")
        replica.stop()
    stage.enqueue(ORDERS[len(ORDERS) // 2 :])
    ended = stage.wait_until_recorded()
    posts = stage.posts(ended)
    put_back = scene(stage)
    assert_nothing_lost(fleet, len(ORDERS))
    assert stage.posts(ended) == posts, "a cancel that had ended was sent again"
    assert (put_back > 0) == (scene not in {killed, frozen})
    if put_back == 0:
        assert_ledger_at_rest(fleet)
    for worker in fleet.workers:
        assert worker.process.poll() is None, worker.said()
        assert "Traceback" not in worker.said(), worker.said()


def test_what_redis_forgets_the_audit_knows(
    request: pytest.FixtureRequest, make_server: Callable[..., Server], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        stages = []
        for scene, kind in SCENES.items():
            folder = tmp_path / scene.__name__
            folder.mkdir()
            url = stack.enter_context(migrated(request, kind, folder))
            server = make_server(f"{scene.__name__}/server")
            exchange = stack.enter_context(running_exchange())
            exchange.empty()
            fleet = Fleet(server.url, "cancelq", url, exchange, folder)
            stack.callback(fleet.stop)
            replica = make_server(f"{scene.__name__}/replica") if scene is failed_over else None
            stages.append((scene, Stage(fleet, server), replica))
        with ThreadPoolExecutor(len(stages)) as pool:
            playing = {scene.__name__: pool.submit(play, scene, *rest) for scene, *rest in stages}
        errors = {name: error for name, done in playing.items() if (error := done.exception()) is not None}
        for name, error in errors.items():
            error.add_note(f"in the scene {name}")
        if errors:
            raise BaseExceptionGroup("scenes", list(errors.values()))


def test_an_end_that_redis_forgot_is_told_as_it_is_on_record(plain_fleet: Fleet) -> None:
    """The ledger is back where the order was still being read; a second look would see another end."""
    plain_fleet.exchange.add_orders(1)
    ledger = plain_fleet.ledger_client()
    settle_in(ledger)
    job = plain_fleet.queue().cancel(order_id=1).job_id
    assert claimed_ids(ledger) == [job]
    engine = open_engine(plain_fleet.database_url)
    record(engine, an_outcome(str(job), Outcome.FILLED))
    engine.dispose()
    assert plain_fleet.exchange.post(1)[0] == 200
    ledger.settle([settlement(str(job), step=Step.CONFIRM)])
    plain_fleet.fork()
    told = eventually(
        lambda: (found := ledger.status(job_id=job))["state"] == "done" and found, what="an end in the ledger"
    )
    assert (told["outcome"], plain_fleet.ends(1)[1]["outcome"]) == ("filled", "filled")
