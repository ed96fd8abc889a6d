"""The doorbell: whatever lies on the queue, the worker lives, says so, and sends the next cancel soon."""

import itertools
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet
from tests.parts.understudy import Deafness
from worker.app.doorbell import BELL
from worker.embedded.valkey import find_binary

LATE = 3.0
SOON = 2.0  # from the enqueue to the POST, the sweep included


def bell(**changes: Any) -> dict[str, Any]:
    """The smallest message that Celery runs; a change to None takes the key away."""
    message = {
        "body": '[["ID"],{},{}]',
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": BELL, "id": "b1", "lang": "py"},
        "properties": {
            "delivery_tag": "t1",
            "body_encoding": "utf-8",
            "delivery_info": {"exchange": "", "routing_key": "x"},
        },
    }
    return {key: value for key, value in (message | changes).items() if value is not None}


def headers(**changes: Any) -> dict[str, Any]:
    found = bell()["headers"] | changes
    return {key: value for key, value in found.items() if value is not None}


def properties(**changes: Any) -> dict[str, Any]:
    found = bell()["properties"] | changes
    return {key: value for key, value in found.items() if value is not None}


# What Celery would choke on, each kind alone; the second part says whether it is a bell all the same.
KINDS: dict[str, tuple[Any, bool]] = {
    "text": (b"ding", False),
    "empty": (b"", False),
    "number": (b"7", False),
    "long_number": (b"7" * 10_000, False),
    "json_text": (b'"cancelq.bell"', False),
    "list": (b"[1,2,3]", False),
    "null": (b"null", False),
    "raw_bytes": (b"\x00\xff\xfe\x80", False),
    "open_object": (b'{"headers":', False),
    "deep": (b"[" * 100_000, False),
    "deep_headers": (b'{"headers":' * 50_000, False),
    "megabyte": (b'{"headers":{"task":"' + b"x" * 1_000_000 + b'"}}', False),
    "megabyte_bell": (bell(body="x" * 1_000_000), False),
    "many_parts": (b'{"headers":{"task":"cancelq.bell"},"x":[' + b"[]," * 1_000_000 + b"[]]}", False),
    "no_body": (bell(body=None), True),
    "body_of_two": (bell(body="[[],{}]"), True),
    "body_null": (bell(body="null"), True),
    "body_undecodable": (bell(body="\udcff{"), True),
    "broken_base64": (bell(body="%%%", properties=properties(body_encoding="base64")), True),
    "unknown_body_encoding": (bell(properties=properties(body_encoding="rot13")), True),
    "no_content_type": (bell(**{"content-type": None}), True),
    "odd_content_type": (bell(**{"content-type": "application/x-python-serialize"}), True),
    "no_headers": (bell(headers=None), False),
    "headers_null": (bell() | {"headers": None}, False),
    "headers_list": (bell(headers=["task", BELL]), False),
    "no_id": (bell(headers=headers(id=None)), True),
    "id_of_another_kind": (bell(headers=headers(id={"a": 1})), True),
    "no_task": (bell(headers=headers(task=None)), False),
    "unknown_task": (bell(headers=headers(task="cancelq.other")), False),
    "task_list": (bell(headers=headers(task=[BELL])), False),
    "bad_eta": (bell(headers=headers(eta="tomorrow")), True),
    "far_eta": (bell(headers=headers(eta="2099-01-01T00:00:00")), True),
    "wrong_compression": (bell(headers=headers(compression="application/x-gzip")), True),
    "expired": (bell(headers=headers(expires="2001-01-01T00:00:00")), True),
    "chord": (bell(headers=headers(chord={"x": 1}, group="g", root_id=5)), True),
    "no_properties": (bell(properties=None), True),
    "properties_list": (bell(properties=[]), True),
    "no_delivery_tag": (bell(properties=properties(delivery_tag=None)), True),
    "odd_routing": (bell(properties=properties(delivery_info="nowhere")), True),
}
ODD = sum(not is_bell for _, is_bell in KINDS.values())


