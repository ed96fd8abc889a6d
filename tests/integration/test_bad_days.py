"""Bad days: wrong settings, absent parts, an exchange that is away. One line says which, and no command hangs."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.parts.exchange import TOKEN, eventually, running_exchange
from tests.parts.fleet import Fleet
from tests.parts.rogue import rogue
from tests.parts.understudy import cancelq
from worker.audit.migrating import migrate

PATIENCE = 15.0  # the requirement: an absent part is reported within this
# Two cores start Python side by side; more of them only wait for each other.
AT_ONCE = 3
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "worker": ("worker",),
    "enqueue": ("enqueue", "5"),
    "status": ("status", "--order", "5"),
    "report": ("report",),
    "verify": ("verify",),
    "migrate": ("migrate",),
}


@dataclass(frozen=True)
class Said:
    """What one command did."""

    code: int
    errors: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        return [line for line in self.errors.splitlines() if line.startswith("cancelq: ")]


@dataclass(frozen=True)
class Desk:
    """A place to call commands from, where all is well unless a call says otherwise; None unsets."""

    folder: Path
    redis_url: str

    def run(self, command: str, **settings: str | None) -> Said:
        here = {k: v for k, v in os.environ.items() if not k.startswith("CANCELQ_")}
        usual = {
            "HOME": str(self.folder / "home"),
            "REDIS_URL": self.redis_url,
            "DATABASE_URL": f"sqlite:///{self.folder / 'audit.sqlite3'}",
            "EXCHANGE_URL": "http://127.0.0.1:9/v1",
            "ACCESS_TOKEN": TOKEN,
        }
        given = {f"CANCELQ_{name}": value for name, value in (usual | settings).items() if value is not None}
        began = time.monotonic()
        done = cancelq(COMMANDS[command], here | given, folder=self.folder, bound=2 * PATIENCE)
        return Said(done.returncode, done.stderr, time.monotonic() - began)


@pytest.fixture
def desk(tmp_path: Path, redis_url: str) -> Desk:
    migrate(f"sqlite:///{tmp_path / 'audit.sqlite3'}")
    (tmp_path / "text").write_text("this is no database, and no folder either\n" * 100)
    return Desk(tmp_path, redis_url)


@pytest.fixture
def nobody() -> int:
    """A port that refuses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def mute() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with rogue() as server:
        yield server.port


Call = tuple[str, Mapping[str, str | None]]


