"""`cancelq up`: all parts on one machine, kept up through the death of each, gone with one Ctrl-C."""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis

from tests.parts.exchange import Exchange, eventually
from tests.parts.processes import is_running, started_from
from tests.parts.up import Up
from tests.parts.valkey import PrivateValkey

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


def test_a_drained_ledger_ends_it_and_a_worker_that_was_asked_to_end_comes_back(
    start_up: StartUp, exchange: Exchange
) -> None:
    exchange.add_orders(1)
    up = start_up("--no-flower").ready()
    os.kill(up.pid("worker"), signal.SIGTERM)
    up.wait_for("part.restarted", part="worker")
    assert up.cancel(1)["outcome"] == "canceled"
    up.cancelq("drain")
    assert up.process.wait(20) == 0
    assert up.events("up.ending", exit=0)
    came_back, stayed_away = up.events("part.ended", part="worker", exit=0)
    assert (came_back["level"], came_back["again_in"]) == ("error", 0.2)
    assert (stayed_away["level"], "again_in" in stayed_away) == ("info", False)


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


def test_two_at_once_in_one_folder_share_the_valkey_and_the_other_inherits_it(
    start_up: StartUp, exchange: Exchange
) -> None:
    exchange.add_orders(1)
    first, second = start_up(), start_up()
    assert first.ready().flower("/")[0] == second.ready().flower("/")[0] == 200
    assert first.flower_url() != second.flower_url()
    valkeys = [up.events("part.started", part="valkey")[0]["pid"] for up in (first, second)]
    assert valkeys.count(None) == 1
    owner, heir = (first, second) if valkeys[0] is not None else (second, first)
    assert owner.end() == 0
    assert heir.cancel(1)["outcome"] == "canceled"
    assert heir.end() == 0
    assert not started_from(first.home)


def test_a_request_to_end_at_any_moment_of_the_start_leaves_nothing(start_up: StartUp) -> None:
    """Before the handler stands the signal itself ends the process, and nothing was begun yet."""
    ups = [start_up() for _ in range(6)]
    for nth, up in enumerate(ups):
        eventually(partial(has_come_to, up, seconds=0.15 * nth), what="the moment")
        assert up.end(signal.SIGTERM) in {0, -signal.SIGTERM}
        assert "Traceback" not in up.said()
    eventually(lambda: not started_from(ups[0].home), what="the end of every process")


def has_come_to(up: Up, seconds: float) -> bool:
    """Whether the process has used so much processor time, or needed less for its whole start."""
    fields = Path(f"/proc/{up.process.pid}/stat").read_text().rsplit(")")[-1].split()
    used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used >= seconds or "worker.started" in up.said()


# --- Flower


@pytest.fixture
def watched(start_up: StartUp) -> Up:
    """With Flower; another may hold the usual port, so it says where."""
    up = start_up()
    up.wait_for("part.started", part="worker")
    return up


def test_flower_lets_in_who_knows_the_password_and_nobody_else(watched: Up) -> None:
    assert watched.flower("/api/workers", password=None)[0] == 401
    assert watched.flower("/api/workers", password="guess")[0] == 401
    assert watched.flower("/")[0] == 200


def test_flower_shows_the_worker_online_and_its_queue(watched: Up) -> None:
    shown_as(watched, {watched.pid("worker"): True})
    status, page = watched.flower("/broker")
    assert (status, "{cancelq}:bells" in page) == (200, True)
    assert f"cancelq-{watched.pid('worker')}@" in watched.flower("/")[1]


@pytest.mark.parametrize(
    "path",
    [
        "/api/task/revoke/some-job?terminate=true",
        "/api/worker/shutdown/somebody",
        "/api/task/send-task/cancelq.bell",
    ],
)
def test_flower_changes_nothing(watched: Up, path: str) -> None:
    status, said = watched.flower(path, method="POST", body="{}")
    assert (status, "Read only" in said) == (403, True)


def test_the_password_is_seen_in_no_place_but_its_file(watched: Up) -> None:
    file = watched.home / "flower-password"
    assert file.stat().st_mode & 0o777 == 0o600
    password = file.read_text().strip()
    assert len(password) >= 32
    assert watched.flower("/")[0] == 200
    seen = [watched.said()]
    for pid in (watched.process.pid, *watched.pids()):
        seen += [Path(f"/proc/{pid}/{name}").read_text(errors="replace") for name in ("cmdline", "environ")]
    assert not any(password in text for text in seen)


