"""The Python client: what it makes of requests, how long it waits, and that its errors are true."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from redis import Redis

from tests.parts.exchange import eventually
from tests.parts.ledger import Door
from tests.parts.tls import Authority
from tests.parts.valkey import PrivateValkey, Server
from worker import CancelQueue, EnqueueError, MaybeStored, NotStored
from worker.clock import from_micros
from worker.errors import ConfigError, LedgerUnavailable
from worker.ledger.client import Ledger

# The bound is one second; the rest is for a busy machine.
IN_TIME = 1.5
NOBODY = "redis://user:secret@127.0.0.1:1/0"


@contextmanager
def in_time(seconds: float = IN_TIME) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


@contextmanager
def slow(turn: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server at whose every connection it is `turn`'s turn ten times a second, for far more than a call's bound."""
    over = threading.Event()
    at_work: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            for _ in range(35):
                turn(connection)
                if over.wait(0.1):
                    return

    def listen() -> None:
        with suppress(OSError):
            while True:
                at_work.append(threading.Thread(target=serve, args=listener.accept()[:1]))
                at_work[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        door = threading.Thread(target=listen)
        door.start()
        yield listener.getsockname()[1]
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        for thread in (door, *at_work):
            thread.join()


@pytest.fixture
def queue(ledger: Ledger, redis_url: str) -> Iterator[CancelQueue]:
    with CancelQueue(redis_url, ledger.name) as queue:
        yield queue


@pytest.fixture
def private_queue(
    private_valkey: PrivateValkey, make_ledger: Callable[[str, str], Ledger]
) -> Iterator[CancelQueue]:
    make_ledger(private_valkey.url, "cancelq")
    with CancelQueue(private_valkey.url) as queue:
        yield queue


def test_a_receipt_says_what_became_of_the_request(queue: CancelQueue) -> None:
    receipt = queue.cancel(order_id=123, account="DEMO1", request_id="r")
    assert (receipt.status, receipt.request_id, receipt.error) == ("accepted", "r", None)
    assert (receipt.account, receipt.order_id) == ("DEMO1", 123)
    assert receipt.job_id is not None
    assert queue.status(job_id=receipt.job_id)["state"] == "queued"
    assert queue.status(order_id=123, account="DEMO1")["jobId"] == receipt.job_id
    assert '"jobId"' in receipt.to_json()


def test_a_request_id_is_made_when_none_is_given(queue: CancelQueue) -> None:
    first, second = queue.cancel(order_id=1), queue.cancel(order_id=1)
    assert (first.status, second.status) == ("accepted", "joined")
    assert len({first.request_id, second.request_id}) == 2
    assert queue.cancel(order_id=1, request_id=first.request_id).status == "duplicate"


def test_times_and_spans_are_understood(queue: CancelQueue, door: Door) -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    moment = datetime(2031, 1, 1, 5, 30, 0, 250, tzinfo=east)
    one = queue.cancel(order_id=1, activation_time=moment, deadline=timedelta(seconds=5))
    job = door.job(str(one.job_id))
    assert from_micros(int(job["activation_time"])) == moment
    assert int(job["deadline"]) - int(job["enqueued_at"]) == 5_000_000
    naive = datetime(2031, 1, 1, tzinfo=UTC).replace(tzinfo=None)
    two = queue.cancel(order_id=2, activation_time=naive, deadline=naive.replace(tzinfo=UTC))
    job = door.job(str(two.job_id))
    assert job["activation_time"] == job["deadline"]
    three = queue.cancel(order_id=3, activation_time=timedelta(hours=1), deadline=2.5)
    job = door.job(str(three.job_id))
    assert abs(int(job["activation_time"]) - int(job["enqueued_at"]) - 3_600_000_000) < 60_000_000


def test_what_is_none_is_left_out(queue: CancelQueue, door: Door) -> None:
    job_id = queue.cancel(order_id="7", deadline=None, requested_by=None, priority="urgent").job_id  # type: ignore[typeddict-item]
    job = door.job(str(job_id))
    assert (job["order_id"], job["priority"]) == ("7", "urgent")
    assert not {"deadline", "requested_by"} & set(job)


def test_a_wrong_value_is_refused_by_the_ledger_itself(queue: CancelQueue) -> None:
    receipt = queue.cancel(order_id=2**63, request_id="r")
    assert (receipt.status, receipt.request_id, receipt.durability) == ("refused", "r", None)
    assert str(receipt.error).startswith("orderId: ")


@pytest.mark.parametrize(
    ("name", "wish"),
    [
        ("foo", {"order_id": 5, "foo": 1}),
        ("orderId", {"orderId": 5}),
        ("orderId", {"order_id": Decimal(5)}),
        ("account", {"order_id": 5, "account": b"x"}),
        ("deadline", {"order_id": 5, "deadline": float("nan")}),
        ("deadline", {"order_id": 5, "deadline": float("inf")}),
        ("requestId", {"order_id": 5, "request_id": UUID(int=1)}),
    ],
)
def test_what_cannot_be_written_as_a_request_is_refused_and_sent_nowhere(name: str, wish: Any) -> None:
    with CancelQueue(NOBODY) as queue:
        receipt = queue.cancel(**wish)
    assert (receipt.status, receipt.durability) == ("refused", None)
    assert str(receipt.error).startswith(f"{name}: ")
    assert receipt.request_id == str(wish.get("request_id", receipt.request_id)) != ""


def test_many_requests_give_one_receipt_each_in_order(queue: CancelQueue) -> None:
    wishes: list[dict[str, object]] = [{"order_id": n} for n in range(1, 1201)]
    wishes[700] = {"order_id": 0}
    receipts = queue.cancel_many(wishes)
    assert [r.order_id for r in receipts if r.is_stored] == [n for n in range(1, 1201) if n != 701]
    assert receipts[700].status == "refused"


def test_no_single_request_of_many_raises(queue: CancelQueue) -> None:
    odd = [
        {"order_id": 1, "colour": "red"},
        {"order_id": 1, "deadline": float("nan")},
        {"order_id": 1, "account": object()},
        {"order_id": 10**5000},
        {"order_id": True},
        {"account": "A"},
        {"order_id": 1, "account": "\ud800"},
        5,
        {"order_id": 8},
    ]
    receipts = queue.cancel_many(odd)  # type: ignore[arg-type]
    assert [r.status for r in receipts] == ["refused"] * 8 + ["accepted"]
    assert all(r.request_id for r in receipts)
    named = ["colour", "deadline", "account", "orderId", "orderId", "orderId", "account", "a request"]
    assert [str(r.error).startswith(name) for r, name in zip(receipts, named, strict=False)] == [True] * 8


class Broken:
    """No text can be had of it."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class BrokenWish(dict[str, object]):
    def items(self) -> Any:
        raise RuntimeError("no fields")


@pytest.mark.parametrize(
    "wish",
    [{"order_id": 5, "request_id": Broken()}, {Broken(): 5}, BrokenWish(order_id=5)],
    ids=["request id", "key", "fields"],
)
def test_a_request_that_cannot_even_be_read_is_refused_alone(queue: CancelQueue, wish: Any) -> None:
    refused, accepted = queue.cancel_many([wish, {"order_id": 6}])
    assert (refused.status, accepted.status) == ("refused", "accepted")
    assert refused.error == "a request that cannot be read: RuntimeError"
    assert refused.request_id


# --- durability


def test_durability_is_memory_until_a_worker_has_proved_more(queue: CancelQueue, ledger: Ledger) -> None:
    assert queue.cancel(order_id=1).durability == "memory"
    ledger.stamp_durability()
    assert queue.cancel(order_id=1).durability == "fsynced"


def test_durability_is_only_claimed_for_the_very_server_process_it_was_proved_for(
    private_valkey: PrivateValkey, make_ledger: Callable[[str, str], Ledger]
) -> None:
    make_ledger(private_valkey.url, "cancelq").stamp_durability()
    private_valkey.kill()
    with CancelQueue(private_valkey.start()) as queue:
        assert queue.cancel(order_id=1).durability == "memory"


@pytest.mark.parametrize(
    "weaker", [{"appendfsync": "everysec"}, {"appendonly": "no"}, {"no-appendfsync-on-rewrite": "yes"}]
)
def test_a_weaker_setting_takes_the_stamp_away(
    private_valkey: PrivateValkey, make_ledger: Callable[[str, str], Ledger], weaker: dict[str, str]
) -> None:
    ledger = make_ledger(private_valkey.url, "cancelq")
    ledger.stamp_durability()
    with Redis.from_url(private_valkey.url) as redis, CancelQueue(private_valkey.url) as queue:
        assert queue.cancel(order_id=1).durability == "fsynced"
        for name, value in weaker.items():
            redis.config_set(name, value)
        ledger.stamp_durability()
        assert queue.cancel(order_id=1).durability == "memory"


@pytest.fixture(params=["valkey", "redis 7.0"])
def binary(request: pytest.FixtureRequest) -> Path | None:
    """The embedded server's, and the oldest one that has Functions."""
    if request.param == "valkey":
        return None
    found: Path = request.getfixturevalue("redis_7_0")
    return found


def test_a_receipt_says_replicated_only_when_a_replica_has_it(
    make_server: Callable[..., Server], make_ledger: Callable[[str, str], Ledger], binary: Path | None
) -> None:
    primary = make_server("primary", binary=binary)
    follow = ("--replicaof", f"127.0.0.1 {primary.port}")
    make_ledger(primary.url, "cancelq").stamp_durability()
    with CancelQueue(primary.url) as queue:
        assert queue.cancel(order_id=1).durability == "fsynced"
        replica = make_server("replica", *follow, binary=binary)
        eventually(lambda: queue.cancel(order_id=2).durability == "replicated", what="the replica")
        receipts = queue.cancel_many([{"order_id": 3}, {"order_id": "x"}, {"order_id": 4}])
        assert [r.durability for r in receipts] == ["replicated", None, "replicated"]
        assert replica.process is not None
        replica.process.send_signal(signal.SIGSTOP)
        with in_time():
            assert queue.cancel(order_id=5, request_id="r").durability == "fsynced"
    with CancelQueue(primary.url) as another:  # its connection wrote nothing that a replica could lack
        assert another.cancel(order_id=5, request_id="r").durability == "fsynced"
    with CancelQueue(primary.url) as queue:
        replica.stop()
        eventually(lambda: queue.cancel(order_id=6).durability == "fsynced", what="life without a replica")


def test_a_replica_proves_nothing_where_this_server_does_not_fsync(
    make_server: Callable[..., Server], make_ledger: Callable[[str, str], Ledger]
) -> None:
    primary = make_server("primary", "--appendfsync", "everysec")
    make_ledger(primary.url, "cancelq").stamp_durability()
    make_server("replica", "--replicaof", f"127.0.0.1 {primary.port}")
    with CancelQueue(primary.url) as queue, Redis.from_url(primary.url) as redis:
        eventually(lambda: redis.wait(1, 100) == 1, what="the replica")
        assert queue.cancel(order_id=1).durability == "memory"


def test_a_log_that_is_no_longer_written_proves_nothing(
    private_valkey: PrivateValkey, make_ledger: Callable[[str, str], Ledger]
) -> None:
    make_ledger(private_valkey.url, "cancelq").stamp_durability()
    with Redis.from_url(private_valkey.url) as redis, CancelQueue(private_valkey.url) as queue:
        redis.config_set("appendonly", "no")
        assert queue.cancel(order_id=1).durability == "memory"


def test_a_log_that_was_just_switched_on_proves_nothing_before_its_first_rewrite_has_ended(
    private_valkey: PrivateValkey, make_ledger: Callable[[str, str], Ledger]
) -> None:
    ledger = make_ledger(private_valkey.url, "cancelq")
    ledger.stamp_durability()
    with Redis.from_url(private_valkey.url) as redis, CancelQueue(private_valkey.url) as queue:
        redis.config_set("appendonly", "no")
        assert queue.cancel(order_id=1).durability == "memory"
        redis.config_set("rdb-key-save-delay", 200_000)  # microseconds a key: as if there were many
        redis.config_set("appendonly", "yes")
        ledger.stamp_durability()
        assert redis.info("persistence")["aof_rewrite_in_progress"] == 1
        assert queue.cancel(order_id=2).durability == "memory"
        redis.config_set("rdb-key-save-delay", 0)
        eventually(
            lambda: redis.info("persistence")["aof_rewrite_in_progress"] == 0, what="the rewrite's end"
        )
        ledger.stamp_durability()
        assert queue.cancel(order_id=3).durability == "fsynced"
        redis.config_set("rdb-key-save-delay", 200_000)
        redis.bgrewriteaof()  # an ordinary one: the old file is written on
        ledger.stamp_durability()
        assert redis.info("persistence")["aof_rewrite_in_progress"] == 1
        assert queue.cancel(order_id=4).durability == "fsynced"


# --- who may enqueue


def test_a_strategy_needs_only_few_rights(private_valkey: PrivateValkey, private_queue: CancelQueue) -> None:
    rights = "+fcall +time +get +set +exists +hget +hgetall +hset +hdel +llen +lpush +rpush +zadd +zrem +zscore +info"
    with Redis.from_url(private_valkey.url) as redis:
        redis.execute_command(
            "ACL", "SETUSER", "strategy", "on", ">pw", "~{cancelq}:*", *rights.split(), "-@all"
        )
        redis.execute_command(
            "ACL", "SETUSER", "strategy", "on", ">pw", "~{cancelq}:*", "~{cancelq}", *rights.split()
        )
    url = private_valkey.url.replace("unix://", "unix://strategy:pw@")
    with CancelQueue(url) as queue:
        statuses = [queue.cancel(order_id=1).status, queue.cancel(order_id=1, priority="urgent").status]
        assert statuses == ["accepted", "joined"]
        assert queue.status(order_id=1)["joiners"] == 1


# --- when Redis is away


def test_a_missing_redis_is_not_stored_in_time_and_without_the_password() -> None:
    with CancelQueue(NOBODY) as queue, in_time(), pytest.raises(NotStored) as caught:
        queue.cancel(order_id=1, request_id="r")
    assert caught.value.request_id == "r"
    assert "redis://127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_many_requests_to_a_missing_redis_are_all_not_stored() -> None:
    with CancelQueue(NOBODY) as queue, in_time():
        receipts = queue.cancel_many([{"order_id": 1}, {"order_id": 2}])
    assert [r.status for r in receipts] == ["not_stored"] * 2


def test_status_of_a_missing_redis_is_an_error_in_time() -> None:
    with CancelQueue(NOBODY) as queue, in_time(), pytest.raises(LedgerUnavailable):
        queue.status(job_id="x")


def test_a_redis_without_functions_is_not_stored_and_says_what_to_do(private_valkey: PrivateValkey) -> None:
    with CancelQueue(private_valkey.url) as queue, pytest.raises(NotStored, match="cancelq migrate"):
        queue.cancel(order_id=1)


def test_a_frozen_redis_is_maybe_stored_in_time_and_a_repetition_is_safe(
    private_valkey: PrivateValkey, private_queue: CancelQueue
) -> None:
    private_queue.cancel(order_id=1)
    private_valkey.freeze()
    with in_time(), pytest.raises(MaybeStored) as caught:
        private_queue.cancel(order_id=2)
    private_valkey.thaw()
    again = private_queue.cancel(order_id=2, request_id=caught.value.request_id)
    assert again.status in {"accepted", "duplicate"}
    assert private_queue.status(order_id=2)["joiners"] == 0


@pytest.mark.parametrize(("credentials", "fate"), [("", MaybeStored), (":pw@", NotStored)])
def test_a_server_that_accepts_and_never_speaks_is_given_up_in_time(
    credentials: str, fate: type[EnqueueError]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"redis://{credentials}127.0.0.1:{mute.getsockname()[1]}"
        with CancelQueue(url) as queue, in_time(), pytest.raises(fate):
            queue.cancel(order_id=1)


@pytest.mark.parametrize(
    ("credentials", "fate"), [("", MaybeStored), (":pw@", NotStored)], ids=["answer", "greeting"]
)
@pytest.mark.parametrize("first", [b"+", b"$300\r\n"], ids=["line", "text"])
def test_an_answer_that_comes_byte_by_byte_is_given_up_in_time(
    credentials: str, fate: type[EnqueueError], first: bytes
) -> None:
    def drip(connection: socket.socket) -> None:
        if connection not in begun:
            begun.append(connection)
            connection.recv(65536)  # else it would lie there before anything was asked
            connection.sendall(first)
        connection.sendall(b"x")

    begun: list[socket.socket] = []
    with slow(drip) as port, CancelQueue(f"redis://{credentials}127.0.0.1:{port}") as queue:
        with in_time(), pytest.raises(fate):
            queue.cancel(order_id=1)
        with in_time():
            receipts = queue.cancel_many([{"order_id": 2}, {"order_id": 3}])
    assert {r.status for r in receipts} == {"unknown" if fate is MaybeStored else "not_stored"}


def test_a_greeting_under_tls_that_comes_byte_by_byte_is_given_up_in_time(
    open_door: Callable[..., int], authority: Authority
) -> None:
    with slow(lambda connection: connection.sendall(b"+")) as port:
        url = f"rediss://:pw@localhost:{open_door(port)}/0?ssl_ca_certs={quote(str(authority.file))}"
        with CancelQueue(url) as queue, in_time(), pytest.raises(NotStored):
            queue.cancel(order_id=1)


def test_a_server_that_reads_ever_so_slowly_is_given_up_in_time() -> None:
    wishes = [{"order_id": n, "custom_tag50": "x" * 16000} for n in range(1, 501)]
    with (
        slow(lambda connection: connection.recv(65536)) as port,
        CancelQueue(f"redis://127.0.0.1:{port}") as queue,
        in_time(),
    ):
        receipts = queue.cancel_many(wishes)
    # What never left is known not to be there; of the rest nobody knows.
    statuses = [r.status for r in receipts]
    assert statuses == sorted(statuses, reverse=True)
    assert {*statuses} == {"unknown", "not_stored"}
    assert len(statuses) == len(wishes)


def test_a_wrong_password_is_not_stored_and_not_told(private_valkey: PrivateValkey) -> None:
    with Redis.from_url(private_valkey.url) as redis:
        redis.config_set("requirepass", "right")
    url = private_valkey.url.replace("unix://", "unix://:wrong-secret@")
    with CancelQueue(url) as queue, pytest.raises(NotStored, match="password") as caught:
        queue.cancel(order_id=1)
    assert "wrong-secret" not in str(caught.value)


def test_a_new_client_of_a_frozen_redis_gives_up_in_time(
    private_valkey: PrivateValkey, private_queue: CancelQueue
) -> None:
    private_valkey.freeze()
    with in_time(), pytest.raises(EnqueueError):
        private_queue.cancel(order_id=2)
    private_valkey.thaw()


def test_many_requests_to_a_frozen_redis_are_unknown_in_time_per_chunk(
    private_valkey: PrivateValkey, private_queue: CancelQueue
) -> None:
    private_valkey.freeze()
    with in_time(2 * IN_TIME):
        receipts = private_queue.cancel_many([{"order_id": n} for n in range(1, 601)])
    private_valkey.thaw()
    assert receipts[0].status == receipts[500].status == "unknown"
    assert {r.status for r in receipts} <= {"unknown", "not_stored"}  # what no longer fitted into the socket


def test_a_late_answer_is_never_taken_for_the_next_one(
    private_valkey: PrivateValkey, private_queue: CancelQueue
) -> None:
    private_valkey.freeze()
    with pytest.raises(MaybeStored):
        private_queue.cancel(order_id=1, request_id="late")
    private_valkey.thaw()
    assert private_queue.cancel(order_id=2, request_id="next").request_id == "next"


def test_a_redis_killed_in_mid_call_is_maybe_stored(
    private_valkey: PrivateValkey, private_queue: CancelQueue
) -> None:
    private_queue.cancel(order_id=1)
    private_valkey.freeze()
    killer = threading.Timer(0.2, private_valkey.kill)
    killer.start()
    with in_time(), pytest.raises(MaybeStored):
        private_queue.cancel(order_id=2)
    killer.join()


def test_a_connection_that_the_server_closed_meanwhile_is_not_a_fault(
    private_valkey: PrivateValkey, private_queue: CancelQueue
) -> None:
    assert private_queue.cancel(order_id=1).is_stored
    private_valkey.kill()
    private_valkey.start()
    assert private_queue.cancel(order_id=2).status == "accepted"


def test_a_server_that_refuses_writes_is_not_stored(
    private_valkey: PrivateValkey, private_queue: CancelQueue
) -> None:
    with Redis.from_url(private_valkey.url) as redis:
        redis.config_set("maxmemory", "1")
        with pytest.raises(NotStored, match="maxmemory"):
            private_queue.cancel(order_id=1)
        redis.config_set("maxmemory", "0")
        redis.replicaof("127.0.0.1", "1")
        with pytest.raises(NotStored, match="replica"):
            private_queue.cancel(order_id=1)


def test_an_error_inside_the_function_is_maybe_stored(
    private_valkey: PrivateValkey, private_queue: CancelQueue
) -> None:
    with Redis.from_url(private_valkey.url) as redis:
        redis.set("{cancelq}:unregistered", "not a sorted set")
        with pytest.raises(MaybeStored):
            private_queue.cancel(order_id=1)
        redis.delete("{cancelq}:unregistered")
    private_queue.cancel(order_id=1)
    assert private_queue.status(order_id=1)["state"] == "queued"


@pytest.mark.parametrize(
    "url", ["http://host", "redis://host:notaport", "redis://host:0", "nonsense", "", "redis://h?db=x"]
)
def test_a_wrong_address_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match="CANCELQ_REDIS_URL"):
        CancelQueue(url)


def test_importing_the_client_costs_no_redis_no_celery_no_sqlalchemy() -> None:
    code = "import sys, worker; print([m for m in ('redis', 'celery', 'sqlalchemy', 'requests') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_a_worker_loads_no_ciphers_without_a_token_to_seal_and_nothing_for_colours() -> None:
    code = (
        "import sys, worker.app.logs, worker.app.process, worker.app.serve; "
        "print([m for m in ('cryptography.hazmat', 'rich', 'pygments') if m in sys.modules]); import rich"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_the_client_imports_neither_celery_nor_sqlalchemy() -> None:
    code = (
        "import sys; from worker import CancelQueue, Receipt, EnqueueError, NotStored, MaybeStored; "
        "print([m for m in ('celery', 'sqlalchemy', 'requests') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