def raw(message: Any) -> bytes:
    return message if isinstance(message, bytes) else json.dumps(message).encode()


@pytest.fixture
def ringing(make_fleet: Callable[..., Fleet], redis_url: str, ledger_name: str, tmp_path: Path) -> Fleet:
    """One worker, waiting for bells."""
    fleet = make_fleet(redis_url, ledger_name, f"sqlite:///{tmp_path / 'audit.sqlite3'}")
    fleet.start()
    return fleet


@pytest.fixture
def tcp_redis_url(tmp_path: Path) -> Iterator[str]:
    """A server on a port: a socket's URL takes another way through kombu."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen([find_binary(), *options], stdout=subprocess.DEVNULL) as server:
        yield f"redis://127.0.0.1:{port}/0"
        server.terminate()


def queue_of(fleet: Fleet) -> str:
    return f"{{{fleet.ledger}}}:bells"


def test_no_message_stops_the_worker(ringing: Fleet, redis_client: "Redis") -> None:
    (worker,) = ringing.workers
    queue, cancels = queue_of(ringing), ringing.queue()
    for order, (kind, (message, _)) in enumerate(KINDS.items(), start=1):
        redis_client.lpush(queue, raw(message))
        ringing.exchange.add_orders(order)
        assert cancels.cancel(order_id=order).status == "accepted"
        eventually(
            lambda order=order: ringing.exchange.requests(order),
            seconds=SOON,
            what=f"the cancel after {kind}",
        )
        eventually(lambda: redis_client.llen(queue) == 0, what="an empty queue")
        assert worker.process.poll() is None, kind
    said = worker.said()
    assert said.count("bell.dropped") == ODD
    assert "Traceback" not in said
    assert {row["posts"] for row in ringing.exchange.truth().values()} == {1}
    assert worker.terminate() == 0


def test_all_of_them_at_once_stop_nothing_over_tcp_either(
    make_fleet: Callable[..., Fleet], tcp_redis_url: str, ledger_name: str, tmp_path: Path
) -> None:
    fleet = make_fleet(tcp_redis_url, ledger_name, f"sqlite:///{tmp_path / 'audit.sqlite3'}")
    worker = fleet.start()
    with Redis.from_url(tcp_redis_url) as client:
        client.lpush(queue_of(fleet), *(raw(message) for message, _ in KINDS.values()))
    fleet.exchange.add_orders(1)
    fleet.queue().cancel(order_id=1)
    eventually(lambda: fleet.exchange.requests(1), seconds=SOON, what="the cancel")
    eventually(lambda: worker.said().count("bell.dropped") == ODD, what="the count")
    assert "Traceback" not in worker.said()
    assert worker.terminate() == 0


def test_a_lost_bell_costs_a_sweep(ringing: Fleet, redis_client: "Redis") -> None:
    queue, cancels = queue_of(ringing), ringing.queue()
    orders = range(1, 21)
    ringing.exchange.add_orders(*orders)
    for order in orders:
        cancels.cancel(order_id=order)
        redis_client.delete(queue)
    eventually(lambda: len(ringing.exchange.requests()) == len(orders), seconds=SOON, what="all cancels")
    ringing.ends(len(orders))
    assert {row["posts"] for row in ringing.exchange.truth().values()} == {1}


def test_what_is_no_queue_at_all_is_removed_and_costs_a_sweep(ringing: Fleet, redis_client: "Redis") -> None:
    """A producer is not refused for it, and Celery takes bells again."""
    ringing.exchange.add_orders(1, 2)
    redis_client.delete(queue_of(ringing))
    for order in (1, 2):
        redis_client.set(queue_of(ringing), "x")
        called = time.time()
        assert ringing.queue().cancel(order_id=order).status == "accepted"
        (seen,) = ringing.exchange.wait_for_posts(1, order)
        assert seen["at"] / 1e6 - called < LATE
    eventually(lambda: redis_client.type(queue_of(ringing)) != "string", what="a removal")
    redis_client.lpush(queue_of(ringing), "no bell")
    eventually(lambda: "bell.dropped" in ringing.workers[0].said(), what="a listener")
    assert ringing.workers[0].terminate() == 0
    assert "Traceback" not in ringing.workers[0].said()


def test_a_thousand_bells_send_each_cancel_once(ringing: Fleet, redis_client: "Redis") -> None:
    queue, orders = queue_of(ringing), range(1, 51)
    ringing.exchange.defaults(latency=0.1)
    ringing.exchange.add_orders(*orders)
    ringing.queue().cancel_many([{"order_id": order} for order in orders])
    redis_client.lpush(queue, *(raw(bell()) for _ in range(1000)))
    jobs = ringing.ends(len(orders))
    ringing.exchange.defaults(latency=0)
    assert {job["outcome"] for job in jobs.values()} == {"canceled"}
    assert {row["posts"] for row in ringing.exchange.truth().values()} == {1}
    eventually(lambda: redis_client.llen(queue) == 0, seconds=20, what="an empty queue")
    assert "bell.dropped" not in ringing.workers[0].said()


def test_a_storm_of_a_hundred_thousand_messages_delays_no_cancel_and_is_cut_off(
    ringing: Fleet, redis_client: "Redis"
) -> None:
    (worker,) = ringing.workers
    queue, cancels, orders = queue_of(ringing), ringing.queue(), range(1, 31)
    ringing.exchange.add_orders(*orders)
    messages = [*(raw(message) for message, _ in KINDS.values() if len(raw(message)) < 20_000), raw(bell())]
    for order in orders:
        redis_client.lpush(queue, *itertools.islice(itertools.cycle(messages), 100_000 // len(orders) + 1))
        called = time.time()
        assert cancels.cancel(order_id=order).status == "accepted"
        (seen,) = ringing.exchange.wait_for_posts(1, order)
        assert seen["at"] / 1e6 - called < LATE
    ringing.ends(len(orders))
    eventually(lambda: redis_client.llen(queue) == 0, seconds=20, what="an empty queue")
    assert {row["posts"] for row in ringing.exchange.truth().values()} == {1}
    said = worker.said()
    assert "bell.storm" in said
    assert said.count("bell.dropped") < 20_000
    assert "Traceback" not in said
    assert worker.terminate() == 0


# --- Celery that stops consuming


def hangs(fleet: Fleet, _redis: "Redis") -> None:
    """With a bell in hand; what is rung later lies in the queue."""
    fleet.fork(doom=Deafness(hangs=True)).when_ready()


def swallows(fleet: Fleet, _redis: "Redis") -> None:
    """No bell is left in the queue, and none is answered."""
    fleet.fork(doom=Deafness(hangs=False)).when_ready()


def is_cut_off(fleet: Fleet, redis: "Redis") -> None:
    """Three times, as soon as it listens."""
    fleet.fork().when_ready()
    for _ in range(3):
        for client in eventually(lambda: listeners(redis), what="Celery that listens"):
            redis.client_kill_filter(_id=client)


def listeners(redis: "Redis") -> list[str]:
    return [client["id"] for client in redis.client_list() if client["cmd"] == "brpop"]


@pytest.mark.parametrize("breakdown", [hangs, swallows, is_cut_off])
def test_due_work_goes_out_soon_when_celery_stops_consuming(
    breakdown: Callable[[Fleet, "Redis"], None], plain_fleet: Fleet, redis_client: "Redis"
) -> None:
    orders = range(1, 4)
    plain_fleet.exchange.add_orders(*orders)
    breakdown(plain_fleet, redis_client)
    for order in orders:
        plain_fleet.queue().cancel(order_id=order)
        eventually(
            lambda order=order: plain_fleet.exchange.requests(order), seconds=SOON, what=f"cancel {order}"
        )
        plain_fleet.ends(order)  # idle again: the next one is nobody's by-catch
    if breakdown is not is_cut_off:
        assert plain_fleet.workers[0].said().count("bell.unheard") >= len(orders)
        assert "a bell was not answered" in plain_fleet.workers[0].said()
