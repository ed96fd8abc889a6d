"""The rules that `cancelq doctor --acl` prints, put into force on a real Valkey."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from tests.parts.doctor import Diagnose, run_doctor
from tests.parts.exchange import Exchange
from tests.parts.fleet import Fleet
from tests.parts.valkey import Server
from worker import CancelQueue
from worker.ledger.client import Ledger

PASSWORD = "correct-horse"
LEDGER = "mine"


@pytest.fixture(params=["valkey", "redis-7.0"])
def server_url(request: pytest.FixtureRequest, make_server: Callable[..., Server]) -> str:
    """The newest server that we bring, and the oldest one that has Functions."""
    old = request.param == "redis-7.0"
    binary = request.getfixturevalue("redis_7_0") if old else None
    return make_server("acl", binary=binary).url


@pytest.fixture
def admin(server_url: str) -> Iterator["Redis"]:
    with Redis.from_url(server_url, decode_responses=True) as redis:
        yield redis


@pytest.fixture
def users(admin: "Redis", server_url: str, tmp_path: Path) -> dict[str, str]:
    """The printed rules in force, the default user off; by role the address with its user."""
    done = run_doctor(tmp_path, "--acl", redis_url=server_url, ledger=LEDGER)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        admin.execute_command(*line.replace("CHANGE-ME", PASSWORD).split())
    return {
        role: server_url.replace("redis://", f"redis://{LEDGER}-{role}:{PASSWORD}@")
        for role in ("producer", "worker")
    }


def denied(admin: "Redis", user: str) -> list[str]:
    """What this user was refused."""
    return [entry["object"] for entry in admin.acl_log() if entry["username"] == user]


@pytest.fixture
def producer(
    users: dict[str, str], make_ledger: Callable[[str, str], Ledger], server_url: str
) -> Iterator[CancelQueue]:
    make_ledger(server_url, LEDGER)
    with CancelQueue(users["producer"], LEDGER) as queue:
        yield queue


def test_a_producer_can_do_all_that_producers_do(producer: CancelQueue, admin: "Redis") -> None:
    first = producer.cancel(order_id=1, request_id="r", deadline=60)
    joined = producer.cancel(order_id=1, priority="urgent")
    again = producer.cancel(order_id=1, request_id="r")
    assert [first.status, joined.status, again.status] == ["accepted", "joined", "duplicate"]
    assert producer.status(job_id=first.job_id)["state"] == "queued"
    many = producer.cancel_many([{"order_id": order} for order in range(2, 20)] + [{"order_id": 0}])
    assert [receipt.status for receipt in many] == ["accepted"] * 18 + ["refused"]
    assert denied(admin, f"{LEDGER}-producer") == []


@pytest.mark.parametrize(
    "words",
    [
        "FLUSHALL",
        "KEYS *",
        "CONFIG GET *",
        "DEL {mine}:meta",
        "ACL WHOAMI",
        "FUNCTION LIST",
        "EVAL return(1) 0",
    ],
)
def test_a_producer_can_do_nothing_else(users: dict[str, str], words: str) -> None:
    with Redis.from_url(users["producer"]) as redis, pytest.raises(NoPermissionError):
        redis.execute_command(*words.split())


def test_another_ledger_is_out_of_a_producers_reach(
    producer: CancelQueue, users: dict[str, str], admin: "Redis"
) -> None:
    with CancelQueue(users["producer"], "other") as queue:
        (receipt,) = queue.cancel_many([{"order_id": 1}])
    assert receipt.status == "not_stored"
    assert not admin.keys("{other}*")


def test_claims_are_out_of_a_producers_reach(producer: CancelQueue, users: dict[str, str]) -> None:
    producer.cancel(order_id=1)
    with (
        Redis.from_url(users["producer"]) as redis,
        pytest.raises(ResponseError, match=r"no permissions|can't run this command"),
    ):
        redis.fcall("cancelq_claim", 1, f"{{{LEDGER}}}", "c", "thief", 1_000_000, 10, 10)


def test_a_worker_carries_a_cancel_from_bell_to_outcome(
    make_fleet: Callable[..., Fleet],
    users: dict[str, str],
    admin: "Redis",
    exchange: Exchange,
    tmp_path: Path,
) -> None:
    fleet = make_fleet(users["worker"], LEDGER, f"sqlite:///{tmp_path / 'audit.sqlite3'}")
    exchange.add_orders(1, 2)
    exchange.script(2, {"reply": {"failureReason": "RiskCheckTimeout"}})
    worker = fleet.start()
    with CancelQueue(users["producer"], LEDGER) as queue:
        receipts = queue.cancel_many([{"order_id": 1}, {"order_id": 2}])
    assert [receipt.durability for receipt in receipts] == ["fsynced", "fsynced"]
    assert {row["outcome"] for row in fleet.ends(2).values()} == {"canceled"}
    assert fleet.run("status", str(receipts[0].job_id)).returncode == 0
    assert fleet.run("migrate").returncode == 0
    assert fleet.run("verify").returncode == 0
    assert fleet.run("pause", "--by", "me").returncode == 0
    assert fleet.run("resume", "--by", "me").returncode == 0
    assert worker.terminate() == 0
    assert denied(admin, f"{LEDGER}-worker") == []


def test_the_doctor_finds_a_workers_rights_complete_and_a_producers_not(
    diagnose: Diagnose, users: dict[str, str], admin: "Redis"
) -> None:
    full = diagnose(redis_url=users["worker"], ledger=LEDGER)
    assert full.grades("redis: rights") == {"ok"}
    assert full.grades("redis: durability") == {"ok"}
    assert denied(admin, f"{LEDGER}-worker") == []
    assert diagnose(redis_url=users["producer"], ledger=LEDGER).grades("redis: rights") == {"failed"}
    assert PASSWORD not in full.out


def test_the_rules_come_as_json_too(tmp_path: Path) -> None:
    said: dict[str, Any] = json.loads(run_doctor(tmp_path, "--acl", "--json", ledger="x").stdout)
    assert said["ledger"] == "x"
    assert said["producer"]["user"] == "x-producer"
    assert said["producer"]["rule"].startswith("ACL SETUSER x-producer reset on >CHANGE-ME ")
    assert "claim" not in said["producer"]["rule"]
    assert "brpop" in said["worker"]["commands"]


def test_rules_are_printed_without_a_server_too(tmp_path: Path) -> None:
    done = run_doctor(tmp_path, "--acl", redis_url="redis://127.0.0.1:9/0")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    assert "was not asked for its version" in done.stderr
