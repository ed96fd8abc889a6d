"""What seldom fails together: the disks of database, journal and log; the database and Redis."""

import fcntl
import os
import shutil
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fault.test_outage import assert_all_arrived, held, wait_for_ends
from tests.parts.databases import PostgresServer, database_taking_no_rows
from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet, Worker
from tests.parts.kills import assert_nothing_lost, wait_for_empty_journal
from tests.parts.scenes import ORDERS, QUICK, enqueue, set_up
from tests.parts.understudy import Doom, Understudy
from tests.parts.valkey import Server
from worker.audit.journal import Journal
from worker.gaps import Gap


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own in memory; whoever is not root has none."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all that is left of it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return filler


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "audit", "4m") as folder:
        yield folder


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "home", "4m") as folder:
        yield folder


def test_full_disks_of_the_database_and_of_the_journal(
    make_fleet: Callable[..., Fleet], redis_url: str, ledger_name: str, disk: Path, home: Path
) -> None:
    fleet = make_fleet(redis_url, ledger_name, f"sqlite:///{disk / 'audit.sqlite3'}")
    set_up(fleet)
    worker = fleet.fork(**QUICK, home=str(home)).when_ready()
    fleet.when_compared()
    fillers = [fill(disk)]
    enqueue(fleet, *ORDERS[:6])
    wait_for_ends(fleet, ORDERS[:6])
    assert len(fleet.table("outcomes")) < 6  # the rest is in the journal
    fillers.append(fill(home))
    enqueue(fleet, *ORDERS[6:])
    eventually(lambda: held(worker), seconds=30, what="a hold")
    seen = len(fleet.exchange.requests())
    eventually(lambda: len(held(worker)) > 2, seconds=30, what="a hold that lasts")
    assert len(fleet.exchange.requests()) == seen
    for filler in fillers:
        filler.unlink()
    assert_all_arrived(fleet)


def test_a_journal_that_nobody_can_read_stops_nothing_while_the_database_is_well(plain_fleet: Fleet) -> None:
    """Neither the comparison before the first POST, nor the proof of what a killed worker left."""
    fleet = plain_fleet
    fleet.exchange.script(1, {"delay": 60, "effect": "before"})
    fleet.exchange.add_orders(2)
    path = Journal(fleet.folder, fleet.ledger, fleet.exchange.url, lambda *_told: None).path
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    first = fleet.fork(**QUICK).when_ready()
    fleet.queue().cancel(order_id=1)
    fleet.exchange.wait_for_posts(1)
    first.kill()
    second = fleet.fork(**QUICK).when_ready()
    fleet.queue().cancel(order_id=2)
    assert {job["outcome"] for job in fleet.ends(2).values()} == {"canceled"}
    assert len(fleet.exchange.requests(1)) == 1
    assert "journal.unreadable" in second.said()
    assert "prove.failed" not in second.said()


def test_redis_dies_while_the_database_is_away(
    make_fleet: Callable[..., Fleet],
    make_server: Callable[..., Server],
    private_postgres: PostgresServer,
) -> None:
    """Nobody can tell what Redis may have forgotten: nothing is POSTed until the database is asked."""
    redis = make_server("redis")
    fleet = make_fleet(redis.url, "cancelq", private_postgres.url("audit"))
    set_up(fleet)
    for worker in (fleet.fork(**QUICK), fleet.fork(**QUICK)):
        worker.when_ready()
    fleet.when_compared()
    enqueue(fleet, *ORDERS[:4])
    fleet.exchange.wait_for_posts(3)
    private_postgres.halt()
    enqueue(fleet, *ORDERS[4:8])
    wait_for_ends(fleet, ORDERS[4:8])
    redis.stop()
    redis.start()
    enqueue(fleet, *ORDERS[8:])
    before = len(fleet.exchange.requests())
    eventually(
        lambda: all("Redis may have lost jobs" in worker.said() for worker in fleet.workers),
        seconds=30,
        what="workers that say why nothing is sent",
    )
    assert not {row["order_id"] for row in fleet.exchange.requests()[before:]} & set(ORDERS[8:])
    private_postgres.revive()
    assert_all_arrived(fleet)


def test_a_log_that_nobody_can_write_stops_no_cancel(plain_fleet: Fleet) -> None:
    """/dev/full refuses every byte, as a full disk does."""
    set_up(plain_fleet)
    worker = Understudy(["worker"], plain_fleet.environment(**QUICK), Path("/dev/full"))
    try:
        enqueue(plain_fleet, *ORDERS)
        plain_fleet.ends(len(ORDERS))
        worker.terminate()
        assert worker.wait(20) == 0
    finally:
        worker.kill()
    assert_nothing_lost(plain_fleet, len(ORDERS))


