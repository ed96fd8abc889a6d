"""Cut off, not dead: a worker that loses one part while others work, or stands still for longer than its lease.

A scene is nearly all waiting, so all of them play at once.
"""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import pytest

from tests.parts.databases import PostgresServer, migrated
from tests.parts.exchange import eventually, running_exchange
from tests.parts.fleet import Fleet, Worker
from tests.parts.kills import assert_ledger_at_rest, assert_nothing_lost, books, faults
from tests.parts.proxy import BOTH, Way, proxy
from tests.parts.understudy import Doom
from worker.gaps import Gap
from worker.ledger.words import Rules

ORDERS = range(1, 61)
LATER = range(101, 121)
SLOW = 1
LEASE = 1.0
QUICK = {"lease": str(LEASE), "concurrency": "4", "read_timeout": "3", "total_timeout": "4"}

Scene = Callable[[Fleet], None]


def enqueue(fleet: Fleet, *orders: int) -> None:
    fleet.queue().cancel_many([{"order_id": order} for order in orders])


def rows_of(fleet: Fleet, worker: Worker) -> list[dict[str, Any]]:
    rows = fleet.view("audit_attempts")
    return [row for row in rows if row["worker"].endswith(f"/{worker.process.pid}")]


def two_workers(
    fleet: Fleet,
    cut_off: Mapping[str, str],
    whole: Mapping[str, str] = MappingProxyType({}),
    *,
    delay: float = 2.5,
) -> tuple[Worker, Worker]:
    """The one to be cut off has a slow POST in hand when the other one and more work come."""
    fleet.exchange.defaults(latency=0.02)
    fleet.exchange.script(SLOW, {"delay": delay, "effect": "none"})
    first = fleet.fork(**QUICK | cut_off).when_ready()
    enqueue(fleet, SLOW)
    fleet.exchange.wait_for_posts(1, SLOW)
    second = fleet.fork(**QUICK | whole).when_ready()
    enqueue(fleet, *(order for order in ORDERS if order != SLOW))
    return first, second


def redis_socket(fleet: Fleet) -> Path:
    return Path(unquote(urlsplit(fleet.redis_url).path))


def redis_at(port: int) -> dict[str, str]:
    return {"redis_url": f"redis://127.0.0.1:{port}/0"}


def sql_at(fleet: Fleet, port: int) -> Mapping[str, str]:
    return {"database_url": f"postgresql://postgres@127.0.0.1:{port}{urlsplit(fleet.database_url).path}"}


def without_redis(fleet: Fleet) -> None:
    """What it has in hand lapses: its request is cut, nothing more is sent, and the other one goes on."""
    with proxy(redis_socket(fleet)) as way:
        # The request is still there, however late the cut comes.
        patient = {"read_timeout": "12", "total_timeout": "14"}
        first, second = two_workers(fleet, redis_at(way.port) | patient, delay=10)
        cut_at = time.time()
        way.drop(*BOTH)
        eventually(lambda: fleet.exchange.requests(SLOW)[0]["fate"] == "gone", what="a cut request")
        fleet.ends(len(ORDERS))
        assert sent_by(fleet, first, cut_at + LEASE) == set()
        assert [row["transport"] for row in fleet.attempts(SLOW)] == ["unanswered", "answered"]
        way.restore()
        second.kill()
        goes_on(fleet, first, len(ORDERS))


def without_sql(fleet: Fleet, server: PostgresServer) -> None:
    """Nothing of it reaches the exchange without a row, and what it claimed is not stuck."""
    with proxy(server.folder / ".s.PGSQL.5432") as way:
        first, _ = two_workers(fleet, sql_at(fleet, way.port))
        way.refuse()
        enqueue(fleet, *LATER)
        eventually(lambda: "audit.journaling" in first.said(), what="the loss of the database")
        way.accept()
        assert_nothing_lost(fleet, len(ORDERS) + len(LATER))
        assert first.process.poll() is None