def all_of(desk: Desk, calls: list[Call]) -> list[tuple[Call, Said]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        said = pool.map(lambda call: desk.run(call[0], **call[1]), calls)
        return list(zip(calls, said, strict=True))


def complaints(results: list[tuple[Call, Said]], *, code: int, naming: str) -> list[tuple[Call, Said]]:
    """The calls that did not end with `code` and exactly one line that names the culprit, or told a secret."""
    return [
        (call, said)
        for call, said in results
        if said.code != code
        or len(said.lines) != 1
        or naming not in said.lines[0]
        or "Traceback" in said.errors
        or "hunter2" in said.errors
        or said.seconds > PATIENCE
    ]


# --- wrong settings


def test_wrong_settings_are_refused_with_one_line(desk: Desk) -> None:
    wrong: dict[str, Mapping[str, str | None]] = {
        "CANCELQ_ACCESS_TOKEN": {"ACCESS_TOKEN": None},
        "CANCELQ_CONCURENCY": {"CONCURENCY": "8"},
        "CANCELQ_TRANSIENT_REASONS": {"TRANSIENT_REASONS": "AnotherCommandPendin"},
        "CANCELQ_REDIS_URL": {"REDIS_URL": "redis://:hunter2@127.0.0.1/0?colour=red"},
        "CANCELQ_DATABASE_URL": {"DATABASE_URL": "postgresql+asyncpg://me:hunter2@127.0.0.1/audit"},
        "CANCELQ_HOME": {"HOME": str(desk.folder / "text"), "REDIS_URL": None},
        "CANCELQ_RATE_LIMIT": {"RATE_LIMIT": "10 a second"},
        "CANCELQ_DRY_RUN": {"DRY_RUN": "perhaps"},
    }
    for (name, _), result in zip(
        wrong.items(), all_of(desk, [("worker", w) for w in wrong.values()]), strict=True
    ):
        assert complaints([result], code=2, naming=name) == []


def test_odd_database_options_are_refused_with_one_line(desk: Desk, nobody: int) -> None:
    addresses = (
        f"postgresql://me:hunter2@127.0.0.1:{nobody}/audit?colour=red",
        f"sqlite:///{desk.folder}/audit.sqlite3?mode=ro&uri=true",
        f"sqlite:///{desk.folder}/text/audit.sqlite3",
        "sqlite://",
    )
    results = all_of(desk, [("migrate", {"DATABASE_URL": address}) for address in addresses])
    assert complaints(results, code=2, naming="CANCELQ_DATABASE_URL") == []


# --- absent parts


def test_an_unreachable_redis_is_named_by_every_command_that_needs_it(
    desk: Desk, nobody: int, mute: int
) -> None:
    for port, commands in (
        (nobody, ("worker", "enqueue", "status", "migrate")),
        (mute, ("worker", "enqueue")),
    ):
        url = f"redis://me:hunter2@127.0.0.1:{port}/0"
        results = all_of(desk, [(command, {"REDIS_URL": url}) for command in commands])
        assert complaints(results, code=1, naming=f"Redis at redis://127.0.0.1:{port}/0") == []


def test_the_audit_is_told_without_redis_but_not_without_a_word(desk: Desk, nobody: int) -> None:
    url = f"redis://me:hunter2@127.0.0.1:{nobody}/0"
    results = all_of(desk, [(command, {"REDIS_URL": url}) for command in ("report", "verify")])
    assert complaints(results, code=0, naming=f"Redis at redis://127.0.0.1:{nobody}/0") == []


def test_an_unreachable_database_is_named_by_every_command_that_needs_it(
    desk: Desk, nobody: int, mute: int
) -> None:
    for port, commands in ((nobody, ("worker", "report", "migrate")), (mute, ("worker", "verify", "status"))):
        url = f"postgresql://me:hunter2@127.0.0.1:{port}/audit"
        results = all_of(desk, [(command, {"DATABASE_URL": url}) for command in commands])
        assert complaints(results, code=1, naming=f"the database postgresql://127.0.0.1:{port}/audit") == []


def test_a_path_that_can_be_no_database_is_named(desk: Desk) -> None:
    for path, commands in (
        (desk.folder / "text", ("worker", "migrate")),
        (desk.folder, ("worker", "report")),
    ):
        url = f"sqlite:///{path}"
        results = all_of(desk, [(command, {"DATABASE_URL": url}) for command in commands])
        assert complaints(results, code=1, naming=f"the database {url}") == []


def test_an_enqueue_needs_no_database(desk: Desk, nobody: int) -> None:
    migrated = desk.run("migrate")
    said = desk.run("enqueue", DATABASE_URL=f"postgresql://me@127.0.0.1:{nobody}/audit")
    assert (migrated.code, said.code, said.lines) == (0, 0, [])


def test_without_its_schema_a_database_is_refused_with_the_way_out(desk: Desk) -> None:
    (desk.folder / "empty.sqlite3").touch()
    for name, commands in (
        ("empty.sqlite3", ("worker", "report")),
        ("missing/audit.sqlite3", ("worker", "verify")),
    ):
        url = f"sqlite:///{desk.folder / name}"
        results = all_of(desk, [(command, {"DATABASE_URL": url}) for command in commands])
        assert complaints(results, code=2, naming="run: cancelq migrate") == []
    assert not (desk.folder / "missing").exists()


# --- an exchange that is away


def test_cancels_wait_for_an_exchange_that_is_away(
    make_fleet: Callable[..., Fleet], redis_url: str, ledger_name: str, tmp_path: Path, nobody: int
) -> None:
    fleet = make_fleet(redis_url, ledger_name, f"sqlite:///{tmp_path / 'audit.sqlite3'}")
    worker = fleet.start(exchange_url=f"http://127.0.0.1:{nobody}/v1")
    orders = [1, 2, 3]
    fleet.queue().cancel_many([{"order_id": order} for order in orders])
    eventually(lambda: len(_not_sent(fleet)) == len(orders), what="an attempt at each")
    with running_exchange("--port", str(nobody)) as back:
        back.defaults(latency=0, read_latency=0, read_lag=0, settle=0)
        back.add_orders(*orders)
        _all_canceled(fleet, len(orders))
        assert {row["posts"] for row in back.truth().values()} == {1}
    # … and when it goes away later
    fleet.queue().cancel(order_id=4)
    eventually(lambda: 4 in {row["order_id"] for row in _not_sent(fleet)}, what="an attempt")
    with running_exchange("--port", str(nobody)) as back:
        back.defaults(latency=0, read_latency=0, read_lag=0, settle=0)
        back.add_orders(4)
        _all_canceled(fleet, len(orders) + 1)
    assert worker.process.poll() is None
    assert "Traceback" not in worker.said()


def _not_sent(fleet: Fleet) -> list[dict[str, object]]:
    return [row for row in fleet.view("audit_attempts") if row["transport"] == "not_sent"]


def _all_canceled(fleet: Fleet, count: int) -> None:
    assert {job["outcome"] for job in fleet.ends(count).values()} == {"canceled"}