def test_a_reader_of_the_log_that_stands_still_stops_no_cancel_and_no_end(plain_fleet: Fleet) -> None:
    """As a terminal after Ctrl-S, or the far end of a pipe that hangs."""
    set_up(plain_fleet)
    way = plain_fleet.folder / "way"
    os.mkfifo(way)
    reader = os.open(way, os.O_RDONLY | os.O_NONBLOCK)
    worker = Understudy(["worker"], plain_fleet.environment(**QUICK), way)
    try:
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)  # the least, which a few lines fill
        enqueue(plain_fleet, *ORDERS)
        plain_fleet.ends(len(ORDERS))
        assert 3000 < unread(reader) <= 4096
        plain_fleet.exchange.add_orders({"from": 2001, "count": 40}, account="default")
        enqueue(plain_fleet, *range(2001, 2041))
        plain_fleet.ends(len(ORDERS) + 40)
        worker.terminate()
        assert worker.wait(20) == 0
    finally:
        worker.kill()
        os.close(reader)
    assert_nothing_lost(plain_fleet, len(ORDERS) + 40)


def unread(pipe: int) -> int:
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]


def test_an_attempt_that_a_journal_brings_after_the_end_was_decided_is_closed(plain_fleet: Fleet) -> None:
    """Whoever decided had looked at the story before; whoever carries looks again until the job has ended."""
    fleet = plain_fleet
    fleet.exchange.add_orders(1, account="default")
    fleet.exchange.script(1, {"delay": 1})
    homes = [str(fleet.folder / name) for name in ("here", "elsewhere")]
    lost = fleet.start(**QUICK, home=homes[0])
    fleet.when_compared()
    with database_taking_no_rows(fleet.database_url):
        fleet.queue().cancel(order_id=1)
        fleet.exchange.wait_for_posts(1, 1)
        lost.kill()
    decided = Doom(Gap.CLOSED, by=signal.SIGSTOP)
    other = fleet.fork(doom=decided, home=homes[1], **QUICK | {"lease": "30"})
    eventually(lambda: decided.mark in other.said(), seconds=30, what="a decided end")
    carrier = fleet.start(**QUICK | {"lease": "30"}, home=homes[0])
    eventually(lambda: fleet.view("audit_attempts"), what="the attempt")
    eventually(lambda: carrier.said().count("journal.carried"), what="a journal that is empty")
    assert fleet.view("audit_jobs")[0]["outcome"] is None
    other.signal(signal.SIGCONT)
    fleet.ends(1)
    eventually(lambda: fleet.view("audit_attempts")[0]["verdict"], what="the attempt's verdict")


@pytest.mark.parametrize(
    "posts", [[{"settle": 5}], [{"reason": "RiskCheckTimeout", "repeat": 3}]], ids=["confirm", "post"]
)
def test_a_job_that_only_a_lost_hosts_journal_has_is_put_on_record_by_who_goes_on_with_it(
    plain_fleet: Fleet, posts: list[dict[str, Any]]
) -> None:
    """The ledger knows of its attempts, the database of nothing: without the job's row no view would show its end."""
    fleet = plain_fleet
    fleet.exchange.add_orders({"id": 1, "posts": posts}, account="default")
    lost = fleet.start(**QUICK, home=str(fleet.folder / "here"))
    fleet.when_compared()
    with database_taking_no_rows(fleet.database_url):
        fleet.queue().cancel(order_id=1)
        eventually(lambda: fleet.queue().status(order_id=1)["attempts"], what="an attempt in the ledger")
        lost.kill()
    fleet.start(**QUICK, home=str(fleet.folder / "elsewhere"))
    assert fleet.ends(1)[1]["outcome"] == "canceled"


def end_in_the_journal(fleet: Fleet, worker: Worker) -> None:
    """Order 1 has its outcome there alone, and the worker is gone."""
    fleet.when_compared()
    with database_taking_no_rows(fleet.database_url):
        fleet.queue().cancel(order_id=1)
        eventually(lambda: "job.finished" in worker.said(), what="an end that only the journal has")
        worker.kill()


