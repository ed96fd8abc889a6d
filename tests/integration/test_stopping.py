"""Ending a worker: in good order, soon, with nothing lost, nothing cut and nothing said in anger."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.parts.databases import database_taking_no_rows
from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet, Worker
from tests.parts.rogue import rogue
from tests.parts.valkey import PrivateValkey
from worker.app.process import LAST_WORDS

if TYPE_CHECKING:
    from redis import Redis

TOTAL = 2.0  # one request's bound in these tests …
GRACE = 3.0  # … and what may follow it
BOUNDS = {"connect_timeout": "1", "read_timeout": "2", "total_timeout": str(TOTAL)}
LOAD = 150


@pytest.fixture
def busy(plain_fleet: Fleet) -> Iterator[Fleet]:
    """A worker in the middle of many slow POSTs."""
    plain_fleet.exchange.defaults(latency=[0.2, 0.5])
    plain_fleet.exchange.add_orders({"from": 1, "count": LOAD})
    plain_fleet.spawn(concurrency="16", **BOUNDS).when_ready()
    receipts = plain_fleet.queue().cancel_many([{"order_id": order} for order in range(1, LOAD + 1)])
    assert {receipt.status for receipt in receipts} == {"accepted"}
    plain_fleet.exchange.wait_for_posts(20)
    yield plain_fleet
    plain_fleet.exchange.defaults(latency=0)


def ended(worker: Worker, *signals: signal.Signals, bound: float = TOTAL + GRACE) -> int:
    """The exit code, within the bound, and not one traceback."""
    began = time.monotonic()
    for name in signals:
        worker.signal(name)
    code = worker.process.wait(bound)
    assert time.monotonic() - began < bound
    assert "Traceback" not in worker.said()
    return code


@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGTERM,),
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGINT),
    ],
    ids=["term", "term_twice", "int_and_term"],
)
def test_a_busy_worker_ends_in_good_order(
    busy: Fleet, redis_client: "Redis", signals: tuple[signal.Signals, ...]
) -> None:
    (first,) = busy.workers
    assert ended(first, *signals) == 0
    sent = busy.exchange.requests()
    assert 20 <= len(sent) < LOAD
    assert {post["fate"] for post in sent} == {"answered"}
    assert (busy.verified().fault, busy.verified().newer) == (None, 0)  # it was sealed to its last row
    # Nothing is in hand any more: the next worker need not wait for a lease to lapse.
    assert redis_client.zcard(f"{{{busy.ledger}}}:leases") == 0
    assert all(row["verdict"] == "accepted" for row in busy.view("audit_attempts"))
    busy.exchange.defaults(latency=0)
    second = busy.start()
    jobs = busy.ends(LOAD)
    assert {job["outcome"] for job in jobs.values()} == {"canceled"}
    assert "sweep.lapsed" not in second.said()
    assert {row["posts"] for row in busy.exchange.truth().values()} == {1}


def test_a_worker_whose_exchange_hangs_ends_after_that_request(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.script(1, {"delay": 60, "effect": "before"})
    worker = plain_fleet.spawn(**BOUNDS).when_ready()
    plain_fleet.queue().cancel(order_id=1)
    plain_fleet.exchange.wait_for_posts(1)
    assert ended(worker, signal.SIGTERM) == 0
    (attempt,) = plain_fleet.attempts(1)
    assert (attempt["transport"], attempt["verdict"]) == ("unanswered", "ambiguous")
    plain_fleet.start()
    assert plain_fleet.ends(1)[1]["outcome"] == "canceled"
    assert len(plain_fleet.exchange.requests()) == 1


def test_a_worker_that_is_ending_keeps_nothing_from_the_others(plain_fleet: Fleet) -> None:
    """It may still swallow their bells: cancels that come now are on the wire long before any lease would lapse."""
    later = range(2, 22)
    plain_fleet.exchange.add_orders(*later)
    plain_fleet.exchange.script(1, {"delay": 5})
    ending = plain_fleet.fork(lease="30", **BOUNDS | {"read_timeout": "8", "total_timeout": "8"}).when_ready()
    plain_fleet.queue().cancel(order_id=1)
    plain_fleet.exchange.wait_for_posts(1)
    plain_fleet.fork(lease="30", **BOUNDS).when_ready()
    asked_at = time.time()
    ending.signal(signal.SIGTERM)
    plain_fleet.queue().cancel_many([{"order_id": order} for order in later])
    jobs = plain_fleet.ends(1 + len(later))
    assert ending.process.wait(GRACE) == 0
    assert plain_fleet.exchange.requests(1)[0]["fate"] == "answered"
    waits = [(jobs[order]["first_sent_at"] - jobs[order]["enqueued_at"]).total_seconds() for order in later]
    next_wire = min(jobs[order]["first_sent_at"] for order in later)
    assert next_wire.timestamp() - asked_at < 1  # as recorded
    assert max(waits) < 3


def test_a_worker_whose_database_takes_nothing_ends_within_its_bound(plain_fleet: Fleet) -> None:
    """The answer that came is tried to be kept as long as there is time; what was not sent is not waited for."""
    plain_fleet.exchange.script(1, {"delay": 1})
    plain_fleet.exchange.add_orders(*range(2, 8))
    worker = plain_fleet.fork(audit_down="hold", **BOUNDS).when_ready()
    plain_fleet.queue().cancel(order_id=1)
    plain_fleet.exchange.wait_for_posts(1)
    with database_taking_no_rows(plain_fleet.database_url):
        plain_fleet.queue().cancel_many([{"order_id": order} for order in range(2, 8)])
        assert ended(worker, signal.SIGTERM, bound=TOTAL + LAST_WORDS.total_seconds() + GRACE) == 0


def test_a_worker_with_a_backlog_ends_before_all_of_it_is_registered(plain_fleet: Fleet) -> None:
    worker = plain_fleet.fork(**BOUNDS).when_ready()
    assert plain_fleet.run("pause", "--because", "a test").returncode == 0
    worker.signal(signal.SIGSTOP)
    plain_fleet.queue().cancel_many([{"order_id": order} for order in range(1, 5001)])
    assert ended(worker, signal.SIGTERM, signal.SIGCONT) == 0
    assert plain_fleet.select("SELECT count(*) AS jobs FROM jobs")[0]["jobs"] < 2500


def test_an_idle_worker_ends_at_once(plain_fleet: Fleet) -> None:
    worker = plain_fleet.spawn(**BOUNDS).when_ready()
    assert ended(worker, signal.SIGTERM, bound=GRACE) == 0


def test_a_worker_whose_redis_is_away_ends_too(
    make_fleet: Callable[..., Fleet], private_valkey: PrivateValkey, ledger_name: str, tmp_path: Path
) -> None:
    fleet = make_fleet(private_valkey.url, ledger_name, f"sqlite:///{tmp_path / 'audit.sqlite3'}")
    worker = fleet.fork(**BOUNDS).when_ready()
    private_valkey.kill()
    eventually(lambda: "duty.failed" in worker.said(), what="the loss of Redis")
    assert ended(worker, signal.SIGTERM) == 0


# --- while it starts


def test_a_worker_that_has_just_started_ends(plain_fleet: Fleet) -> None:
    assert ended(plain_fleet.spawn().when_ready(), signal.SIGTERM) == 0


def test_a_worker_that_waits_for_redis_ends_at_once(plain_fleet: Fleet) -> None:
    with rogue() as silent:
        worker = plain_fleet.spawn(redis_url=f"redis://127.0.0.1:{silent.port}/0")
        assert silent.connected.wait(20)
        assert ended(worker, signal.SIGTERM, signal.SIGTERM, bound=GRACE) == 0
        assert "worker.started" not in worker.said()


def test_a_worker_that_waits_for_its_database_ends_at_once(plain_fleet: Fleet) -> None:
    with rogue() as silent:
        url = f"postgresql://me@127.0.0.1:{silent.port}/audit"
        worker = plain_fleet.spawn(database_url=url)
        assert silent.connected.wait(20)
        assert ended(worker, signal.SIGINT, bound=GRACE) == 0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_signal_at_any_moment_of_the_start_leaves_no_traceback(plain_fleet: Fleet) -> None:
    """Before the handler stands the signal itself ends the process, and nothing was begun yet."""
    workers = [plain_fleet.spawn() for _ in range(6)]
    for nth, worker in enumerate(workers):
        eventually(partial(has_come_to, worker, seconds=0.03 + 0.15 * nth), what="the moment")
        worker.signal(signal.SIGTERM)
    for worker in workers:
        assert ended(worker) in {0, -signal.SIGTERM}


def has_come_to(worker: Worker, seconds: float) -> bool:
    """Whether the process has used so much processor time, or needed less for its whole start (or is gone)."""
    if "worker.started" in worker.said():
        return True
    try:
        fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rsplit(")")[-1].split()
    except FileNotFoundError:
        return True
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") >= seconds


def test_a_redis_port_that_nobody_answers_is_not_waited_for(plain_fleet: Fleet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    worker = plain_fleet.spawn(redis_url=f"redis://127.0.0.1:{port}/0")
    assert worker.process.wait(15) == 1
