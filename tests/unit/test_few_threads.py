"""A host that gives no more threads: what is there goes on with fewer, and nobody waits for ever."""

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from tests.parts.exchange import eventually
from worker.app.health import Health
from worker.app.monitor import Monitor
from worker.exchange.names import Names
from worker.settings import Endpoint
from worker.work.shift import WORKS_OF_A_THREAD, Senders

BOUND = timedelta(seconds=5)
# No address space has room for such a stack: the system refuses the thread as it would at its limit.
TOO_LARGE = 1 << 46


@contextmanager
def no_more_threads() -> Iterator[None]:
    usual = threading.stack_size(TOO_LARGE)
    try:
        yield
    finally:
        threading.stack_size(usual)


@pytest.fixture
def senders() -> Iterator[Senders]:
    made = Senders(8)
    made.start()
    yield made
    made.stop(BOUND)


def done_by(senders: Senders, count: int) -> int:
    """How many of `count` works are done within the bound."""
    done = threading.Semaphore(0)
    for _ in range(count):
        senders.hand(done.release)
    return sum(done.acquire(timeout=BOUND.total_seconds()) for _ in range(count))


def test_reserved_work_is_done_by_fewer_threads(senders: Senders, capsys: pytest.CaptureFixture[str]) -> None:
    with no_more_threads():
        senders.reserve(4)
        senders.reserve(4)
    assert done_by(senders, 8) == 8
    eventually(lambda: senders.free == 1, what="the one there is at rest")
    assert capsys.readouterr().out.count("senders.fewer") == 1


def test_the_last_threads_of_a_host_are_left_to_others(senders: Senders) -> None:
    senders.reserve(7)
    with no_more_threads():
        senders.reserve(1)
    assert done_by(senders, 8) == 8
    eventually(lambda: senders.free == 3, what="all that are left at rest")


def test_senders_without_any_thread_do_not_begin() -> None:
    with no_more_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
        Senders(8).start()


def workers_of(works: int, *, lent: AbstractContextManager[None]) -> set[threading.Thread]:
    """The threads that did so many works, one after the other, where one is allowed at a time."""
    senders, seen, done = Senders(1), set(), threading.Semaphore(0)
    senders.start()
    with lent:
        for _ in range(works):
            senders.reserve()
            senders.hand(lambda: seen.add(threading.current_thread()) or done.release())
            assert done.acquire(timeout=BOUND.total_seconds())
    senders.stop(BOUND)
    return seen


def test_a_sender_makes_room_for_another_after_its_works() -> None:
    seen = workers_of(2 * WORKS_OF_A_THREAD + 1, lent=nullcontext())
    assert len(seen) == 3
    eventually(lambda: not any(thread.is_alive() for thread in seen), what="all ended")


def test_a_sender_goes_on_where_there_is_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(workers_of(2 * WORKS_OF_A_THREAD, lent=no_more_threads())) == 1
    assert "sender.broke" not in capsys.readouterr().out


def test_senders_that_do_not_finish_are_left_at_the_bound(capsys: pytest.CaptureFixture[str]) -> None:
    senders, finish = Senders(1), threading.Event()
    senders.start()
    senders.reserve()
    senders.hand(lambda: bool(finish.wait()) and None)
    senders.stop(timedelta(milliseconds=50))
    assert "senders.left" in capsys.readouterr().out
    finish.set()
    senders.stop(BOUND)


def test_a_name_that_nobody_can_look_up_is_an_error_and_asked_again() -> None:
    names = Names()
    with no_more_threads(), pytest.raises(OSError, match="no look-up of localhost"):
        names.addresses("localhost", 80, within=5)
    assert names.addresses("localhost", 80, within=5)


def test_health_is_told_without_a_thread_to_spare() -> None:
    monitor = Monitor(Endpoint("127.0.0.1", 0), CollectorRegistry())
    try:
        monitor.begin(lambda: Health(reasons=(), notes=()))
        with no_more_threads():
            where = f"http://127.0.0.1:{monitor.socket.getsockname()[1]}/health"
            assert urllib.request.urlopen(where, timeout=5).status == 200
    finally:
        monitor.shutdown()
        monitor.server_close()
