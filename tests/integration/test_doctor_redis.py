"""`cancelq doctor` on a real Valkey that is not as it should be."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis

from tests.parts.doctor import Diagnose, Diagnosis
from tests.parts.exchange import TOKEN, eventually
from tests.parts.valkey import PrivateValkey
from worker.doctor import redis_checks
from worker.doctor.finding import Grade
from worker.ledger import library
from worker.ledger.client import Ledger
from worker.ledger.words import Rules

OURS = library.version_of(library.source())


@pytest.fixture
def server(private_valkey: PrivateValkey) -> Iterator["Redis"]:
    with Redis.from_url(private_valkey.url, decode_responses=True) as redis:
        yield redis


@pytest.fixture
def found(diagnose: Diagnose, private_valkey: PrivateValkey) -> "Asked":
    return Asked(diagnose, private_valkey.url)


class Asked:
    """The doctor's word about one server."""

    def __init__(self, diagnose: Diagnose, url: str) -> None:
        self.diagnose, self.url = diagnose, url

    def __call__(self, url: str | None = None) -> Diagnosis:
        return self.diagnose(redis_url=url or self.url, access_token=TOKEN)


def prepare(url: str) -> None:
    with Ledger(url, "cancelq", timeout=timedelta(seconds=1)) as ledger:
        ledger.prepare(Rules(dedupe_life=timedelta(days=1)))


def test_a_sound_server_has_no_fault_and_keeps_no_trace(found: Asked, server: "Redis") -> None:
    prepare(found.url)
    before = set(server.keys())
    said = found()
    assert not {what for what in said.bad() if what.startswith("redis")}
    assert "Valkey" in said.text("redis")
    assert "acknowledged after" in said.text("redis: write")
    assert set(server.keys()) - before <= {"{cancelq}:doctor"}
    assert 0 < server.pttl("{cancelq}:doctor") <= 5000


@pytest.mark.parametrize(
    ("name", "value"),
    [("appendonly", "no"), ("appendfsync", "everysec"), ("no-appendfsync-on-rewrite", "yes")],
)
def test_a_server_that_may_lose_acknowledged_requests_fails(
    found: Asked, server: "Redis", name: str, value: str
) -> None:
    server.config_set(name, value)
    said = found()
    assert said.grades("redis: durability") == {"failed"}
    assert f"CONFIG SET {name}" in said.text("redis: durability")
    assert said.code == 1


def test_a_server_that_may_forget_fails(found: Asked, server: "Redis") -> None:
    server.config_set("maxmemory-policy", "allkeys-lru")
    assert found().grades("redis: memory") == {"warning"}
    server.config_set("maxmemory", 100_000_000)
    assert found().grades("redis: memory") == {"failed"}
    server.config_set("maxmemory-policy", "noeviction")
    assert found().grades("redis: memory") == {"ok"}


def test_a_full_server_fails(found: Asked, server: "Redis") -> None:
    server.config_set("maxmemory", 1_000_000)
    said = found()
    assert said.grades("redis: memory") == {"failed"}
    assert "raise maxmemory" in said.text("redis: memory")
    assert said.grades("redis: write") == {"failed"}


def test_a_replica_fails(found: Asked, server: "Redis") -> None:
    server.replicaof("127.0.0.1", 9)
    said = found()
    assert said.grades("redis: role") == {"failed"}
    assert "127.0.0.1:9" in said.text("redis: role")


def test_a_server_that_cannot_save_fails(found: Asked, server: "Redis") -> None:
    Path(server.config_get("dir")["dir"], "dump.rdb").mkdir()  # no file can take its place
    server.bgsave()
    eventually(lambda: server.info("persistence")["rdb_last_bgsave_status"] == "err")
    assert found().grades("redis: persistence") == {"failed"}


@pytest.mark.parametrize(
    ("version", "grade"),
    [(None, "failed"), (OURS - 1, "warning"), (OURS, "ok"), (OURS + 1, "ok"), (OURS + 1000, "failed")],
)
def test_the_loaded_functions_are_compared_with_the_programs(
    found: Asked, server: "Redis", version: int | None, grade: str
) -> None:
    if version is not None:
        server.function_load(
            library.source().replace(f"local VERSION = {OURS}", f"local VERSION = {version}")
        )
    said = found()
    assert said.grades("redis: functions") == {grade}
    assert grade == "ok" or "cancel" in said.text("redis: functions")


