"""What an operator does with a running fleet, through the commands: pause, resume, drain, dry runs, alerts."""

import getpass
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.parts.cancels import a_whole_life, at, record
from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet
from tests.parts.ledger import NO_TIME
from tests.parts.receiver import Receiver
from tests.parts.valkey import PrivateValkey
from worker.audit.engine import open_engine
from worker.audit.facts import stamp_fact
from worker.ledger.access import PASSWORD, PRODUCER, rule
from worker.ledger.client import Post

BUDGET = timedelta(seconds=2)
LIVE_HOST = "https://live.tradovateapi.com/v1"
SAYS_LIVE = "LIVE: real orders, real money"


def told(fleet: Fleet, *arguments: str, code: int = 0, **settings: str) -> dict[str, Any]:
    done = fleet.run(*arguments, **settings)
    assert done.returncode == code, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def actions(fleet: Fleet) -> list[dict[str, Any]]:
    return sorted(fleet.view("audit_actions"), key=lambda row: str(row["acted_at"]))


def test_a_paused_fleet_posts_nothing_and_goes_on_where_it_stopped(fleet: Fleet) -> None:
    fleet.exchange.add_orders(1, 2, 3)
    fleet.exchange.script(2, {"reason": "AnotherCommandPending", "repeat": 2})
    fleet.start()
    fleet.queue().cancel(order_id=1)
    fleet.ends(1)
    assert told(fleet, "pause", "--by", "alice", "--because", "odd fills")["paused"]
    receipts = fleet.queue().cancel_many([{"order_id": 2, "priority": "urgent"}, {"order_id": 3}])
    eventually(lambda: len(fleet.view("audit_jobs")) == 3, what="the rows of the paused jobs")
    eventually(lambda: len(actions(fleet)) == 1, what="the pause on record")
    assert [fleet.queue().status(job_id=r.job_id)["state"] for r in receipts] == ["queued"] * 2
    assert len(fleet.exchange.requests()) == 1
    assert not told(fleet, "resume", "--by", "bob")["paused"]
    assert {row["outcome"] for row in fleet.ends(3).values()} == {"canceled"}
    eventually(lambda: len(actions(fleet)) == 2, what="the resume on record")
    pause, resume = actions(fleet)
    assert (pause["action"], pause["acted_by"], pause["because"]) == ("pause", "alice", "odd fills")
    assert (resume["action"], resume["acted_by"], resume["ledger"]) == ("resume", "bob", fleet.ledger)
    assert fleet.fault_of_audit() is None


