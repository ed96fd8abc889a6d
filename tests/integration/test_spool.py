"""A producer's spool: what Redis could not take waits in a file, and goes on in order, once, or is named."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.parts.exchange import eventually
from tests.parts.ledger import Door
from tests.parts.valkey import PrivateValkey
from worker import CancelQueue, MaybeStored, NotStored, Receipt
from worker.clock import monotonic
from worker.errors import ConfigError
from worker.job import Steering
from worker.ledger import spool as spooling
from worker.ledger.client import Ledger
from worker.ledger.receipt import Fate, Letter, read_letter
from worker.ledger.relay import Relay
from worker.ledger.spool import Spool

NOBODY = "redis://user:secret@127.0.0.1:1/0"
# The bound of one second, the wait for the file, and a busy machine.
IN_TIME = 2.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def away(path: Path, ledger: Ledger) -> Iterator[CancelQueue]:
    """Its Redis is not there."""
    with CancelQueue(NOBODY, ledger.name, spool=path) as queue:
        yield queue


@pytest.fixture
def back(path: Path, ledger: Ledger, redis_url: str) -> Iterator[CancelQueue]:
    """Another one with the same file, made when something waits there; its Redis is there."""
    with CancelQueue(redis_url, ledger.name, spool=path) as queue:
        yield queue


def spooled(queue: CancelQueue, *orders: int, **wish: Any) -> list[Receipt]:
    receipts = [queue.cancel(order_id=order, request_id=f"r{order}", **wish) for order in orders]
    assert {receipt.status for receipt in receipts} == {"spooled"}
    return receipts


def in_order(door: Door) -> list[str]:
    """The request ids of all jobs, oldest first: ids of jobs sort by time."""
    jobs = sorted(door.redis.scan_iter(door.key("job:*")))
    return [door.redis.hget(job, "request_id") for job in jobs]


def refused(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(f"{path}.refused").read_text().splitlines()]


def test_a_request_that_could_not_be_stored_waits_on_disk_and_says_why(away: CancelQueue, path: Path) -> None:
    receipt = away.cancel(order_id=5, account="A", request_id="r")
    assert (receipt.status, receipt.request_id, receipt.job_id, receipt.durability) == (
        *("spooled", "r"),
        *(None, None),
    )
    assert "redis://127.0.0.1:1" in str(receipt.error)
    assert not receipt.is_stored
    kept = path.read_text()
    assert kept.endswith('{"orderId":5,"account":"A","requestId":"r"}\n')
    assert "secret" not in kept + str(receipt.error)
    assert path.stat().st_mode & 0o077 == 0


def test_of_many_only_what_a_ledger_could_take_is_kept(away: CancelQueue, path: Path) -> None:
    receipts = away.cancel_many(
        [{"order_id": 1}, {"colour": 1}, {"order_id": 2}, {"order_id": 3, "account": "x" * 20_000}]
    )
    assert [receipt.status for receipt in receipts] == ["spooled", "refused", "spooled", "refused"]
    assert path.read_text().count("orderId") == 2


def test_what_waits_goes_first_in_order_and_under_its_own_ids(
    away: CancelQueue, path: Path, door: Door, back: CancelQueue
) -> None:
    away.cancel_many([{"order_id": order, "request_id": f"r{order}"} for order in range(1, 1201)])
    assert back.cancel(order_id=2000, request_id="new").status == "accepted"
    assert in_order(door) == [f"r{order}" for order in range(1, 1201)] + ["new"]
    assert path.read_bytes() == b"cancelq spool 1 %012d %b\n" % (
        path.stat().st_size,
        door.prefix[1:-1].encode(),
    )


def test_a_new_object_sends_on_by_itself_what_an_old_one_left(
    away: CancelQueue, door: Door, path: Path, ledger: Ledger, redis_url: str
) -> None:
    spooled(away, 1, 2)
    with CancelQueue(redis_url, ledger.name, spool=path):
        eventually(lambda: in_order(door) == ["r1", "r2"], what="both requests")


def test_an_outage_is_bridged_without_another_call(
    private_valkey: PrivateValkey, make_ledger: Callable[[str, str], Ledger], path: Path
) -> None:
    url = private_valkey.url
    make_ledger(url, "cancelq")
    with CancelQueue(url, spool=path) as queue:
        assert queue.cancel(order_id=1).status == "accepted"
        private_valkey.kill()
        spooled(queue, 2, 3)
        private_valkey.start()
        with Redis.from_url(url, decode_responses=True) as redis:
            eventually(lambda: in_order(Door(redis, "cancelq"))[1:] == ["r2", "r3"], what="both requests")
        eventually(lambda: Spool(path, "cancelq").is_empty(), what="an empty spool")


def test_a_frozen_redis_costs_the_bound_and_what_it_took_is_a_duplicate(
    private_valkey: PrivateValkey, make_ledger: Callable[[str, str], Ledger], path: Path
) -> None:
    make_ledger(private_valkey.url, "cancelq")
    with CancelQueue(private_valkey.url, spool=path) as queue:
        queue.cancel(order_id=1)
        private_valkey.freeze()
        for order in (2, 3):
            began = time.monotonic()
            spooled(queue, order)
            assert time.monotonic() - began < IN_TIME
        private_valkey.thaw()
        assert queue.cancel(order_id=4).status in {"accepted", "spooled"}
        eventually(lambda: Spool(path, "cancelq").is_empty(), what="an empty spool")
        assert [queue.status(order_id=order)["joiners"] for order in (2, 3, 4)] == [0, 0, 0]


def test_a_deadline_in_seconds_counts_from_the_first_call(
    away: CancelQueue, path: Path, door: Door, back: CancelQueue
) -> None:
    began = time.time()
    spooled(away, 1, deadline=30)
    spooled(away, 2, deadline=timedelta(seconds=0.2))
    eventually(lambda: time.time() > began + 1.5, what="a deadline that is over")
    sent = back.send_on()
    assert [receipt.status for receipt in sent.receipts] == ["accepted", "refused"]
    job = door.job(str(sent.receipts[0].job_id))
    assert int(job["deadline"]) / 1e6 - began == pytest.approx(30, abs=0.5)
    assert int(job["enqueued_at"]) / 1e6 - began > 1.5


def test_a_request_that_is_refused_later_is_kept_with_the_reason_and_holds_nobody_up(
    away: CancelQueue, path: Path, door: Door, back: CancelQueue, caplog: pytest.LogCaptureFixture
) -> None:
    spooled(away, 1)
    away.cancel_many([{"order_id": 0, "request_id": "wrong"}, {"order_id": 2, "request_id": "r2"}])
    sent = back.send_on()
    assert [receipt.status for receipt in sent.receipts] == ["accepted", "refused", "accepted"]
    assert in_order(door) == ["r1", "r2"]
    (shelved,) = refused(path)
    assert shelved["error"].startswith("orderId: ")
    assert json.loads(shelved["request"]) == {"orderId": 0, "requestId": "wrong"}
    assert "spool.refused" in caplog.text


def test_what_is_refused_only_while_the_ledger_drains_goes_on_waiting(
    away: CancelQueue, ledger: Ledger, door: Door, back: CancelQueue
) -> None:
    spooled(away, 1)
    ledger.steer(Steering.DRAIN, action_id="a", by="me", because=None)
    assert "drained" in str(back.send_on().waiting)
    assert back.cancel(order_id=2, request_id="r2").status == "spooled"
    ledger.steer(Steering.RESUME, action_id="b", by="me", because=None)
    assert back.send_on().waiting is None
    assert in_order(door) == ["r1", "r2"]


# --- crashes and disks


@pytest.mark.parametrize("rest", [b"", b"0f", b'0f39fbbc {"orderId":9,"requ', b"\0" * 5000, b"x" * 70_000])
def test_a_torn_line_is_told_and_what_follows_is_not_lost(
    away: CancelQueue, path: Path, door: Door, back: CancelQueue, rest: bytes
) -> None:
    spooled(away, 1)
    with path.open("ab") as file:
        file.write(rest)
    spooled(away, 2)
    back.send_on()
    assert in_order(door) == ["r1", "r2"]
    if rest:
        (shelved,) = refused(path)
        assert shelved["error"].startswith("the line is damaged")
        assert shelved["request"] == rest.decode(errors="backslashreplace")


def test_a_torn_line_at_the_end_is_told_too(
    away: CancelQueue, path: Path, door: Door, back: CancelQueue
) -> None:
    spooled(away, 1, 2)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 5)
    back.send_on()
    assert in_order(door) == ["r1"]
    assert '"requestId":"' in refused(path)[0]["request"]
    assert back.send_on().receipts == []


def test_a_changed_line_is_not_sent(away: CancelQueue, path: Path, door: Door, back: CancelQueue) -> None:
    spooled(away, 1, 2, 3)
    path.write_bytes(path.read_bytes().replace(b'"orderId":2', b'"orderId":7'))
    back.send_on()
    assert in_order(door) == ["r1", "r3"]
    assert len(refused(path)) == 1


def test_a_position_that_cannot_be_sends_all_again_and_changes_nothing(
    away: CancelQueue, path: Path, door: Door, back: CancelQueue
) -> None:
    spooled(away, 1, 2)
    kept = path.read_bytes()
    back.send_on()
    for position in (b"000000000000", b"999999999999"):
        path.write_bytes(kept[:16] + position + kept[28:])
        assert [receipt.status for receipt in back.send_on().receipts] == ["duplicate"] * 2
    assert in_order(door) == ["r1", "r2"]


def test_a_file_that_was_cut_where_its_requests_begin_is_empty(
    away: CancelQueue, path: Path, ledger: Ledger, door: Door, back: CancelQueue
) -> None:
    spooled(away, 1, 2)
    spool = Spool(path, ledger.name)
    end = spool.read()[0].end
    spool.drop(end)
    os.truncate(path, end)
    assert (back.send_on().receipts, spool.is_empty()) == ([], True)
    spooled(away, 3)
    back.send_on()
    assert in_order(door) == ["r3"]


def test_a_file_whose_first_line_never_reached_the_disk_is_a_new_one(
    path: Path, ledger: Ledger, door: Door, back: CancelQueue
) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)
    with CancelQueue(NOBODY, ledger.name, spool=path) as queue:
        spooled(queue, 1)
    back.send_on()
    assert in_order(door) == ["r1"]


def test_a_request_of_several_lines_is_one_that_waits(
    away: CancelQueue, door: Door, back: CancelQueue
) -> None:
    (receipt,) = away.send([read_letter(b'{"orderId":5,\n "requestId":"r5"}')])
    assert receipt.status == "spooled"
    back.send_on()
    assert in_order(door) == ["r5"]


def test_the_file_has_a_bound_beyond_which_errors_are_as_without_it(away: CancelQueue, path: Path) -> None:
    spooled(away, 1)
    os.truncate(path, spooling.LARGEST - 10)
    with pytest.raises(NotStored, match=r"127\.0\.0\.1:1.*is full") as caught:
        away.cancel(order_id=2)
    assert caught.value.request_id
    assert away.cancel_many([{"order_id": 9}])[0].status == "not_stored"


def test_the_refused_ones_have_a_bound_too(back: CancelQueue, away: CancelQueue, path: Path) -> None:
    shelf, old = Path(f"{path}.refused"), Path(f"{path}.refused.old")
    for _ in range(2):
        shelf.touch()
        os.truncate(shelf, spooling.LARGEST_SHELF + 1)
        away.cancel_many([{"order_id": 0}])
        back.send_on()
    assert old.stat().st_size == spooling.LARGEST_SHELF + 1
    assert len(refused(path)) == 1


FULL_DISK = """
import resource, sys
from worker import CancelQueue, NotStored
url, ledger, path = sys.argv[1:]
with CancelQueue(url, ledger, spool=path) as queue:
    print(queue.cancel(order_id=1).status)
    print([r.status for r in queue.cancel_many([{"order_id": n, "requested_by": "x" * 100} for n in range(2, 50)])][0])
    try:
        print(queue.cancel(order_id=50, requested_by="x" * 128))
    except NotStored as error:
        print(error)