@pytest.mark.parametrize(
    ("stamped", "grade"), [("http://127.0.0.1:9/v1", "ok"), ("https://demo.example.com/v1", "failed")]
)
def test_a_ledger_of_another_exchange_fails(found: Asked, server: "Redis", stamped: str, grade: str) -> None:
    prepare(found.url)
    server.hset("{cancelq}:meta", "exchange", stamped)
    said = found()
    assert said.grades("redis: stamp") == {grade}
    assert stamped in said.text("redis: stamp")


@pytest.mark.parametrize(
    ("field", "words"),
    [("paused_at", "paused since"), ("draining", "being drained"), ("locked_until", "locked out until")],
)
def test_a_ledger_that_stands_still_is_told(found: Asked, server: "Redis", field: str, words: str) -> None:
    prepare(found.url)
    assert found().grades("redis: ledger") == {"ok"}
    where = "login:default" if field == "locked_until" else "meta"
    server.hset(f"{{cancelq}}:{where}", field, str(2**51))  # a moment in 2041
    said = found()
    assert said.grades("redis: ledger") == {"warning"}
    assert f"{words}" in said.text("redis: ledger")


def test_a_server_that_is_gone_is_told_once(found: Asked, private_valkey: PrivateValkey) -> None:
    url = private_valkey.url
    private_valkey.kill()
    said = found(url)
    assert said.grades("redis") == {"failed"}
    assert said.grades("redis: all else") == {"skipped"}


def test_a_frozen_server_is_given_up(found: Asked, private_valkey: PrivateValkey) -> None:
    url = private_valkey.url
    private_valkey.freeze()
    try:
        assert found(url).grades("redis") == {"failed"}
    finally:
        private_valkey.thaw()


def as_user(server: "Redis", url: str, *rules: str) -> str:
    server.execute_command("ACL", "SETUSER", "probe", "reset", "on", ">pw", *rules)
    return url.replace("unix://", "unix://probe:pw@")


def test_a_user_who_may_not_look_is_told_what_follows(found: Asked, server: "Redis") -> None:
    said = found(as_user(server, found.url, "~*", "+@all", "-config", "-info"))
    assert said.grades("redis: durability") == {"warning"}
    assert "cannot be seen" in said.text("redis: durability")
    assert said.grades("redis: INFO") == {"failed"}
    assert "info config|get" in said.text("redis: rights")


def test_a_missing_right_is_named(found: Asked, server: "Redis") -> None:
    said = found(as_user(server, found.url, "~*", "+@all", "-hset", "-zrange", "-function"))
    assert said.grades("redis: rights") == {"failed"}
    assert "hset zrange function|load function|list" in said.text("redis: rights")
    assert "cancelq doctor --acl" in said.text("redis: rights")


def test_rights_on_other_keys_only_are_no_rights(found: Asked, server: "Redis") -> None:
    said = found(as_user(server, found.url, "~{other}:*", "+@all"))
    assert said.grades("redis: rights") == {"failed"}


def test_a_user_who_may_do_nothing_is_told_so(found: Asked, server: "Redis") -> None:
    said = found(as_user(server, found.url, "+ping", "-multi"))
    assert "multi" in said.text("redis: rights")
    wrong = found(found.url.replace("unix://", "unix://probe:wrong-password@"))
    assert wrong.grades("redis") == {"failed"}
    assert "wrong-password" not in wrong.out


# --- what no server here can play


@pytest.mark.parametrize(
    ("shown", "grade"),
    [("6.2.7", Grade.FAILED), ("7.0.15", Grade.OK), ("7.2.4", Grade.OK), ("8.4.0", Grade.OK)],
)
def test_old_versions_are_told(shown: str, grade: Grade) -> None:
    (said,) = redis_checks.version({"redis_version": shown})
    assert said.grade is grade


def test_a_cluster_is_named() -> None:
    said = list(redis_checks.version({"redis_version": "7.2.4", "redis_mode": "cluster"}))
    assert "every primary" in said[1].finding


def test_a_server_without_a_limit_is_measured_by_its_machine() -> None:
    (said,) = redis_checks.memory({"used_memory": 95, "total_system_memory": 100}, None)
    assert said.grade is Grade.FAILED


def test_a_server_that_still_reads_its_files_is_not_ready() -> None:
    (said,) = redis_checks.persistence({"loading": 1})
    assert said.grade is Grade.FAILED


def test_a_slow_disk_is_told() -> None:
    (said,) = redis_checks.writing(timedelta(milliseconds=80))
    assert said.grade is Grade.WARNING
