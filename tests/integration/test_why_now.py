"""`cancelq why` asks ledger and exchange for what is the case now, within bounds, and says what it could not ask."""

import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text

from tests.parts.cancels import ENVIRONMENT, a_job, a_row_everywhere, a_whole_life, record
from tests.parts.databases import PostgresServer
from tests.parts.exchange import TOKEN, Exchange
from tests.parts.fleet import Fleet
from tests.parts.ledger import Door, claim, settlement
from tests.parts.rogue import closing, rogue
from tests.parts.valkey import PrivateValkey
from tests.parts.why import Why, a_look, kinds
from worker.audit.facts import Fact, job_fact
from worker.audit.order_story import order_story
from worker.audit.writer import AuditWriter
from worker.clock import utc_now
from worker.job import CancelRequest, Job, JobId, OrderId, Step
from worker.ledger.client import Ledger

MakeWhy = Callable[..., Why]
LINKS = '{"id": 123, "parentId": 7, "ocoId": 8, "linkedId": 9}'
NOT_LOGGED_IN = (
    "not read: CANCELQ_ACCESS_TOKEN is not set, nor is CANCELQ_USERNAME with CANCELQ_PASSWORD, nor "
    "CANCELQ_CREDENTIALS; the exchange needs a bearer token"
)


def at_exchange(engine: Engine, environment: str, *facts: Fact) -> None:
    audit = AuditWriter(engine, writer="there", environment=environment)
    audit.start()
    audit.commit(facts)
    audit.stop()


# --- the ledger


@pytest.fixture
def why_now(make_why: MakeWhy, database_url: str, redis_url: str, ledger_name: str) -> Why:
    return make_why(database_url=database_url, redis_url=redis_url, ledger=ledger_name)


def test_a_job_that_only_the_ledger_knows_is_told(why_now: Why, audit_engine: Engine, door: Door) -> None:
    job_id = door.enqueue(123, account="default")["jobId"]
    (job,) = why_now.jobs("123")
    assert (job["jobId"], job["recorded"], job["now"]["state"]) == (job_id, False, "queued")
    page = why_now.text("123")
    assert "asked for; only the ledger tells of it so far" in page
    assert "= still open: now queued: waits for a worker to POST it" in page


def test_an_open_job_is_told_with_its_state_and_when_it_is_due(
    why_now: Why, audit_engine: Engine, door: Door, ledger: Ledger
) -> None:
    job_id = door.enqueue(123, account="DEMO1")["jobId"]
    request = CancelRequest(account="DEMO1", order_id=OrderId(123), request_id="r")
    job = Job(id=JobId(job_id), request=request, enqueued_at=utc_now(), step=Step.POST, attempts=0)
    record(audit_engine, job_fact(job))
    claim(ledger)
    ledger.settle([settlement(job_id, delay=timedelta(hours=1))])
    (told,) = why_now.jobs("123")
    assert (told["recorded"], told["now"]["state"]) == (True, "parked")
    due = told["now"]["nextAt"][:23].replace("T", " ")
    assert f"still open: now parked: waits for its next POST, due {due}" in told["conclusion"]
    assert f"now: parked: waits for its next POST, due {due}" in why_now.text("123")


def test_a_ledger_that_cannot_be_asked_is_noted_and_the_record_told(
    make_why: MakeWhy, audit_engine: Engine, database_url: str
) -> None:
    record(audit_engine, *a_whole_life())
    found = make_why(database_url=database_url, redis_url="redis://127.0.0.1:1/0").json("123")
    (note,) = found["notes"]
    assert note.startswith("the ledger could not be asked: Redis at ")
    assert found["accounts"][0]["jobs"][0]["outcome"] == "canceled"


def test_a_frozen_ledger_is_given_one_second(
    make_why: MakeWhy, audit_engine: Engine, database_url: str, private_valkey: PrivateValkey
) -> None:
    record(audit_engine, *a_whole_life(), *a_whole_life("job-2", account="OTHER"), job_fact(a_job("job-3")))
    why = make_why(database_url=database_url, redis_url=private_valkey.url)
    private_valkey.freeze()
    began = time.monotonic()
    found = why.json("123")
    took = time.monotonic() - began
    private_valkey.thaw()
    assert len(found["accounts"]) == 2
    assert "the ledger could not be asked" in found["notes"][0]
    assert took < 3