def torn(fleet: Fleet, server: Path, through: Callable[[int], Mapping[str, str]]) -> None:
    """Reset and half closed in the midst of work: the other one goes on, and the one behind this way is soon back."""
    with proxy(server) as way:
        first, second = two_workers(fleet, through(way.port))
        for nth, tear in enumerate(
            (way.reset, lambda: way.half_close(Way.UP), lambda: way.half_close(Way.DOWN)), start=2
        ):
            orders = {*range(100 * nth + 1, 100 * nth + 21)}
            enqueue(fleet, *orders)
            eventually(lambda orders=orders: posted(fleet) & orders, what="a POST")
            eventually(tear, what="a connection to tear")
            eventually(lambda orders=orders: posted(fleet) >= orders, what="the others' POSTs")
        fleet.ends(len(ORDERS) + 60)
        second.kill()
        goes_on(fleet, first, len(ORDERS) + 60)


def slow(fleet: Fleet, server: Path, through: Callable[[int], Mapping[str, str]]) -> None:
    """Each answer takes nearly a lease, and less than it is waited for: what is granted so late is not sent on."""
    with proxy(server) as way:
        first, second = two_workers(fleet, through(way.port))
        way.delay(timedelta(seconds=0.43 * LEASE), *BOTH)
        slow_at = time.time()
        enqueue(fleet, *range(201, 221))
        fleet.ends(len(ORDERS) + 20)
        if "redis_url" in through(way.port):
            assert sent_by(fleet, first, slow_at + LEASE) == set()
        way.restore()
        second.kill()
        goes_on(fleet, first, len(ORDERS) + 20)


def goes_on(fleet: Fleet, alone: Worker, before: int) -> None:
    enqueue(fleet, *LATER)
    assert_nothing_lost(fleet, before + len(LATER))
    assert {row["order_id"] for row in rows_of(fleet, alone)} >= {*LATER}


def sent_by(fleet: Fleet, worker: Worker, after: float) -> set[int]:
    """What it POSTed later than that: more POSTs came than the others have rows. A row alone is not on the wire yet."""
    own = rows_of(fleet, worker)
    others = Counter(row["order_id"] for row in fleet.view("audit_attempts") if row not in own)
    came = Counter(
        request["order_id"] for request in fleet.exchange.requests() if request["at"] > after * 1e6
    )
    return {*(came - others)}


def without_the_exchange(fleet: Fleet) -> None:
    """Whatever the way does to it, each of its requests is read, and sent again where it did nothing."""
    with proxy(fleet.exchange.port, mark=b"Bearer cut-off") as way:
        settings = {"exchange_url": f"http://127.0.0.1:{way.port}/v1"}
        first, _ = two_workers(fleet, settings | {"access_token": "cut-off"}, settings)
        spoilers: list[Callable[[], object]] = [
            way.reset,
            lambda: way.half_close(Way.UP),
            lambda: way.half_close(Way.DOWN),
            lambda: way.delay(timedelta(seconds=0.3), *BOTH),
            lambda: way.drop(Way.DOWN),
            way.restore,
        ]
        for nth, spoil in enumerate(spoilers, start=1):
            orders = {*range(100 * nth + 1, 100 * nth + 11)}
            spoil()
            enqueue(fleet, *orders)
            eventually(lambda orders=orders: posted(fleet) & orders, what="a POST")
        assert_nothing_lost(fleet, len(ORDERS) + 10 * len(spoilers))
        assert {row["transport"] for row in rows_of(fleet, first)} >= {"answered", "unanswered"}


def posted(fleet: Fleet) -> set[int]:
    return {request["order_id"] for request in fleet.exchange.requests()}


def frozen_before_its_permit(fleet: Fleet) -> None:
    """Its start row is on disk, its lease lapses, another one cancels the order: on waking it sends nothing."""
    frozen = frozen_at(Gap.START_ON_DISK, fleet)
    fleet.fork(**QUICK)
    fleet.ends(1)
    frozen.signal(signal.SIGCONT)
    eventually(
        lambda: "settle.stale" in frozen.said() or "attempt.overtaken" in frozen.said(), what="a refusal"
    )
    assert_nothing_lost(fleet, 1)
    assert len(fleet.exchange.requests()) == 1


