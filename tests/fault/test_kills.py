"""Death is SIGKILL of a real process under load. Nothing is lost, unrecorded or misreported."""

import random
import signal
import time
from collections.abc import Callable

from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet, Worker
from tests.parts.kills import assert_nothing_lost
from tests.parts.valkey import PrivateValkey

FIRST = 1001
# CONTRACT: a SIGKILL of a worker at any moment delays no cancel by more than this.
LONGEST_DELAY = 5.0


def stage_orders(fleet: Fleet, count: int, **mix: float) -> range:
    """Orders on a book that lags and answers after 20 ms; faults by `mix`."""
    fleet.exchange.defaults(latency=0.02, read_lag=[0, 1], settle=[0, 0.1])
    fleet.exchange.faults(dict(mix))
    fleet.exchange.add_orders({"from": FIRST, "count": count}, account="default")
    return range(FIRST, FIRST + count)


def test_a_worker_killed_under_load_loses_nothing(fleet: Fleet) -> None:
    orders = stage_orders(fleet, 200, transient=0.2, drop_effect=0.1, error=0.1, fill_first=0.05)
    victims = [fleet.start(concurrency="16"), fleet.start(concurrency="16")]
    fleet.queue().cancel_many([{"order_id": order} for order in orders])
    chance = random.Random(7)
    for kill in range(1, 5):
        eventually(lambda kill=kill: len(fleet.exchange.requests()) >= 40 * kill, what="requests on the wire")
        chance.choice([w for w in victims if w.process.poll() is None]).kill()
        victims.append(fleet.fork(concurrency="16"))
    assert_nothing_lost(fleet, len(orders))


def test_a_cancel_in_hand_of_a_killed_worker_is_on_the_wire_again_within_five_seconds(fleet: Fleet) -> None:
    fleet.exchange.add_orders(1)
    fleet.exchange.script(1, {"delay": 30, "effect": "none"})
    first, _second = fleet.start(), fleet.start()
    fleet.queue().cancel(order_id=1)
    victim = holder_of(fleet, 1, first)
    killed_at = time.time()
    victim.kill()
    again = fleet.exchange.wait_for_posts(2, 1)[1]
    assert again["at"] / 1e6 - killed_at < LONGEST_DELAY
    assert fleet.ends(1)[1]["outcome"] == "canceled"
    lost, sent = fleet.attempts(1)
    assert (lost["transport"], lost["error"], sent["verdict"]) == ("unanswered", "worker lost", "accepted")


def holder_of(fleet: Fleet, order: int, first: Worker) -> Worker:
    """The worker process whose attempt is on the wire."""
    fleet.exchange.wait_for_posts(1, order)
    name: str = fleet.attempts(order)[0]["worker"]
    return next(w for w in fleet.workers if name.endswith(f"/{w.process.pid}"))


def test_valkey_killed_under_load_loses_nothing(
    make_fleet: Callable[..., Fleet], private_valkey: PrivateValkey, ledger_name: str, database_url: str
) -> None:
    fleet = make_fleet(private_valkey.url, ledger_name, database_url)
    orders = stage_orders(fleet, 200, transient=0.2, drop_effect=0.1)
    fleet.start(concurrency="16")
    fleet.start(concurrency="16")
    receipts = fleet.queue().cancel_many([{"order_id": order} for order in orders])
    assert {receipt.status for receipt in receipts} == {"accepted"}
    for kill in range(1, 4):
        eventually(lambda kill=kill: len(fleet.exchange.requests()) >= 55 * kill, what="requests on the wire")
        private_valkey.kill()
        private_valkey.start()
    assert_nothing_lost(fleet, len(orders))


def test_a_frozen_worker_does_not_send_after_its_lease(fleet: Fleet) -> None:
    """SIGSTOP for longer than the lease: another worker takes over; the thawed one drops its stale claims.

    On SQLite a process that is frozen inside a commit holds the file's lock until it is thawed.
    """
    orders = stage_orders(fleet, 60, transient=0.3)
    frozen, other = fleet.start(concurrency="8"), fleet.start(concurrency="8")
    fleet.queue().cancel_many([{"order_id": order} for order in orders])
    fleet.exchange.wait_for_posts(10)
    frozen.signal(signal.SIGSTOP)
    eventually(lambda: "sweep.lapsed" in other.said(), what="a lapsed lease")
    frozen.signal(signal.SIGCONT)
    assert_nothing_lost(fleet, len(orders))


def test_an_answer_that_comes_after_the_lease_is_kept_as_testimony(fleet: Fleet) -> None:
    fleet.exchange.add_orders(1)
    fleet.exchange.script(1, {"delay": 6})
    slow = {"read_timeout": "30", "total_timeout": "60"}
    first, _second = fleet.start(**slow), fleet.start(**slow)
    fleet.queue().cancel(order_id=1)
    frozen = holder_of(fleet, 1, first)
    frozen.signal(signal.SIGSTOP)
    assert fleet.ends(1)[1]["evidence"] == "order_read Canceled"
    eventually(lambda: fleet.exchange.requests()[0]["fate"] == "answered", what="the late answer")
    frozen.signal(signal.SIGCONT)
    command = fleet.exchange.truth()[1]["command_ids"][0]
    late = eventually(lambda: fleet.select("SELECT command_id FROM late_replies"), what="a late row")
    assert late == [{"command_id": command}]
    assert fleet.attempts(1)[0]["command_id"] == command
    assert len(fleet.exchange.requests()) == 1


def test_a_request_is_cut_when_its_lease_lapses(
    make_fleet: Callable[..., Fleet], private_valkey: PrivateValkey, ledger_name: str, database_url: str
) -> None:
    """Redis stands still for longer than a lease while an answer is slow: the order is not asked for twice at once."""
    fleet = make_fleet(private_valkey.url, ledger_name, database_url)
    fleet.exchange.add_orders(1)
    fleet.exchange.script(1, {"delay": 12, "effect": "none"})
    worker = fleet.start(read_timeout="20", total_timeout="30")
    fleet.queue().cancel(order_id=1)
    fleet.exchange.wait_for_posts(1)
    private_valkey.freeze()
    eventually(lambda: "duty.failed" in worker.said(), what="a renewal that failed")
    eventually(lambda: fleet.exchange.requests()[0]["fate"] == "gone", seconds=15, what="a cut request")
    private_valkey.thaw()
    assert fleet.ends(1)[1]["outcome"] == "canceled"
    assert fleet.exchange.truth()[1]["max_in_flight"] == 1
    assert [row["transport"] for row in fleet.attempts(1)] == ["unanswered", "answered"]


def test_all_workers_killed_at_once_are_replaced_by_one(fleet: Fleet) -> None:
    orders = stage_orders(fleet, 100, drop=0.1, drop_effect=0.1)
    crowd = [fleet.start(concurrency="8"), fleet.start(concurrency="8")]
    fleet.queue().cancel_many([{"order_id": order} for order in orders])
    fleet.exchange.wait_for_posts(20)
    for worker in crowd:
        worker.kill()
    fleet.start()
    assert_nothing_lost(fleet, len(orders))