def test_without_an_audit_the_ledger_still_answers(
    make_why: MakeWhy, redis_url: str, ledger_name: str, door: Door
) -> None:
    door.enqueue(123)
    for database, note in (
        ("sqlite:////nowhere/audit.sqlite3", "there is no audit yet"),
        ("postgresql://me:secret@127.0.0.1:9/audit", "the audit could not be asked: "),
    ):
        why = make_why(database_url=database, redis_url=redis_url, ledger=ledger_name)
        found = why.json("123")
        assert found["notes"][0].startswith(note)
        assert "secret" not in str(found)
        assert found["accounts"][0]["jobs"][0]["now"]["state"] == "queued"


def test_a_database_without_a_schema_leaves_the_ledger_s_word(
    make_why: MakeWhy, redis_url: str, ledger_name: str, door: Door, postgres: PostgresServer, tmp_path: Path
) -> None:
    (tmp_path / "empty.sqlite3").touch()
    postgres.run(f"CREATE DATABASE {ledger_name}")
    door.enqueue(123)
    for database in (f"sqlite:///{tmp_path / 'empty.sqlite3'}", postgres.url(ledger_name)):
        why = make_why(database_url=database, redis_url=redis_url, ledger=ledger_name)
        done = why.run("123", "--json")
        found = json.loads(done.stdout)
        assert (done.exit_code, found["accounts"][0]["jobs"][0]["now"]["state"]) == (0, "queued")
        assert found["notes"][0].startswith("the audit could not be asked: ")
        assert done.stderr == f"cancelq: {found['notes'][0]}\n"
        assert "run: cancelq migrate" in done.stderr
        unknown = why.run("124")
        assert (unknown.exit_code, "not everything could be asked" in unknown.stderr) == (1, True)


def test_a_young_request_of_another_account_is_found_by_its_account_alone(
    why_now: Why, audit_engine: Engine, door: Door
) -> None:
    job_id = door.enqueue(123, account="Z")["jobId"]
    done = why_now.run("123")
    assert (done.exit_code, "ever asked for" in done.stderr, "--account" in done.stderr) == (1, False, True)
    assert [job["jobId"] for job in why_now.jobs("123", "--account", "Z")] == [job_id]


# --- linked orders


def test_linked_orders_are_read_live_where_a_token_allows_it(
    make_why: MakeWhy, audit_engine: Engine, database_url: str, exchange: Exchange
) -> None:
    at_exchange(audit_engine, exchange.url, job_fact(a_job()), a_look("Canceled", after=9, body=LINKS))
    exchange.add_orders({"id": 7, "ordStatus": "Working"}, {"id": 8, "ordStatus": "Filled"})
    why = make_why(database_url=database_url, exchange_url=exchange.url, access_token=TOKEN)
    assert why.json("123")["accounts"][0]["linked"] == [
        {"orderId": 7, "relation": "parent", "ordStatus": "Working", "open": True, "note": None},
        {"orderId": 8, "relation": "oco", "ordStatus": "Filled", "open": False, "note": None},
        {
            "orderId": 9,
            "relation": "linked",
            "ordStatus": None,
            "open": None,
            "note": "not found at the exchange",
        },
    ]
    page = why.text("123")
    assert "parent 7: Working, STILL OPEN" in page
    assert "oco 8: Filled, ended" in page


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        (
            {"exchange_url": ENVIRONMENT},
            NOT_LOGGED_IN,
        ),
        (
            {"access_token": TOKEN, "exchange_url": "https://live.tradovateapi.com/v1"},
            f"not read: it is at {ENVIRONMENT}, CANCELQ_EXCHANGE_URL is https://live.tradovateapi.com/v1",
        ),
    ],
)
def test_linked_orders_that_may_not_be_read_say_why(
    make_why: MakeWhy, audit_engine: Engine, database_url: str, settings: dict[str, str], note: str
) -> None:
    record(audit_engine, job_fact(a_job()), a_look("Canceled", after=9, body=LINKS))
    linked = make_why(database_url=database_url, **settings).json("123")["accounts"][0]["linked"]
    assert [(order["orderId"], order["open"], order["note"]) for order in linked] == [
        (7, None, note),
        (8, None, note),
        (9, None, note),
    ]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ('{"id": 123, "ocoId": 123, "parentId": 7}', [7]),  # an order is not linked to itself
        ('{"parentId": true, "ocoId": "8", "linkedId": 9223372036854775808}', []),
        ('{"parentId": 7, "text": "cut here', [7]),
        ("[" * 3000, []),
        ("[7]", []),
    ],
)
def test_only_real_ids_are_linked_orders(why: Why, audit_engine: Engine, body: str, ids: list[int]) -> None:
    record(audit_engine, job_fact(a_job()), a_look("Working", after=9, body=body))
    assert [order["orderId"] for order in why.json("123")["accounts"][0]["linked"]] == ids