def frozen_before_the_write(fleet: Fleet) -> None:
    """Past its last check: the request leaves on waking, unless the watchdog is quicker.

    Either way the audit counts it as an overlap: what has left cannot be known here.
    """
    fleet.exchange.script(SLOW, {"delay": 2, "effect": "none"})
    frozen = frozen_at(Gap.REQUEST_DUE, fleet)
    fleet.fork(**QUICK)
    fleet.exchange.wait_for_posts(1, SLOW)
    frozen.signal(signal.SIGCONT)
    fleet.ends(1)
    eventually(lambda: fleet.table("late_replies"), what="the late answer's row")
    assert [row["order_id"] for row in fleet.view("audit_overlaps")] == [SLOW]
    assert not (broken := faults(books(fleet), [SLOW])), broken


def frozen_at(gap: Gap, fleet: Fleet) -> Worker:
    doom = Doom(gap, by=signal.SIGSTOP)
    frozen = fleet.fork(doom=doom, **QUICK)
    enqueue(fleet, SLOW)
    eventually(lambda: doom.mark in frozen.said(), seconds=30, what="a worker that stands still")
    return frozen


@dataclass(frozen=True, slots=True)
class Case:
    kind: str  # of database: a process that is frozen inside a commit holds SQLite's lock
    scene: Scene


@pytest.fixture
def cases(postgres: PostgresServer) -> list[Case]:
    sql = postgres.folder / ".s.PGSQL.5432"
    return [
        Case("sqlite", without_redis),
        Case("sqlite", lambda fleet: torn(fleet, redis_socket(fleet), redis_at)),
        Case("sqlite", lambda fleet: slow(fleet, redis_socket(fleet), redis_at)),
        Case("postgresql", lambda fleet: without_sql(fleet, postgres)),
        Case("postgresql", lambda fleet: torn(fleet, sql, partial(sql_at, fleet))),
        Case("postgresql", lambda fleet: slow(fleet, sql, partial(sql_at, fleet))),
        Case("sqlite", without_the_exchange),
        Case("postgresql", frozen_before_its_permit),
        Case("postgresql", frozen_before_the_write),
    ]


@pytest.fixture
def fleets(
    request: pytest.FixtureRequest, cases: list[Case], redis_url: str, tmp_path: Path
) -> Iterator[list[Fleet]]:
    """For each scene a ledger, a database and an exchange of its own."""
    with ExitStack() as stack:
        made = []
        for number, case in enumerate(cases):
            folder = tmp_path / str(number)
            folder.mkdir()
            url = stack.enter_context(migrated(request, case.kind, folder))
            exchange = stack.enter_context(running_exchange())
            exchange.empty()
            exchange.add_orders({"from": 1, "count": 1000}, account="default")
            made.append(Fleet(redis_url, f"t{uuid4().hex}", url, exchange, folder))
            made[-1].ledger_client().prepare(Rules(dedupe_life=timedelta(days=1)))
            stack.callback(made[-1].stop)
        yield made


def test_a_worker_that_is_cut_off_or_frozen_harms_nobody(cases: list[Case], fleets: list[Fleet]) -> None:
    with ThreadPoolExecutor(len(cases)) as pool:
        playing = [pool.submit(play, case, fleet) for case, fleet in zip(cases, fleets, strict=True)]
    errors = [error for error in (scene.exception() for scene in playing) if error is not None]
    if errors:
        raise BaseExceptionGroup("scenes", errors)


def play(case: Case, fleet: Fleet) -> None:
    try:
        case.scene(fleet)
        assert_ledger_at_rest(fleet)
    except BaseException as error:
        error.add_note(f"{case.scene}, {fleet.database_url}")
        raise