"""


def test_a_full_disk_gives_the_error_as_without_a_spool_and_keeps_what_was_kept(
    path: Path, ledger: Ledger, door: Door, back: CancelQueue
) -> None:
    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

    arguments = [sys.executable, "-c", FULL_DISK, NOBODY, ledger.name, str(path)]
    done = subprocess.run(arguments, preexec_fn=bound, capture_output=True, text=True, check=True)
    first, many, error = done.stdout.splitlines()
    assert (first, many) == ("spooled", "not_stored")
    assert "127.0.0.1:1" in error
    assert f"the spool {path} cannot be used: File too large" in error
    assert path.read_bytes().count(b"\n") == 2
    assert [receipt.status for receipt in back.send_on().receipts] == ["accepted"]
    assert not Path(f"{path}.refused").exists()


def test_a_spool_that_is_out_of_order_keeps_no_request_from_a_redis_that_is_there(
    away: CancelQueue, back: CancelQueue, path: Path
) -> None:
    spooled(away, 1)
    path.write_text("something else")
    assert back.cancel(order_id=2).status == "accepted"
    with pytest.raises(NotStored, match="is no spool of this ledger"):
        away.cancel(order_id=3)


# --- several at once


def test_a_file_that_somebody_holds_is_waited_for_within_a_bound(
    away: CancelQueue, path: Path, back: CancelQueue
) -> None:
    spooled(away, 1)
    with spooling._locked(path, spooling.PATIENCE):
        began = time.monotonic()
        with pytest.raises(NotStored, match="is in use"):
            away.cancel(order_id=2)
        assert time.monotonic() - began < IN_TIME
    with spooling._locked(Path(f"{path}.lock"), spooling.PATIENCE):
        began = time.monotonic()
        spooled(back, 3)
        assert time.monotonic() - began < IN_TIME
    assert len(back.send_on().receipts) == 2


def test_whoever_stands_still_while_sending_on_keeps_nobody_waiting(
    away: CancelQueue, path: Path, door: Door, back: CancelQueue, caplog: pytest.LogCaptureFixture
) -> None:
    spooled(away, 1)
    lock = Path(f"{path}.lock")
    with spooling._locked(lock, spooling.PATIENCE):
        spooled(back, 2)  # it may go on at any moment
        os.utime(lock, (0, 0))  # as a stopped process leaves it
        assert back.cancel(order_id=3, request_id="r3").status == "accepted"
        assert in_order(door) == ["r1", "r2", "r3"]
        assert "spool.passed_by" in caplog.text
        kept = path.read_bytes()
        assert back.cancel(order_id=4, request_id="r4").status == "accepted"
        assert path.read_bytes() == kept
    eventually(Spool(path, door.prefix[1:-1]).is_empty, what="an empty spool")
    assert in_order(door) == ["r1", "r2", "r3", "r4"]


def letter(order: int) -> Letter:
    return read_letter(b'{"requestId":"r%d","orderId":%d}' % (order, order))


def test_each_stall_is_gone_around_from_its_first_request_the_oldest_alone(path: Path) -> None:
    """Who stood still went on, emptied the file, and stands still again; then the server is loading its data."""
    taken: list[str] = []
    loading: list[Fate] = []

    def deliver(letters: Sequence[Letter], _give_up: timedelta) -> list[Receipt]:
        fates = [loading.pop() if loading else Fate.ACCEPTED for _ in letters]
        taken.extend(
            one.request_id for one, fate in zip(letters, fates, strict=True) if fate is Fate.ACCEPTED
        )
        return [one.returned(fate, "LOADING") for one, fate in zip(letters, fates, strict=True)]

    def sent(relay: Relay, order: int) -> str:
        return relay.send([letter(order)], monotonic() + timedelta(seconds=5))[0].status

    spool, lock = Spool(path, "cancelq"), Path(f"{path}.lock")
    relay = Relay(spool, deliver, timedelta(seconds=1))
    with spooling._locked(lock, spooling.PATIENCE):
        spool.append([letter(order).text for order in (1, 2, 3)])
        os.utime(lock, (1000, 1000))
        assert (sent(relay, 4), taken) == ("accepted", ["r1", "r2", "r3", "r4"])
        assert (sent(relay, 5), taken[4:]) == ("accepted", ["r5"])
        spool.drop(path.stat().st_size)
        spool.append([letter(6).text])
        os.utime(lock, (2000, 2000))
        assert (sent(relay, 7), taken[5:]) == ("accepted", ["r6", "r7"])
        spool.append([letter(order).text for order in (8, 9)])
        loading.append(Fate.NOT_STORED)
        assert (sent(relay, 10), taken[7:]) == ("spooled", [])
    relay.close()


def test_whoever_sends_on_says_so_before_each_batch_and_is_left_to_it(path: Path) -> None:
    spool, lock = Spool(path, "cancelq"), Path(f"{path}.lock")
    stood_still: list[bool] = []
    last_word = 0

    def deliver(letters: Sequence[Letter], _give_up: timedelta) -> list[Receipt]:
        stood_still.append(spool.stall(timedelta(seconds=3)) is not None)
        os.utime(lock, (last_word, last_word))
        return [one.returned(Fate.ACCEPTED, "") for one in letters]

    relay = Relay(spool, deliver, timedelta(seconds=1))
    spool.append([letter(order).text for order in range(1, spooling.BATCH + 3)])
    assert len(relay.send_on().receipts) == spooling.BATCH + 2
    assert stood_still == [False, True] * 2  # the oldest of each batch, and the others
    spool.append([letter(1).text])
    with spooling._locked(lock, spooling.PATIENCE):
        os.utime(lock, (1000, 1000))
        last_word = 2000  # it goes on while the first request is on its way
        assert relay.send([letter(2)], monotonic() + timedelta(seconds=5))[0].status == "spooled"
    relay.close()


PRODUCER = """
import itertools, sys
from worker import CancelQueue
url, path, number = sys.argv[1:]
with CancelQueue(url, spool=path) as queue:
    for n in itertools.count(1) if number == "1" else range(1, 401):  # the first one goes on until it is killed
        receipt = queue.cancel(order_id=int(number) * 10**6 + n, request_id=f"{number}-{n:06}")
        print(receipt.request_id, receipt.status.value, flush=True)