def test_the_newest_read_of_the_order_names_its_links(why: Why, audit_engine: Engine) -> None:
    record(
        audit_engine,
        job_fact(a_job()),
        a_look("Working", after=9, body='{"ocoId": 8}'),
        a_look("Canceled", after=19, body='{"ocoId": 9}'),
        a_look(None, after=29, body=None, found=False),
    )
    (account,) = why.json("123")["accounts"]
    assert [order["orderId"] for order in account["linked"]] == [9]
    assert account["linkedAsOf"] == "2026-11-23T12:00:00.019000Z"


def test_an_order_that_was_never_read_has_links_that_are_not_known(why: Why, audit_engine: Engine) -> None:
    record(audit_engine, job_fact(a_job()))
    assert "Linked orders: not known, no read of this order is on record" in why.text("123")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("answer", "note"),
    [
        (closing(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"), "not read: HTTP 401"),
        (None, "not read: "),  # never an answer
    ],
)
def test_an_exchange_that_does_not_tell_is_not_waited_for(
    make_why: MakeWhy, audit_engine: Engine, database_url: str, answer: object, note: str
) -> None:
    with rogue(answer) as server:
        at_exchange(audit_engine, server.url(), job_fact(a_job()), a_look("Working", after=9, body=LINKS))
        why = make_why(database_url=database_url, exchange_url=server.url(), access_token=TOKEN)
        began = time.monotonic()
        linked = why.json("123")["accounts"][0]["linked"]
        assert time.monotonic() - began < 5
    assert [order["note"].startswith(note) for order in linked] == [True] * 3
    assert [order["open"] for order in linked] == [None] * 3


# --- all of it


def test_no_table_is_read_from_end_to_end(audit_engine: Engine) -> None:
    record(audit_engine, *a_row_everywhere())
    asked: list[tuple[str, object]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        asked.append((statement, parameters))

    event.listen(audit_engine, "before_cursor_execute", note)
    assert len(order_story(audit_engine, 123).jobs) == 1
    event.remove(audit_engine, "before_cursor_execute", note)
    selects = [(statement, given) for statement, given in asked if statement.startswith("SELECT")]
    assert len(selects) == 11
    plans = {statement: plan(audit_engine, statement, given) for statement, given in selects}
    assert not {said for said in plans.values() if "SCAN " in said or "Seq Scan" in said}
    assert all("SEARCH " in said or "Index Cond" in said for said in plans.values())


def plan(engine: Engine, statement: str, given: object) -> str:
    """How the database means to run it; PostgreSQL would scan such small tables, so it may do so only in need."""
    with engine.connect() as connection:
        explain = "EXPLAIN QUERY PLAN"
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET enable_seqscan = off"))
            explain = "EXPLAIN"
        rows = connection.exec_driver_sql(f"{explain} {statement}", given).all()
    return "\n".join(str(row) for row in rows)


def test_a_real_cancel_is_told_with_the_linked_order_that_still_works(
    fleet: Fleet, make_why: MakeWhy
) -> None:
    fleet.exchange.add_orders(
        {"id": 11, "parentId": 12, "ocoId": 13}, 12, {"id": 13, "ordStatus": "Canceled"}
    )
    fleet.exchange.script(11, {"reason": "AnotherCommandPending"})
    fleet.start()
    receipt = fleet.queue().cancel(order_id=11, account="DEMO1", requested_by="momentum")
    fleet.ends(1)
    done = fleet.run("why", "11")
    assert done.returncode == 0, done.stderr
    assert f"Job {receipt.job_id} at {fleet.exchange.url}" in done.stdout
    assert "= canceled: order read as Canceled " in done.stdout
    assert "2 POSTs, 1 answer AnotherCommandPending" in done.stdout
    assert "parent 12: Working, STILL OPEN" in done.stdout
    assert "oco 13: Canceled, ended" in done.stdout
    settings = {
        name.removeprefix("CANCELQ_").lower(): value
        for name, value in fleet.environment().items()
        if name.startswith("CANCELQ_")
    }
    (job,) = make_why(**settings).jobs("11")
    assert kinds(job["events"])[:2] == ["enqueued", "sent"]
    assert kinds(job["events"])[-1] == "ended"
    assert [attempt["verdict"] for attempt in job["attempts"]] == ["transient", "accepted"]
    assert job["attempts"][1]["commandId"] == fleet.exchange.truth()[11]["command_ids"][0]
