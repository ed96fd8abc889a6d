"""The database goes away in the middle of work: cancels go on through the journal, and every row arrives, once."""

import resource
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from uuid import uuid4

import psycopg
import pytest

from tests.parts.databases import PostgresServer, running_postgres
from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet, Worker
from tests.parts.kills import assert_ledger_at_rest, assert_nothing_lost, wait_for_empty_journal
from tests.parts.scenes import ORDERS, QUICK, enqueue, set_up

# The journal's own tables take 250 KB; its log is full soon after.
FULL_SOON = 400_000


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server to be hurt, but for one test at a time."""
    with running_postgres() as running:
        yield running


@pytest.fixture
def fleet(
    make_fleet: Callable[..., Fleet], server: PostgresServer, redis_url: str, ledger_name: str
) -> Fleet:
    name = f"t{uuid4().hex}"
    server.run(f"CREATE DATABASE {name}")
    return make_fleet(redis_url, ledger_name, server.url(name))


@contextmanager
def halted(server: PostgresServer) -> Iterator[None]:
    server.halt()
    try:
        yield
    finally:
        server.revive()


@contextmanager
def frozen(server: PostgresServer) -> Iterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


def wait_for_ends(fleet: Fleet, orders: Sequence[int]) -> None:
    """In the ledger: the audit can't be asked."""
    queue = fleet.queue()
    eventually(
        lambda: all(queue.status(order_id=order)["state"] == "done" for order in orders),
        seconds=60,
        what="the end of every cancel",
    )


def assert_all_arrived(fleet: Fleet) -> None:
    wait_for_empty_journal(fleet)
    fleet.ends(len(ORDERS), seconds=60)
    eventually(lambda: all(row["verdict"] for row in fleet.view("audit_attempts")), what="no open attempt")
    assert_nothing_lost(fleet, len(ORDERS))
    assert_ledger_at_rest(fleet)
    told = fleet.run("verify", "--json")
    assert (told.returncode, '"outstanding": []' in told.stdout) == (0, True), told.stdout + told.stderr
    assert '"conflicts": 0' in told.stdout


def test_cancels_go_on_while_the_server_is_dead_and_while_it_is_frozen(
    fleet: Fleet, server: PostgresServer
) -> None:
    set_up(fleet)
    workers = [fleet.fork(), fleet.fork()]
    for worker in workers:
        worker.when_ready()
    fleet.when_compared()
    enqueue(fleet, *ORDERS[:4])
    fleet.exchange.wait_for_posts(3)
    with halted(server):
        enqueue(fleet, *ORDERS[4:8])
        wait_for_ends(fleet, ORDERS[4:8])  # of the first four, one may have been lost with its rows
        # Whoever starts now knows from the journal that the database is this exchange's.
        late = fleet.fork()
        eventually(lambda: "worker.started" in late.said(), seconds=30, what="a worker without a database")
        workers[0].kill()
    wait_for_empty_journal(fleet)
    eventually(lambda: "audit.back" in late.said(), seconds=30, what="a worker that is back")
    with frozen(server):
        enqueue(fleet, *ORDERS[8:])
        wait_for_ends(fleet, ORDERS[8:])
    assert_all_arrived(fleet)


def test_a_job_that_was_lost_with_the_database_is_read_and_not_sent_again_until_it_is_back(
    fleet: Fleet, server: PostgresServer
) -> None:
    set_up(fleet)
    fleet.exchange.script(ORDERS[0], {"drop": "before", "delay": 1})
    fleet.exchange.script(ORDERS[1], {"drop": "after", "delay": 1})
    victim = fleet.fork(**QUICK).when_ready()
    fleet.when_compared()
    enqueue(fleet, *ORDERS[:2])
    for order in ORDERS[:2]:
        fleet.exchange.wait_for_posts(1, order)
    with halted(server):
        victim.kill()
        fleet.fork(**QUICK, retry_budget="3")  # it stands still while nothing may be sent
        enqueue(fleet, *ORDERS[2:])
        # The end that was read is the end; the order that still works is read, again and again.
        wait_for_ends(fleet, ORDERS[1:])
        eventually(lambda: reads_in_journal(fleet) > 4, seconds=60, what="reads that go on")
        assert len(fleet.exchange.requests(ORDERS[0])) == 1
        assert fleet.queue().status(order_id=ORDERS[0])["state"] == "reconciling"
    assert_all_arrived(fleet)
    assert [row["error"] for row in fleet.attempts(ORDERS[0])] == ["worker lost", None]


def reads_in_journal(fleet: Fleet) -> int:
    """Of the first order, whose end nobody has seen."""
    job = fleet.queue().status(order_id=ORDERS[0])["jobId"]
    (path,) = (fleet.folder / "journal").glob("*.sqlite3")
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM reads WHERE job_id = ?", (job,)).fetchone()
    return int(count)


def test_a_full_journal_holds_all_cancels_until_the_database_is_back(
    fleet: Fleet, server: PostgresServer
) -> None:
    set_up(fleet)
    worker = fleet.fork(**QUICK).when_ready()
    fleet.when_compared()
    resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (FULL_SOON, FULL_SOON))
    with halted(server):
        enqueue(fleet, *ORDERS)
        eventually(lambda: held(worker), seconds=60, what="a journal that is full")
        seen = len(fleet.exchange.requests())
        eventually(lambda: len(held(worker)) > 2, seconds=60, what="a hold that lasts")
        assert len(fleet.exchange.requests()) == seen
    assert_all_arrived(fleet)


def held(worker: Worker) -> list[str]:
    """The lines that say, as errors, that no row can be stored."""
    lines = worker.said().splitlines()
    return [
        line for line in lines if " error" in line and "audit.unavailable" in line and "/journal/" in line
    ]


def test_a_database_that_may_only_be_read_or_takes_its_time_is_gone_around(
    fleet: Fleet, server: PostgresServer
) -> None:
    set_up(fleet)
    for worker in (fleet.fork(), fleet.fork()):
        worker.when_ready()
    fleet.when_compared()
    name = psycopg.conninfo.conninfo_to_dict(fleet.database_url)["dbname"]
    leave = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    server.run(f"ALTER DATABASE {name} SET default_transaction_read_only = on", leave)
    enqueue(fleet, *ORDERS[:6])
    wait_for_ends(fleet, ORDERS[:6])
    assert fleet.table("outcomes") == []
    server.run(f"ALTER DATABASE {name} RESET default_transaction_read_only", leave)
    wait_for_empty_journal(fleet)
    with psycopg.connect(fleet.database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN PERFORM pg_sleep(1.5); RETURN NULL; END$$"
        )
        connection.execute("CREATE TRIGGER slow BEFORE INSERT ON replies EXECUTE FUNCTION dawdle()")
    enqueue(fleet, *ORDERS[6:])
    wait_for_ends(fleet, ORDERS[6:])
    with psycopg.connect(fleet.database_url, autocommit=True) as connection:
        connection.execute("DROP TRIGGER slow ON replies")
    assert_all_arrived(fleet)