"""


def test_several_producers_share_one_file_while_redis_and_some_of_them_are_killed(
    private_valkey: PrivateValkey, make_ledger: Callable[[str, str], Ledger], path: Path, tmp_path: Path
) -> None:
    url = private_valkey.url
    make_ledger(url, "cancelq")
    logs = [tmp_path / f"said-{number}" for number in range(1, 4)]
    processes = []
    for number, log in enumerate(logs, start=1):
        with log.open("wb") as out:
            words = [sys.executable, "-c", PRODUCER, url, str(path), str(number)]
            processes.append(subprocess.Popen(words, stdout=out))
    eventually(lambda: all(log.stat().st_size > 200 for log in logs), seconds=20, what="first receipts")
    private_valkey.kill()
    eventually(lambda: path.stat().st_size > 10_000, seconds=20, what="a spool with requests")
    processes[0].send_signal(signal.SIGKILL)
    private_valkey.start()
    assert [process.wait(60) for process in processes] == [-signal.SIGKILL, 0, 0]
    with CancelQueue(url, spool=path) as queue:
        eventually(lambda: queue.send_on().waiting is None, seconds=20, what="an empty spool")
        assert not Path(f"{path}.refused").exists()
    promised = [line.split() for log in logs for line in log.read_text().splitlines()]
    assert {status for _, status in promised} == {"accepted", "spooled"}
    with Redis.from_url(url, decode_responses=True) as redis:
        door = Door(redis, "cancelq")
        stored = in_order(door)
        assert {door.redis.hget(key, "joiners") for key in door.redis.scan_iter(door.key("job:*"))} == {"0"}
    assert {request_id for request_id, _ in promised} <= set(stored)
    assert len(stored) == len(set(stored))
    for number in "123":
        own = [request_id for request_id in stored if request_id.startswith(number)]
        assert own == sorted(own)


def test_threads_of_one_object_share_it_too(away: CancelQueue, back: CancelQueue, door: Door) -> None:
    def ask(first: int) -> None:
        spooled(away, *range(first, first + 50))

    threads = [threading.Thread(target=ask, args=(first,)) for first in (100, 200, 300, 400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    back.send_on()
    stored = in_order(door)
    assert len(set(stored)) == 200
    for first in "1234":
        own = [request_id for request_id in stored if request_id[1] == first]
        assert own == sorted(own)


def test_what_waits_goes_in_order_through_a_server_that_is_still_loading(path: Path) -> None:
    """It answers LOADING to the first commands of a pipeline, and takes those that come after its data."""
    refusals = [3, 2, 0, 0]
    taken: list[str] = []

    def deliver(letters: Sequence[Letter], _give_up: timedelta) -> list[Receipt]:
        loading = refusals.pop(0)
        taken.extend(letter.request_id for letter in letters[loading:])
        return [
            letter.returned(Fate.NOT_STORED if nth < loading else Fate.ACCEPTED, "LOADING")
            for nth, letter in enumerate(letters)
        ]

    spool = Spool(path, "cancelq")
    spool.append([f'{{"orderId":{n},"requestId":"r{n}"}}' for n in range(1, 9)])
    relay = Relay(spool, deliver, timedelta(seconds=5))
    eventually(spool.is_empty, what="an empty spool")
    relay.close()
    assert taken == [f"r{n}" for n in range(1, 9)]


# --- wrong use


def test_a_path_that_can_be_no_spool_is_a_configuration_error(tmp_path: Path, ledger: Ledger) -> None:
    other = tmp_path / "other"
    Spool(other, "somebody else")
    (tmp_path / "text").write_text("this is my diary\n" * 10)
    for wrong, words in {
        tmp_path: "Is a directory",
        tmp_path / "no" / "folder": "No such file",
        Path("/dev/null"): "no regular file",
        other: "no spool of this ledger",
        tmp_path / "text": "no spool of this ledger",
    }.items():
        with pytest.raises(ConfigError, match=f"spool: {wrong} .*{words}"):
            CancelQueue(NOBODY, ledger.name, spool=wrong)
    assert (tmp_path / "text").read_text().startswith("this is my diary\nthis")


def test_without_a_spool_nothing_changes(ledger: Ledger) -> None:
    with CancelQueue(NOBODY, ledger.name) as queue:
        with pytest.raises((NotStored, MaybeStored)):
            queue.cancel(order_id=1)
        with pytest.raises(ConfigError, match="spool: there is none"):
            queue.send_on()