def test_what_is_in_hand_when_a_pause_comes_is_proven_in_it(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.add_orders(1)
    plain_fleet.exchange.script(1, {"delay": 0.5, "settle": 1})
    plain_fleet.start()
    plain_fleet.queue().cancel(order_id=1)
    plain_fleet.exchange.wait_for_posts(1)
    told(plain_fleet, "pause")
    assert plain_fleet.ends(1)[1]["outcome"] == "canceled"
    (pause,) = eventually(lambda: actions(plain_fleet), what="the pause on record")
    assert pause["acted_by"].startswith(f"{getpass.getuser()}@")


def test_a_pause_waits_for_what_is_on_the_wire_and_then_none_leaves(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.defaults(latency=[0.05, 0.3])
    plain_fleet.exchange.add_orders({"from": 1, "count": 600})
    plain_fleet.start(concurrency="8")
    plain_fleet.queue().cancel_many([{"order_id": n} for n in range(1, 601)])
    plain_fleet.exchange.wait_for_posts(20)
    assert told(plain_fleet, "pause")["posting"] == 0
    sent = len(plain_fleet.exchange.requests())
    assert sent < 600
    ledger = plain_fleet.ledger_client()
    paused_at = ledger.survey().paused_at
    eventually(lambda: ledger.sweep(NO_TIME).now - paused_at > BUDGET, what="some time of pause")
    assert len(plain_fleet.exchange.requests()) == sent


def test_a_retry_budget_does_not_run_out_in_a_pause(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.add_orders(1)
    plain_fleet.exchange.script(1, {"reason": "RiskCheckTimeout", "repeat": 2})
    plain_fleet.start(retry_budget=str(BUDGET.total_seconds()))
    plain_fleet.queue().cancel(order_id=1)
    plain_fleet.exchange.wait_for_posts(1)
    told(plain_fleet, "pause")
    ledger = plain_fleet.ledger_client()
    paused_at = ledger.survey().paused_at
    eventually(lambda: ledger.sweep(NO_TIME).now - paused_at > 1.5 * BUDGET, what="more than the budget")
    told(plain_fleet, "resume")
    assert plain_fleet.ends(1)[1]["outcome"] == "canceled"


def test_a_drained_fleet_finishes_and_its_workers_exit(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.defaults(latency=0.05)
    plain_fleet.exchange.add_orders(*range(1, 101))
    workers = [plain_fleet.start(concurrency="4"), plain_fleet.start(concurrency="4")]
    plain_fleet.queue().cancel_many([{"order_id": n} for n in range(1, 101)])
    survey = told(plain_fleet, "drain", "--by", "alice", "--wait", "30")
    assert (survey["open"], survey["draining"]) == (0, True)
    assert [worker.process.wait(15) for worker in workers] == [0, 0]
    assert len(plain_fleet.ends(100)) == 100
    refused = plain_fleet.run("enqueue", "500")
    assert (refused.returncode, json.loads(refused.stdout)["status"]) == (1, "refused")
    assert "resume" in refused.stderr
    told(plain_fleet, "resume")
    assert told(plain_fleet, "enqueue", "500")["status"] == "accepted"


def test_a_drain_that_is_not_done_in_time_says_so(plain_fleet: Fleet) -> None:
    plain_fleet.ledger_client().load_functions()
    plain_fleet.queue().cancel(order_id=1)
    assert told(plain_fleet, "drain", "--wait", "0.3", code=1)["open"] == 1


def test_a_paused_fleet_is_not_drained(plain_fleet: Fleet) -> None:
    plain_fleet.ledger_client().load_functions()
    told(plain_fleet, "pause")
    done = plain_fleet.run("drain")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cancelq resume" in done.stderr


# --- whose exchange


def test_a_worker_for_another_exchange_refuses_to_start(fleet: Fleet) -> None:
    fleet.start()
    other = fleet.exchange.url.replace("127.0.0.1", "localhost")
    on_ledger = fleet.run("worker", exchange_url=other)
    assert on_ledger.returncode == 2
    assert f"belongs to the exchange {fleet.exchange.url}" in on_ledger.stderr
    fresh = f"{fleet.ledger}-other"
    on_database = fleet.run("worker", exchange_url=other, ledger=fresh)
    assert on_database.returncode == 2
    assert "CANCELQ_DATABASE_URL: the audit at" in on_database.stderr
    assert "Traceback" not in on_ledger.stderr + on_database.stderr
    # It did not start, so the fresh ledger is still nobody's.
    assert json.loads(fleet.run("resume", ledger=fresh).stdout)["exchange"] is None


@pytest.mark.parametrize(
    "command",
    [("pause",), ("resume",), ("drain", "--wait", "0"), ("enqueue", "1"), ("status", "--order", "1")],
)
def test_live_is_shown_by_every_command(plain_fleet: Fleet, command: tuple[str, ...]) -> None:
    plain_fleet.start()  # loads the functions
    shown = plain_fleet.run(*command, exchange_url=LIVE_HOST)
    assert SAYS_LIVE in shown.stderr
    assert "LIVE" not in plain_fleet.run(*command).stderr


# --- dry run


def test_a_dry_run_reads_and_records_and_posts_nothing(fleet: Fleet) -> None:
    fleet.exchange.add_orders(1)
    fleet.exchange.add_orders({"id": 2, "ordStatus": "Filled"})
    fleet.start(dry_run="true")
    fleet.queue().cancel_many([{"order_id": 1}, {"order_id": 2}])
    jobs = fleet.ends(2)
    assert (jobs[1]["outcome"], jobs[1]["evidence"]) == ("unresolved", "dry_run Working")
    assert (jobs[2]["outcome"], jobs[2]["evidence"]) == ("filled", "order_read Filled")
    assert fleet.exchange.requests() == []
    assert fleet.view("audit_attempts") == []
    beside = fleet.run("worker")
    assert beside.returncode == 2
    assert "CANCELQ_DRY_RUN" in beside.stderr


def test_a_dry_run_tells_people_of_what_went_wrong_and_not_of_what_it_left_open(
    plain_fleet: Fleet, receiver: Receiver
) -> None:
    plain_fleet.exchange.add_orders(1)
    plain_fleet.start(dry_run="true", alert_url=receiver.url)
    plain_fleet.queue().cancel(order_id=1)
    plain_fleet.ends(1)
    plain_fleet.queue().cancel(order_id=404)
    assert plain_fleet.ends(2)[404]["evidence"] == "order_not_found"
    alert = receiver.alerts.get(timeout=10)
    assert (alert["event"], alert["orderId"], alert["dryRun"]) == ("refused", 404, True)
    assert receiver.alerts.empty()


def test_a_dry_run_keeps_its_session_for_as_long_as_it_runs(plain_fleet: Fleet) -> None:
    exchange = plain_fleet.exchange
    exchange.auth(users=[{"name": "alice", "password": "pw"}], life=1.5)
    exchange.add_orders(1)
    plain_fleet.start(dry_run="true", username="alice", password="pw")
    eventually(lambda: exchange.auth_counts()["renewals"] > 1, what="two renewals")
    plain_fleet.queue().cancel(order_id=1)
    assert plain_fleet.ends(1)[1]["evidence"] == "dry_run Working"
    assert (exchange.auth_counts()["logins"], exchange.requests()) == (1, [])


def test_every_command_says_that_it_is_a_dry_run(plain_fleet: Fleet) -> None:
    plain_fleet.start(dry_run="true")
    assert "DRY RUN: CANCELQ_DRY_RUN is on" in plain_fleet.run("resume", dry_run="true").stderr
    assert "DRY RUN" not in plain_fleet.run("resume").stderr


def test_a_dry_run_that_does_not_start_is_in_nobodys_way(plain_fleet: Fleet) -> None:
    failed = plain_fleet.run("worker", dry_run="true", database_url="sqlite:////nowhere/audit.sqlite3")
    assert failed.returncode == 2
    assert plain_fleet.start().terminate() == 0
    assert plain_fleet.start(dry_run="true").terminate() == 0


# --- alerts


def test_one_alert_for_each_refused_and_unresolved_cancel_and_each_lock_out(
    plain_fleet: Fleet, receiver: Receiver
) -> None:
    plain_fleet.exchange.add_orders(1, 2, 3, 4)
    plain_fleet.exchange.script(2, {"reason": "TradingLocked"})
    plain_fleet.exchange.script(3, {"reason": "RiskCheckTimeout", "repeat": 50})
    plain_fleet.exchange.script(4, {"status": 429})
    worker = plain_fleet.start(alert_url=receiver.url, retry_budget="1", confirm_budget="2", lockout="1")
    plain_fleet.queue().cancel_many([{"order_id": n, "requested_by": "m"} for n in (1, 2, 3)])
    plain_fleet.ends(3)
    plain_fleet.queue().cancel(order_id=4)
    plain_fleet.ends(4)
    got = [receiver.alerts.get(timeout=15) for _ in range(3)]
    assert [alert["event"] for alert in got] == ["refused", "unresolved", "locked_out"]
    assert (got[0]["orderId"], got[0]["requestedBy"], got[0]["live"]) == (2, "m", False)
    assert got[1]["evidence"].startswith("seen_working")
    assert {alert["ledger"] for alert in got} == {plain_fleet.ledger}
    assert worker.terminate() == 0
    assert receiver.alerts.empty()
    assert "hunter2" not in worker.said()


def test_only_a_2xx_takes_an_alert(plain_fleet: Fleet, receiver: Receiver) -> None:
    receiver.status = 500
    plain_fleet.exchange.script(1, {"reason": "TradingLocked"})
    worker = plain_fleet.start(alert_url=receiver.url)
    plain_fleet.queue().cancel(order_id=1)
    eventually(lambda: "alert.not_delivered" in worker.said(), what="the alert that was not taken")
    assert "HTTP 500" in worker.said()
    with Redis.from_url(plain_fleet.redis_url) as redis:
        assert redis.zcard(f"{{{plain_fleet.ledger}}}:alerts") == 1


def test_a_receiver_that_is_away_delays_no_cancel(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.add_orders(1, 2)
    plain_fleet.exchange.script(1, {"reason": "TradingLocked"})
    worker = plain_fleet.start(alert_url="http://127.0.0.1:1/hook")
    plain_fleet.queue().cancel(order_id=1)
    eventually(lambda: "alert.not_delivered" in worker.said(), what="the failed alert")
    plain_fleet.queue().cancel(order_id=2)
    assert plain_fleet.ends(2)[2]["outcome"] == "canceled"


def test_live_is_shown_where_nothing_but_the_setting_is(plain_fleet: Fleet) -> None:
    plain_fleet.ledger_client().load_functions()
    for command in ("report", "report --json", "verify", "why 1", "migrate", "policy --json"):
        shown = plain_fleet.run(*command.split(), exchange_url=LIVE_HOST)
        assert SAYS_LIVE in shown.stderr, command
        assert "LIVE" not in plain_fleet.run(*command.split()).stderr, command


def test_live_is_shown_where_ledger_or_audit_are_whatever_the_shell_is_set_to(plain_fleet: Fleet) -> None:
    ledger = plain_fleet.ledger_client()
    ledger.load_functions()
    ledger.sign_on(Post(exchange=LIVE_HOST))
    wish = plain_fleet.folder / "wishes"
    wish.write_text('{"orderId": 2}\n{"orderId": 3}\n')
    job_id = told(plain_fleet, "enqueue", "1")["jobId"]
    of_ledger = ["enqueue 1", f"enqueue --from {wish}", f"status {job_id}", "why 1", "migrate"]
    assert_live(plain_fleet, of_ledger)
    engine = open_engine(plain_fleet.database_url)
    record(engine, *a_whole_life(), stamp_fact("exchange", LIVE_HOST, at=at(0)))
    engine.dispose()
    nowhere = {"redis_url": "redis://127.0.0.1:1/0"}
    assert_live(plain_fleet, ["report --json", "verify", "why 123", "status job-1"], **nowhere)
    report = plain_fleet.run("report", "--json", "--since", "2031-01-01", **nowhere)
    assert json.loads(report.stdout)["live"] is True
    for form in ("table", "html"):
        assert "LIVE" in plain_fleet.run("report", "--format", form, "--since", "2031-01-01").stdout


def assert_live(fleet: Fleet, commands: list[str], **settings: str) -> None:
    for command in commands:
        shown = fleet.run(*command.split(), **settings)
        assert shown.stderr.count(SAYS_LIVE) == 1, (command, shown.stderr)


def test_a_producer_s_rights_are_enough_to_be_shown_live(
    private_valkey: PrivateValkey, make_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    fleet = make_fleet(private_valkey.url, "cancelq", f"sqlite:///{tmp_path / 'audit.sqlite3'}")
    ledger = fleet.ledger_client()
    ledger.load_functions()
    ledger.sign_on(Post(exchange=LIVE_HOST))
    with Redis.from_url(private_valkey.url) as redis:
        redis.execute_command(*rule(PRODUCER, "cancelq").split())
    user = f"unix://cancelq-producer:{PASSWORD}@"
    fleet.redis_url = private_valkey.url.replace("unix://", user)
    assert_live(fleet, ["enqueue 1"])


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_live_worker_says_so_in_its_log(plain_fleet: Fleet, form: str) -> None:
    nobody = {"redis_url": "redis://127.0.0.1:1/0", "exchange_url": "https://live.invalid/v1"}
    said = plain_fleet.run("worker", log=form, **nobody).stderr.splitlines()[0]
    assert (json.loads(said)["event"] if form == "json" else said.partition("warning ")[2]) == SAYS_LIVE
