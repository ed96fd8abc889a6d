"""Redis that is there and says no: full, unable to save, or read-only. No worker ends, and all goes on by itself."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis

from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet, Worker
from tests.parts.kills import assert_nothing_lost
from tests.parts.valkey import Server

Refusal = Callable[["Redis", Server], None]


def cannot_save(redis: "Redis", server: Server) -> None:
    """A snapshot that failed: every write, and even PING, is answered with MISCONF."""
    (server.folder / "dump.rdb").mkdir()  # nothing can be renamed to a folder's name
    redis.config_set("save", "3600 1")
    redis.bgsave()
    eventually(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err", what="a failed snapshot")


def can_save(redis: "Redis", server: Server) -> None:
    (server.folder / "dump.rdb").rmdir()
    redis.config_set("save", "")


def is_a_replica(redis: "Redis", _server: Server) -> None:
    """As after a failover to another server: READONLY."""
    redis.config_set("replica-serve-stale-data", "yes")
    redis.replicaof("127.0.0.1", "1")


def is_a_master(redis: "Redis", _server: Server) -> None:
    redis.replicaof("NO", "ONE")


def failed_duties(worker: Worker) -> list[str]:
    return [line for line in worker.said().splitlines() if "duty.failed" in line]


def refusals_of_celery(worker: Worker) -> int:
    return worker.said().count("bell.refused") + worker.said().count("Redis refuses")


@pytest.mark.parametrize(
    ("begin", "end", "says"),
    [(cannot_save, can_save, "MISCONF"), (is_a_replica, is_a_master, "read only replica")],
    ids=["misconf", "readonly"],
)
def test_a_worker_outlives_a_redis_that_answers_with_errors(
    begin: Refusal,
    end: Refusal,
    says: str,
    make_server: Callable[..., Server],
    make_fleet: Callable[..., Fleet],
    tmp_path: Path,
) -> None:
    server = make_server("server")
    fleet = make_fleet(server.url, "cancelq", f"sqlite:///{tmp_path / 'audit.sqlite3'}")
    fleet.exchange.add_orders(1, 2)
    worker = fleet.fork(lease="1").when_ready()
    fleet.queue().cancel(order_id=1)
    fleet.ends(1)
    with Redis.from_url(server.url, decode_responses=True) as redis, ExitStack() as mended:
        mended.callback(end, redis, server)
        begin(redis, server)
        eventually(lambda: "bell.refused" in worker.said(), what="a refused look for bells")
        redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        eventually(lambda: refusals_of_celery(worker) > 1, what="a refusal of the new connection")
        eventually(lambda: any(says in line for line in failed_duties(worker)), what="duties that failed")
    fleet.queue().cancel(order_id=2)
    fleet.ends(2, seconds=20)
    assert worker.process.poll() is None
    assert "Traceback" not in worker.said()
    assert_nothing_lost(fleet, 2)


def test_workers_work_and_start_beside_a_full_redis(
    make_server: Callable[..., Server], make_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    server = make_server("server")
    fleet = make_fleet(server.url, "cancelq", f"sqlite:///{tmp_path / 'audit.sqlite3'}")
    orders = range(1, 17)
    fleet.exchange.add_orders(*orders)
    fleet.exchange.faults({"transient": 0.2})
    fleet.exchange.defaults(latency=0.1)
    first = fleet.fork(lease="1", concurrency="4").when_ready()
    queue = fleet.queue()
    queue.cancel_many([{"order_id": order} for order in orders])
    with Redis.from_url(server.url, decode_responses=True) as redis:
        fleet.exchange.wait_for_posts(5)
        redis.config_set("maxmemory", "1")
        refused = queue.cancel_many([{"order_id": 99}])[0]
        assert (refused.status, "maxmemory" in (refused.error or "")) == ("not_stored", True)
        first.kill()
        second = fleet.fork(lease="1", concurrency="4").when_ready()
        assert_nothing_lost(fleet, len(orders))
        assert second.process.poll() is None
        redis.config_set("maxmemory", "0")
    assert "Traceback" not in second.said()
    assert queue.cancel(order_id=99).status == "accepted"
