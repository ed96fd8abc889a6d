"""Redis comes back in the past, or empty, and more than its jobs is gone: wishes, a pause, what a journal has yet to tell."""

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis

from tests.parts.databases import database_taking_no_rows
from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet, Worker
from tests.parts.kills import assert_nothing_lost
from tests.parts.valkey import Server
from worker.job import Steering

QUICK = {"lease": "1", "concurrency": "4"}


@dataclass
class Place:
    """A fleet on a server of its own, with one order to cancel."""

    fleet: Fleet
    server: Server

    def start(self, home: str = "here", **settings: str) -> Worker:
        return self.fleet.start(**QUICK, home=str(self.fleet.folder / home), **settings)

    def steer(self, kind: Steering) -> None:
        self.fleet.ledger_client().steer(kind, action_id=f"{kind} it", by="op", because=None)

    def keep_a_copy(self) -> None:
        shutil.copytree(self.server.folder, self.fleet.folder / "copy")

    def go_back(self) -> None:
        self.server.stop()
        shutil.rmtree(self.server.folder)
        if (self.fleet.folder / "copy").exists():
            shutil.copytree(self.fleet.folder / "copy", self.server.folder)
        self.server.start()

    @contextmanager
    def compared_anew(self, worker: Worker) -> Iterator[None]:
        before = worker.said().count("ledger.compared")
        yield
        eventually(lambda: worker.said().count("ledger.compared") > before, what="a comparison")


@pytest.fixture
def place(make_server: Callable[..., Server], make_fleet: Callable[..., Fleet], tmp_path: Path) -> Place:
    server = make_server("server")
    fleet = make_fleet(server.url, "cancelq", f"sqlite:///{tmp_path / 'audit.sqlite3'}")
    fleet.exchange.add_orders(1, account="default")
    return Place(fleet, server)


def test_a_cancel_that_a_journal_tells_of_after_the_comparison_goes_on(place: Place) -> None:
    fleet = place.fleet
    fleet.exchange.script(1, {"reason": "ExecutionProviderUnavailable"})
    first = place.start()
    fleet.when_compared()
    with database_taking_no_rows(fleet.database_url):
        job = fleet.queue().cancel(order_id=1).job_id
        eventually(lambda: fleet.queue().status(job_id=job)["attempts"] == 1, what="an attempt")
        first.kill()
        place.go_back()
    other = place.start("elsewhere")
    eventually(lambda: "ledger.compared" in other.said(), what="a comparison")
    assert fleet.queue().status(job_id=job) == {"status": "unknown"}
    again = place.start()
    assert_nothing_lost(fleet, 1)
    assert "ledger.brought_back" in again.said()


def test_what_was_asked_for_before_a_loss_is_read_before_it_is_posted(place: Place) -> None:
    """What an unread journal tells can't be known: that the POST was made, and not answered."""
    fleet = place.fleet
    fleet.exchange.script(1, {"drop": "before"})
    lost = place.start()
    fleet.when_compared()
    lost.signal(signal.SIGSTOP)
    fleet.queue().cancel(order_id=1)
    place.keep_a_copy()
    with database_taking_no_rows(fleet.database_url):
        lost.signal(signal.SIGCONT)
        fleet.exchange.wait_for_posts(1, 1)
        lost.kill()
        place.go_back()
    place.start("elsewhere")
    fleet.exchange.wait_for_posts(2, 1)
    (start,) = fleet.table("starts")
    assert min(read["read_at"] for read in fleet.table("reads")) < start["started_at"]
    place.start()
    eventually(lambda: fleet.table("conflicts"), what="the first one's rows")
    told = fleet.run("verify")
    assert (told.returncode, "intact" in told.stdout.splitlines()[0]) == (0, False)


def test_a_wish_and_a_pause_that_redis_forgot_are_put_back(place: Place) -> None:
    fleet, queue = place.fleet, place.fleet.queue()
    worker = place.start()
    fleet.when_compared()
    worker.signal(signal.SIGSTOP)
    job = queue.cancel(order_id=1, deadline=60).job_id
    place.keep_a_copy()
    place.steer(Steering.PAUSE)
    queue.cancel(order_id=1, request_id="endless")
    worker.signal(signal.SIGCONT)
    for table in ("requests", "actions"):
        eventually(lambda table=table: fleet.table(table), what=f"{table} on record")
    with place.compared_anew(worker):
        place.go_back()
    told = queue.status(job_id=job)
    assert (told["joiners"], told["deadline"]) == (1, None)
    assert queue.cancel(order_id=1, request_id="endless").status == "duplicate"
    assert fleet.ledger_client().survey().paused
    assert "ledger.steered_again" in worker.said()
    assert fleet.exchange.requests() == []
    place.steer(Steering.RESUME)
    assert_nothing_lost(fleet, 1)


def test_a_row_that_is_on_disk_after_the_comparison_brings_its_job_back(place: Place) -> None:
    fleet = place.fleet
    worker = place.start(audit_down="hold")
    fleet.when_compared()
    place.steer(Steering.PAUSE)
    eventually(lambda: fleet.table("actions"), what="a pause on record")
    with database_taking_no_rows(fleet.database_url):
        job = fleet.queue().cancel(order_id=1).job_id
        eventually(lambda: "audit.unavailable" in worker.said(), what="a row that waits")
        with place.compared_anew(worker), Redis.from_url(place.server.url) as redis:
            redis.flushall()
        assert fleet.queue().status(job_id=job) == {"status": "unknown"}
    eventually(lambda: "ledger.brought_back" in worker.said(), what="the job")
    place.steer(Steering.RESUME)
    assert_nothing_lost(fleet, 1)
