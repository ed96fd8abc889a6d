"""The embedded Valkey: durable, one per folder, shared by those who come, gone with its owner."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from kombu import Connection
from redis import Redis

from tests.parts.exchange import eventually
from tests.parts.processes import is_running
from tests.parts.valkey import PrivateValkey
from worker.embedded.valkey import ensure, find_binary
from worker.errors import ConfigError, LedgerUnavailable
from worker.ledger.connection import broker_settings

OWNER = """
import sys, pathlib
from worker.embedded.valkey import ensure
server = ensure(pathlib.Path(sys.argv[1]))
print(server.url, server.owned, server.pid, flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(home: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process that ensures the server of `home` until it is killed; and what it said of it."""
    command = [sys.executable, "-c", OWNER, str(home), *flags]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().split()
        finally:
            process.kill()


def put(url: str, value: str) -> None:
    with Redis.from_url(url) as redis:
        redis.set("key", value)


def got(url: str) -> bytes | None:
    with Redis.from_url(url) as redis:
        return redis.get("key")


def test_it_fsyncs_every_write_and_forgets_nothing(redis_client: "Redis") -> None:
    settings = redis_client.config_get("appendonly", "appendfsync", "save", "maxmemory-policy", "port")
    assert settings == {
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "port": "0",
    }


def test_its_files_are_for_its_owner_only(private_valkey: PrivateValkey) -> None:
    folder = private_valkey.home / "valkey"
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "socket").stat().st_mode & 0o077 == 0


def test_data_survive_a_kill_of_the_server(private_valkey: PrivateValkey) -> None:
    put(private_valkey.url, "kept")
    private_valkey.kill()
    assert got(private_valkey.start()) == b"kept"


def test_a_second_user_of_the_folder_shares_the_server(private_valkey: PrivateValkey) -> None:
    with ensure(private_valkey.home) as shared:
        assert not shared.owned
        assert shared.url == private_valkey.url
    assert got(private_valkey.url) is None  # it still answers


def test_many_starters_at_once_make_one_server(tmp_path: Path) -> None:
    servers, start = [], threading.Barrier(6)

    def begin() -> None:
        start.wait()
        servers.append(ensure(tmp_path))

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(server.owned for server in servers) == [False] * 5 + [True]
    for server in sorted(servers, key=lambda server: server.owned):
        server.stop()


def test_the_server_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    servers = []
    thread = threading.Thread(target=lambda: servers.append(ensure(tmp_path)))
    thread.start()
    thread.join()
    with servers[0] as server:
        put(server.url, "still there")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a child with its parent")
def test_the_server_dies_with_a_killed_parent(tmp_path: Path) -> None:
    with another_process(tmp_path) as (process, (url, owned, pid)):
        assert owned == "True"
        put(url, "kept")
        process.kill()
        process.wait()
        eventually(lambda: not is_running(int(pid)), what="the end of the server")
    with ensure(tmp_path) as server:
        assert server.owned
        assert got(server.url) == b"kept"


def test_a_process_that_shares_the_server_takes_over_when_the_owner_dies(tmp_path: Path) -> None:
    with another_process(tmp_path) as (process, _), ensure(tmp_path) as heir:
        put(heir.url, "kept")
        assert not heir.owned
        process.kill()
        eventually(lambda: heir.owned, what="the inheritance")
        assert got(heir.url) == b"kept"


def test_an_owner_waits_a_little_for_those_who_share(tmp_path: Path) -> None:
    owner = ensure(tmp_path)
    shared = ensure(tmp_path)
    leaving = threading.Thread(target=owner.stop)
    leaving.start()
    assert got(shared.url) is None
    shared.stop()
    leaving.join()
    assert not (tmp_path / "valkey" / "socket").exists()


def test_an_owner_does_not_wait_for_ever_and_another_takes_over(tmp_path: Path) -> None:
    owner = ensure(tmp_path / ("long" * 40))
    with ensure(tmp_path / ("long" * 40)) as heir:
        put(owner.url, "kept")
        owner.stop()
        eventually(lambda: heir.owned, what="the inheritance")
        assert got(heir.url) == b"kept"


def test_a_long_home_still_has_a_server(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 40)
    with ensure(home) as server, ensure(home) as shared:
        assert shared.url == server.url
        put(server.url, "here")
        folder = Path(server.url.removeprefix("unix://")).parent
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_a_home_with_spaces_and_signs_works(tmp_path: Path) -> None:
    with ensure(tmp_path / "my home?#%") as server:
        put(server.url, "here")
        with Connection(broker_settings(server.url)["broker_url"]) as connection:
            assert connection.default_channel.client.get("key") == b"here"


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(private_valkey: PrivateValkey) -> None:
    assert private_valkey.server.pid is not None
    assert os.getsid(private_valkey.server.pid) == private_valkey.server.pid


def test_a_frozen_server_is_reported_within_the_bound(private_valkey: PrivateValkey) -> None:
    private_valkey.freeze()
    with pytest.raises(LedgerUnavailable, match="does not answer"):
        ensure(private_valkey.home, bound=timedelta(milliseconds=100))


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with ensure(tmp_path):
        pass
    next((tmp_path / "valkey" / "appendonlydir").glob("*.manifest")).write_text("nonsense\n")
    with pytest.raises(LedgerUnavailable, match=r"did not start: .*manifest"):
        ensure(tmp_path)


def test_a_folder_of_somebody_else_is_never_used_for_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / ("long" * 40)
    with tempfile.TemporaryDirectory() as short:
        monkeypatch.setattr("tempfile.tempdir", short)
        with ensure(home) as server:
            folder = Path(server.url.removeprefix("unix://")).parent
        folder.mkdir(mode=0o755)
        with pytest.raises(ConfigError, match="not ours alone"):
            ensure(home)


def test_without_any_binary_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "vax")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="CANCELQ_REDIS_URL"):
        find_binary()


def test_a_server_on_the_path_is_the_second_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "redis-server").write_text("#!/bin/sh\n")
    (tmp_path / "redis-server").chmod(0o755)
    monkeypatch.setattr("platform.machine", lambda: "vax")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == tmp_path / "redis-server"


def test_stopping_continues_a_frozen_server_first(private_valkey: PrivateValkey) -> None:
    pid = private_valkey.server.pid
    private_valkey.freeze()
    private_valkey.stop()
    assert pid is not None
    assert not is_running(pid)