def test_a_journal_that_is_gone_for_good_concerns_only_what_its_workers_held(plain_fleet: Fleet) -> None:
    """Its mark stays in the ledger: of later cancels, whoever dies amid them, nothing can be in it."""
    fleet = plain_fleet
    fleet.exchange.add_orders(1, 2, account="default")
    end_in_the_journal(fleet, fleet.start(**QUICK))
    shutil.rmtree(fleet.folder / "journal")
    doom = Doom(Gap.START_DUE)
    second = fleet.fork(doom=doom, **QUICK).when_ready()
    job_id = fleet.queue().cancel(order_id=2).job_id
    assert job_id is not None
    second.meet(doom)
    assert fleet.ledger_client().marks()
    fleet.start(**QUICK)
    assert fleet.wait_for_end(job_id)["outcome"] == "canceled"


def test_an_answer_that_another_hosts_journal_keeps_is_waited_for(plain_fleet: Fleet) -> None:
    """Who ended the job may not say that the attempt was lost: its true answer would find its place taken."""
    fleet = plain_fleet
    here, elsewhere = (str(fleet.folder / name) for name in ("here", "elsewhere"))
    fleet.exchange.add_orders(1, account="default")
    fleet.exchange.script(1, {"delay": 3})
    fleet.start(home=elsewhere, **QUICK).terminate()  # its journal is known to be this database's
    doom = Doom(Gap.REPLY_ON_DISK)
    lost = fleet.fork(doom=doom, home=here, **QUICK).when_ready()
    fleet.when_compared()
    fleet.queue().cancel(order_id=1)
    fleet.exchange.wait_for_posts(1, 1)
    with database_taking_no_rows(fleet.database_url):
        lost.meet(doom)
        other = fleet.start(home=elsewhere, **QUICK)
        eventually(lambda: fleet.queue().status(order_id=1)["state"] == "done", what="an end")
    fleet.ends(1)
    eventually(lambda: "audit.back" in other.said(), what="a journal that was carried over")
    assert fleet.attempts(1)[0]["transport"] is None
    fleet.start(home=here, **QUICK)
    row = eventually(lambda: (found := fleet.attempts(1)[0])["verdict"] and found, what="the answer")
    assert (row["transport"], row["verdict"]) == ("answered", "accepted")
    assert row["command_id"] is not None
    assert {row["fact"] for row in fleet.table("conflicts")} <= {"jobs"}  # which both had brought


def test_what_a_journal_keeps_is_carried_over_by_a_worker_that_is_to_hold(plain_fleet: Fleet) -> None:
    fleet = plain_fleet
    fleet.exchange.add_orders(1, account="default")
    end_in_the_journal(fleet, fleet.start(**QUICK))
    worker = fleet.start(audit_down="hold", **QUICK)
    assert fleet.ends(1)[1]["outcome"] == "canceled"
    wait_for_empty_journal(fleet)
    with database_taking_no_rows(fleet.database_url):
        fleet.queue().cancel(order_id=2)
        eventually(lambda: "audit.unavailable" in worker.said(), what="a worker that holds")
    assert "audit.journaling" not in worker.said()


@pytest.mark.parametrize("end", [None, Doom(Gap.OUTCOME_ON_DISK)], ids=["who goes on", "who dies then"])
def test_an_attempt_whose_story_nobody_could_read_is_closed_by_who_saw_the_end(
    make_fleet: Callable[..., Fleet],
    redis_url: str,
    ledger_name: str,
    private_postgres: PostgresServer,
    end: Doom | None,
) -> None:
    """The database is away while the order is read, and back when the outcome is written: no journal brings the row.

    Who dies between the outcome and the look at what it left open has somebody take over who looks.
    """
    fleet = make_fleet(redis_url, ledger_name, private_postgres.url("audit"))
    fleet.exchange.add_orders(1, account="default")
    fleet.exchange.script(1, {"delay": 10, "effect": "before"})
    lost = fleet.start(**QUICK)
    fleet.when_compared()
    fleet.queue().cancel(order_id=1)
    fleet.exchange.wait_for_posts(1, 1)
    eventually(
        lambda: fleet.table("jobs") and not fleet.ledger_client().unregistered(1, timedelta(0)),
        what="no duty",
    )
    Journal(fleet.folder, fleet.ledger, fleet.exchange.url, lambda *_told: None).confirm()
    blind = Doom(Gap.ORDER_READ, by=signal.SIGSTOP, then=end)
    heir = fleet.fork(doom=blind, **QUICK).when_ready()
    private_postgres.halt()
    lost.kill()
    eventually(lambda: blind.mark in heir.said(), seconds=30, what="an order that was read")
    private_postgres.revive()
    heir.signal(signal.SIGCONT)
    if end is not None:
        heir.meet(end)
        fleet.start(**QUICK)
    wait_for_ends(fleet, [1])
    assert "audit.journaling" not in heir.said()
    assert_nothing_lost(fleet, 1)
