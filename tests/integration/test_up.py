"""`cancelq up`: all parts on one machine, kept up through the death of each, gone with one Ctrl-C."""

import signal
import socket
import sys
from collections.abc import Callable

import pytest

from tests.parts.exchange import Exchange, eventually
from tests.parts.up import Up, is_running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
StartUp = Callable[..., Up]


def test_a_cancel_ends_proven_on_parts_that_up_started(start_up: StartUp, exchange: Exchange) -> None:
    exchange.add_orders(1)
    up = start_up("--no-flower").ready()
    assert up.cancel(1)["outcome"] == "canceled"
    assert exchange.truth()[1]["posts"] == 1
    assert (up.home / "audit.sqlite3").exists()


def test_a_killed_worker_is_started_again_and_the_next_cancel_ends(
    start_up: StartUp, exchange: Exchange
) -> None:
    exchange.add_orders(1, 2)
    up = start_up("--no-flower").ready()
    up.cancel(1)
    up.kill("worker")
    up.wait_for("part.ended", part="worker", exit=-signal.SIGKILL)
    up.wait_for("part.restarted", part="worker")
    assert up.cancel(2)["outcome"] == "canceled"


def test_a_killed_valkey_comes_back_with_every_accepted_cancel(start_up: StartUp, exchange: Exchange) -> None:
    exchange.add_orders(1, 2)
    up = start_up("--no-flower").ready()
    exchange.script(1, {"delay": 1.0})
    job = up.cancelq("enqueue", "1")["jobId"]
    exchange.wait_for_posts(1, 1)
    up.kill("valkey")
    up.wait_for("part.restarted", part="valkey")

    def done() -> bool:
        return bool(up.cancelq("status", job)["outcome"] == "canceled")

    eventually(done, seconds=30, what="the end of a cancel that was accepted before the kill")
    assert up.cancel(2)["outcome"] == "canceled"
    assert exchange.truth()[1]["max_in_flight"] == 1


@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT,) * 2])
def test_one_request_to_end_ends_all(start_up: StartUp, signals: tuple[signal.Signals, ...]) -> None:
    up = start_up("--no-flower").ready()
    assert up.end(*signals) == 0
    assert not any(is_running(pid) for pid in up.pids())
    order = [event["part"] for event in up.events("part.stopped")]
    assert order == ["worker", "valkey"]
    assert "Traceback" not in up.said()


def test_what_is_on_the_wire_is_finished_before_the_end(start_up: StartUp, exchange: Exchange) -> None:
    exchange.script(1, {"delay": 1.5})
    up = start_up("--no-flower").ready()
    up.cancelq("enqueue", "1")
    exchange.wait_for_posts(1, 1)
    assert up.end() == 0
    assert up.events("worker.stopped")
    assert not up.events("part.ended")


def test_a_kill_of_up_leaves_nothing(start_up: StartUp) -> None:
    up = start_up("--no-flower").ready()
    pids = up.pids()
    assert len(pids) == 2
    up.end(signal.SIGKILL)
    eventually(lambda: not any(is_running(pid) for pid in pids), what="the end of every process")


def test_a_second_up_on_the_same_folder_shares_the_valkey_and_inherits_it(
    start_up: StartUp, exchange: Exchange
) -> None:
    exchange.add_orders(1)
    first = start_up("--no-flower").ready()
    second = start_up("--no-flower").ready()
    assert second.events("part.started", part="valkey")[0]["pid"] is None
    assert first.end() == 0
    assert second.cancel(1)["outcome"] == "canceled"
    assert second.end() == 0


# --- what is wrong is said, and said once


def test_without_a_token_nothing_is_started_and_live_is_shown_first(start_up: StartUp) -> None:
    up = start_up(access_token=None, exchange_url="https://live.tradovateapi.com/v1")
    assert up.process.wait(20) == 2
    said = up.said()
    assert said.index("LIVE: https://live.tradovateapi.com/v1") < said.index("CANCELQ_ACCESS_TOKEN")
    assert not up.home.exists()


def test_no_password_is_said_and_a_worker_that_refuses_its_settings_is_not_started_again(
    start_up: StartUp,
) -> None:
    up = start_up("--no-flower", redis_url="redis://me:secret@127.0.0.1:6379/0?nonsense=1")
    assert up.process.wait(20) == 2
    assert "redis://127.0.0.1:6379/0" in up.said()
    assert "secret" not in up.said()
    assert up.said().count("CANCELQ_REDIS_URL: must be redis://") == 1


def test_a_worker_that_ends_soon_is_started_again_later_each_time(start_up: StartUp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    up = start_up("--no-flower", redis_url=f"redis://127.0.0.1:{port}/0")
    up.wait_for("part.ended", part="worker", exit=1, count=3)
    assert [end["again_in"] for end in up.events("part.ended")] == [0.2, 0.4, 0.8]
    assert up.end() == 0


def test_contradicting_options_are_refused(start_up: StartUp) -> None:
    up = start_up("--no-flower", "--flower-port", "5555")
    assert up.process.wait(20) == 2
    assert "--flower-port" in up.said()
