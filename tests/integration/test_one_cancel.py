"""One cancel from the strategy's call to the proven end, on real parts."""

from collections.abc import Callable
from pathlib import Path

from tests.parts.fleet import Fleet
from tests.parts.valkey import Server


def test_a_cancel_ends_proven_and_recorded(fleet: Fleet) -> None:
    fleet.exchange.add_orders(11)
    fleet.start()
    receipt = fleet.queue().cancel(order_id=11, requested_by="momentum")
    job = fleet.ends(1)[11]
    (attempt,) = fleet.attempts(11)
    assert receipt.status == "accepted"
    assert (job["job_id"], job["outcome"], job["requested_by"]) == (receipt.job_id, "canceled", "momentum")
    assert job["evidence"].startswith("order_read")
    assert (attempt["verdict"], attempt["transport"]) == ("accepted", "answered")
    assert attempt["command_id"] == job["command_id"] == fleet.exchange.truth()[11]["command_ids"][0]


def test_one_cancel_on_the_oldest_redis(
    make_fleet: Callable[..., Fleet],
    make_server: Callable[..., Server],
    redis_7_0: Path,
    ledger_name: str,
    tmp_path: Path,
) -> None:
    server = make_server("redis", binary=redis_7_0)
    fleet = make_fleet(server.url, ledger_name, f"sqlite:///{tmp_path / 'audit.sqlite3'}")
    fleet.exchange.add_orders(1)
    fleet.exchange.script(1, {"reason": "AnotherCommandPending"})
    fleet.start()
    assert fleet.queue().cancel(order_id=1).durability == "fsynced"
    assert fleet.ends(1)[1]["outcome"] == "canceled"
    assert [row["verdict"] for row in fleet.attempts(1)] == ["transient", "accepted"]