def test_flower_listens_on_this_machine_only(watched: Up) -> None:
    port = urlsplit(watched.flower_url()).port
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [line[1] for line in lines if line[3] == "0A" and int(line[1].split(":")[1], 16) == port]
    assert listening == [f"0100007F:{port:04X}"]


def test_a_killed_flower_comes_back_with_the_same_address_and_password(watched: Up) -> None:
    worker = watched.pid("worker")
    assert watched.flower("/")[0] == 200
    watched.kill("flower")
    watched.wait_for("part.restarted", part="flower")
    assert watched.flower("/")[0] == 200
    assert watched.pid("worker") == worker


def test_a_flower_that_can_not_run_leaves_the_worker_alone(start_up: StartUp, exchange: Exchange) -> None:
    exchange.add_orders(1)
    up = start_up().ready()
    (up.home / "flower-password").unlink()
    up.kill("flower")
    up.wait_for("part.ended", part="flower", exit=2)
    assert up.cancel(1)["outcome"] == "canceled"
    assert up.end() == 0


def test_a_frozen_flower_does_not_hold_up_the_end(watched: Up) -> None:
    watched.ready()
    flower = watched.pid("flower")
    os.kill(flower, signal.SIGSTOP)
    assert watched.end(bound=10) == 0
    assert not is_running(flower)


def test_a_worker_that_ends_is_shown_offline_and_its_successor_online(watched: Up) -> None:
    watched.ready()
    first = watched.pid("worker")
    shown_as(watched, {first: True})
    os.kill(first, signal.SIGTERM)
    watched.wait_for("worker.started", count=2)
    shown_as(watched, {first: False, watched.pid("worker"): True})


def shown_as(up: Up, workers: dict[int, bool]) -> None:
    """Wait until Flower shows exactly these, by pid, as online or not."""
    host = socket.gethostname()
    wanted = {f"cancelq-{pid}@{host}": online for pid, online in workers.items()}

    def shown() -> bool:
        status, said = up.flower("/api/workers?status=1")
        return status == 200 and json.loads(said) == wanted

    eventually(shown, seconds=20, what=f"{wanted} in Flower")


def test_a_redis_with_a_password_is_used_and_its_password_shown_nowhere(
    start_up: StartUp, exchange: Exchange, private_valkey: PrivateValkey
) -> None:
    exchange.add_orders(1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Redis.from_url(private_valkey.url) as redis:
        redis.config_set("bind", "127.0.0.1")
        redis.config_set("port", port)
        redis.config_set("requirepass", "redis-secret")
    up = start_up(redis_url=f"redis://:redis-secret@127.0.0.1:{port}/0").ready()
    shown_as(up, {up.pid("worker"): True})
    assert up.cancel(1)["outcome"] == "canceled"
    status, page = up.flower("/broker")
    assert (status, "{cancelq}:bells" in page) == (200, True)
    seen = [page, up.said(), *started_from(up.home).values()]
    assert not any("redis-secret" in text for text in seen)


def test_flower_and_all_others_end_together(watched: Up) -> None:
    watched.ready()
    assert watched.end() == 0
    assert [event["part"] for event in watched.events("part.stopped")] == ["worker", "flower", "valkey"]
    assert not any(is_running(pid) for pid in watched.pids())
    assert "Traceback" not in watched.said()


def test_a_kill_of_up_takes_flower_along(watched: Up) -> None:
    pids = watched.pids()
    assert len(pids) == 3
    watched.end(signal.SIGKILL)
    eventually(lambda: not any(is_running(pid) for pid in pids), what="the end of every process")


def test_a_port_that_is_taken_is_refused_when_asked_for(start_up: StartUp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        up = start_up("--flower-port", str(taken.getsockname()[1]))
        assert up.process.wait(20) == 2
    assert "--flower-port" in up.said()


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_a_password_that_others_can_read_is_refused(start_up: StartUp, tmp_path: Path, mode: int) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "flower-password").write_text("a-password-of-mine")
    (home / "flower-password").chmod(mode)
    up = start_up()
    assert up.process.wait(20) == 2
    assert "flower-password" in up.said()
    assert "a-password-of-mine" not in up.said()


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
    (end,) = up.events("part.ended", part="worker", exit=2)
    assert (end["level"], "again_in" in end) == ("error", False)


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
