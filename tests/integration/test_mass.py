"""`cancelq cancel-all` as a shell sees it: real workers, a real ledger, the exchange over its sockets."""

import json
import xml.etree.ElementTree as ET
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.parts.exchange import TOKEN, eventually
from tests.parts.fleet import Fleet
from tests.parts.reports import HOSTILE
from tests.parts.understudy import Doom
from worker.gaps import Gap
from worker.ledger.words import Call, Rules
from worker.rate_limit import limits_from

NO_WORKER = "no worker runs on the ledger: nothing is POSTed until one does"
A_DAY = timedelta(days=1)
NO_LIMIT = {"rate_limit": ""}


def mass(fleet: Fleet, *arguments: str, code: int = 0, **settings: str) -> dict[str, Any]:
    """The sheet of one mass cancel of account A."""
    done = fleet.run("cancel-all", "--account", "A", *arguments, **settings)
    assert done.returncode == code, (done.returncode, done.stderr, done.stdout)
    sheet: dict[str, Any] = json.loads(done.stdout)
    return sheet


def by_order(sheet: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {order["orderId"]: order for order in sheet["orders"]}


def prepared(fleet: Fleet, **limits: Any) -> None:
    fleet.ledger_client().prepare(Rules(dedupe_life=A_DAY, **limits))


# ------------------------------------------------------------------------------------------------ the way


def test_all_that_is_open_in_the_account_is_canceled_and_nothing_else(fleet: Fleet) -> None:
    fleet.exchange.add_orders({"from": 1, "count": 497}, account="A")
    fleet.exchange.add_orders(
        {"id": 498, "ordStatus": "Suspended"}, {"id": 499, "ordStatus": "Filled"}, account="A"
    )
    fleet.exchange.add_orders(1001, account="B")
    fleet.start(**NO_LIMIT)
    sheet = mass(fleet, "--by", "alice", "--because", "runaway", **NO_LIMIT)
    assert (sheet["result"], sheet["noneLeft"], sheet["seen"], sheet["left"]) == ("none_left", True, 498, 0)
    assert (sheet["outcomes"], sheet["requestedBy"], sheet["resumed"]) == ({"canceled": 498}, "alice", False)
    assert {row["ordStatus"] for n, row in fleet.exchange.truth().items() if n < 499} == {"Canceled"}
    assert fleet.exchange.truth()[1001]["posts"] == fleet.exchange.truth()[499]["posts"] == 0
    (job,) = by_order(sheet)[498]["jobs"]
    assert (job["outcome"], job["evidence"], job["status"]) == ("canceled", "order_read Canceled", "accepted")
    rows = {row["job_id"]: row for row in fleet.view("audit_jobs")}
    assert {rows[one["jobs"][0]["jobId"]]["requested_by"] for one in sheet["orders"]} == {"alice"}
    assert {row["priority"] for row in rows.values()} == {"urgent"}
    begun, ended = eventually(
        lambda: found if len(found := acts(fleet)) == 2 else None, what="both on record"
    )
    assert (begun["action"], begun["acted_by"], ended["action"]) == ("cancel_all", "alice", "cancel_all_end")
    assert sheet["massCancel"] in begun["because"]
    assert begun["because"].endswith("account A: runaway")
    assert ended["because"].endswith("none_left, 498 orders, 0 left")
    assert fleet.fault_of_audit() is None


def acts(fleet: Fleet) -> list[dict[str, Any]]:
    return sorted(fleet.view("audit_actions"), key=lambda row: str(row["acted_at"]))


def test_what_appears_meanwhile_is_canceled_too(plain_fleet: Fleet, tmp_path: Path) -> None:
    plain_fleet.exchange.add_orders(1, account="A")
    plain_fleet.exchange.script(1, {"delay": 1})
    plain_fleet.start()
    written = tmp_path / "sheet.json"
    running = plain_fleet.fork("cancel-all", "--account", "A", "-o", str(written))
    plain_fleet.exchange.wait_for_posts(1)
    plain_fleet.exchange.add_orders(11, 12, 13, account="A")
    assert running.process.wait(30) == 0, running.said()
    sheet = json.loads(written.read_text())
    assert (sheet["result"], sheet["rounds"]) == ("none_left", 2)
    assert {number: order["round"] for number, order in by_order(sheet).items()} == {
        1: 1,
        11: 2,
        12: 2,
        13: 2,
    }


def test_a_strategy_that_keeps_placing_ends_it_with_a_clear_word(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.add_orders({"from": 1, "count": 2000, "every": 0.05}, account="A")
    plain_fleet.start()
    done = plain_fleet.run("cancel-all", "--account", "A", "--rounds", "2")
    sheet = json.loads(done.stdout)
    assert (done.returncode, sheet["result"], sheet["rounds"]) == (1, "keeps_placing", 2)
    assert "something keeps placing them" in done.stderr
    late = [order for order in sheet["orders"] if order["left"]]
    assert {order["whyLeft"].partition("; ")[2] for order in late} == {
        "it appeared after the last round, and no cancel was asked for"
    }
    assert all(order["outcome"] == "canceled" for order in sheet["orders"] if not order["left"])


def test_each_order_that_is_left_says_why(fleet: Fleet) -> None:
    fleet.exchange.add_orders(1, 2, 3, account="A")
    fleet.exchange.script(2, {"reason": "TradingLocked"})
    fleet.exchange.script(3, {"reason": "RiskCheckTimeout", "repeat": True})
    fleet.start(retry_budget="1", confirm_budget="1")
    orders = by_order(mass(fleet, code=1))
    assert (orders[1]["left"], orders[1]["whyLeft"]) == (False, None)
    assert orders[2]["whyLeft"].startswith("listed as Working; its cancel ended refused: ")
    assert "TradingLocked" in orders[2]["whyLeft"]
    assert orders[3]["whyLeft"].startswith("listed as Working; its cancel ended unresolved: seen_working")


def test_started_again_it_goes_on_where_it_stopped(fleet: Fleet) -> None:
    fleet.exchange.add_orders(1, 2, account="A")
    fleet.start()
    fleet.run("pause")
    first = mass(fleet, "--for", "1", "--by", "alice", code=1)
    assert (first["result"], first["left"], first["resumed"]) == ("time_up", 2, False)
    assert "the ledger is paused: nothing is POSTed until `cancelq resume`" in first["notes"]
    fleet.run("resume")
    fleet.ends(2)
    again = mass(fleet, "--by", "bob")
    assert (again["result"], again["resumed"], again["requestedBy"]) == ("none_left", True, "alice")
    assert (again["massCancel"], again["seen"]) == (first["massCancel"], 2)
    assert [job["status"] for order in again["orders"] for job in order["jobs"]] == ["duplicate"] * 2
    assert len(fleet.view("audit_jobs")) == 2
    assert mass(fleet)["massCancel"] != first["massCancel"]


def test_what_the_ledger_has_forgotten_meanwhile_the_audit_knows(plain_fleet: Fleet, redis_url: str) -> None:
    plain_fleet.exchange.add_orders(1, account="A")
    plain_fleet.start()
    plain_fleet.run("pause")
    first = mass(plain_fleet, "--for", "1", code=1)
    plain_fleet.run("resume")
    plain_fleet.ends(1)
    (job,) = by_order(first)[1]["jobs"]
    with Redis.from_url(redis_url) as redis:
        assert redis.delete(f"{{{plain_fleet.ledger}}}:job:{job['jobId']}") == 1
    again = mass(plain_fleet)
    assert (again["result"], again["outcomes"]) == ("none_left", {"canceled": 1})


def test_it_says_that_no_worker_runs(plain_fleet: Fleet) -> None:
    prepared(plain_fleet)
    plain_fleet.exchange.add_orders(1, account="A")
    sheet = mass(plain_fleet, "--for", "1", code=1)
    assert (sheet["result"], sheet["notes"]) == ("time_up", [NO_WORKER])
    assert by_order(sheet)[1]["whyLeft"] == "listed as Working; its cancel is still open (queued) and goes on"
    plain_fleet.start()
    assert mass(plain_fleet)["notes"] == []


def test_what_was_seen_before_a_crash_is_asked_for_even_if_no_list_can_be_read_since(
    plain_fleet: Fleet,
) -> None:
    prepared(plain_fleet)
    plain_fleet.exchange.add_orders(1, account="A")
    plain_fleet.die_at(Doom(Gap.MASS_NOTED), "cancel-all", "--account", "A")
    plain_fleet.start()
    plain_fleet.exchange.lists({"status": 404, "repeat": True})
    sheet = mass(plain_fleet, "--for", "1", code=1)
    assert (sheet["result"], sheet["resumed"], sheet["looks"]) == ("not_read", True, 0)
    assert by_order(sheet)[1]["jobs"][0]["status"] == "accepted"
    assert plain_fleet.ends(1)[1]["outcome"] == "canceled"


# ------------------------------------------------------------------------------------------- without a trace


@pytest.mark.parametrize("how", [("--dry-run",), ()], ids=["option", "setting"])
def test_a_dry_run_shows_what_would_be_canceled_and_leaves_no_trace(
    plain_fleet: Fleet, how: tuple[str, ...]
) -> None:
    prepared(plain_fleet)
    plain_fleet.exchange.add_orders(1, {"id": 2, "ordStatus": "Canceled"}, account="A")
    done = plain_fleet.run("cancel-all", "--account", "A", *how, **({} if how else {"dry_run": "true"}))
    sheet = json.loads(done.stdout)
    assert (sheet["result"], sheet["dryRun"], list(by_order(sheet))) == ("dry_run", True, [1])
    assert (sheet["massCancel"], by_order(sheet)[1]["jobs"]) == (None, [])
    why = "listed as Working; a dry run: without it the order would be canceled"
    assert (done.returncode, by_order(sheet)[1]["whyLeft"]) == (0, why)
    assert f"cancelq: order 1: {why}\n" in done.stderr
    assert plain_fleet.ledger_client().survey().open == 0
    assert plain_fleet.ledger_client().actions() == []
    assert plain_fleet.exchange.requests() == []


def test_its_reads_count_in_the_logins_budget(plain_fleet: Fleet) -> None:
    """Reads may have four fifths of a window: eight, and this one took the accounts and the orders."""
    prepared(plain_fleet, limits=limits_from("10/h"))
    plain_fleet.exchange.add_orders(1, account="A")
    mass(plain_fleet, "--dry-run", rate_limit="10/h")
    ledger = plain_fleet.ledger_client()
    assert [ledger.grant("default", Call.READ).granted for _ in range(7)] == [True] * 6 + [False]


# --------------------------------------------------------------------------------------------- which orders


def test_a_contract_is_named_by_its_name_or_its_id(plain_fleet: Fleet) -> None:
    prepared(plain_fleet)
    plain_fleet.exchange.contracts(ESZ6=3001, NQZ6=3002)
    plain_fleet.exchange.add_orders({"id": 1, "contractId": 3001}, {"id": 2, "contractId": 3002}, account="A")
    assert list(by_order(mass(plain_fleet, "--dry-run", "--contract", "NQZ6"))) == [2]
    assert list(by_order(mass(plain_fleet, "--dry-run", "--contract", "3001"))) == [1]
    done = plain_fleet.run("cancel-all", "--account", "A", "--contract", "XX")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--contract: the exchange knows no contract 'XX'" in done.stderr


def test_an_account_that_nobody_has_is_named(plain_fleet: Fleet) -> None:
    prepared(plain_fleet)
    plain_fleet.exchange.add_orders(1, account="B")
    done = plain_fleet.run("cancel-all", "--account", "A")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--account: the login sees no account 'A'; it sees: B" in done.stderr


def test_an_account_that_no_login_serves_is_refused(plain_fleet: Fleet) -> None:
    prepared(plain_fleet)
    file = plain_fleet.folder / "logins.toml"
    file.touch(mode=0o600)
    file.write_text(f'[one]\naccounts = ["B"]\naccess_token = "{TOKEN}"\n')
    done = plain_fleet.run("cancel-all", "--account", "A", credentials=str(file))
    assert done.returncode == 2
    assert "no login of CANCELQ_CREDENTIALS serves the account 'A'" in done.stderr


def test_a_row_of_another_account_is_left_alone(plain_fleet: Fleet) -> None:
    prepared(plain_fleet)
    plain_fleet.exchange.add_orders(1, account="A")
    plain_fleet.exchange.add_orders(2, account="B")
    rows = [{"id": n, "accountId": 1000 + n, "ordStatus": "Working"} for n in (1, 2)]
    plain_fleet.exchange.lists({"reply": rows})
    sheet = mass(plain_fleet, "--dry-run")
    assert list(by_order(sheet)) == [1]
    assert "the list has 1 orders of other accounts: left alone" in sheet["notes"]


def test_a_linked_order_is_shown_while_it_is_open(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.add_orders(
        {"id": 1, "contractId": 3001, "parentId": 50, "ocoId": 51, "linkedId": 52},
        {"id": 50, "contractId": 3002},
        {"id": 51, "contractId": 3002, "ordStatus": "Canceled"},
        account="A",
    )
    plain_fleet.start()
    sheet = mass(plain_fleet, "--contract", "3001")
    assert [(o["orderId"], o["relation"], o["open"]) for o in by_order(sheet)[1]["linked"]] == [
        (50, "parent", True),
        (51, "oco", False),
        (52, "linked", None),
    ]
    read = [row["body"] for row in plain_fleet.table("reads") if row["kind"] == "order"]
    assert any('"parentId":50' in body.replace(" ", "") for body in read if body)


def test_an_order_that_the_audit_takes_to_be_open_and_the_list_lacks_is_not_forgotten(fleet: Fleet) -> None:
    fleet.exchange.add_orders(1, 2, account="A")
    fleet.exchange.script(1, {"reason": "RiskCheckTimeout", "repeat": True})
    fleet.start(retry_budget="1", confirm_budget="1")
    fleet.queue().cancel_many([{"order_id": n, "account": "A"} for n in (1, 2)])
    assert fleet.ends(2)[1]["evidence"].startswith("seen_working")
    fleet.exchange.script(1)
    fleet.exchange.lists({"reply": []})
    sheet = mass(fleet)
    assert (sheet["result"], list(by_order(sheet))) == ("none_left", [1])
    assert by_order(sheet)[1]["ordStatusFirst"] == "not listed; seen_working Working"
    assert by_order(sheet)[1]["outcome"] == "canceled"


# ------------------------------------------------------------------------------------------ lists that fail


def test_an_order_that_the_first_list_lacks_is_canceled_all_the_same(plain_fleet: Fleet) -> None:
    """It was placed just before: a list may be late."""
    plain_fleet.exchange.add_orders(1, account="A")
    plain_fleet.exchange.lists({"reply": []})
    plain_fleet.start()
    sheet = mass(plain_fleet)
    assert (sheet["result"], sheet["seen"], sheet["outcomes"]) == ("none_left", 1, {"canceled": 1})


def test_a_list_that_fails_is_asked_for_again(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.add_orders(1, account="A")
    plain_fleet.start()
    plain_fleet.exchange.lists(
        {"status": 404},
        {"cut_body": 5},
        {"reply": [{"id": 1}]},
        {"reply": {"errorText": "no"}},
        {"drop": "after"},
    )
    sheet = mass(plain_fleet)
    assert (sheet["result"], sheet["seen"]) == ("none_left", 1)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"status": 404, "repeat": True}, "HTTP 404"),
        ({"status": 401, "repeat": True}, "HTTP 401"),
        ({"cut_body": 1, "repeat": True}, "cut"),
        ({"reply": {"p-ticket": "t", "p-time": 60}, "repeat": True}, "p-ticket"),
        ({"status": 429, "repeat": True}, "http:429"),
    ],
    ids=["404", "401", "cut", "penalty", "429"],
)
def test_a_list_that_goes_on_failing_never_means_none_left(
    plain_fleet: Fleet, step: dict[str, Any], said: str
) -> None:
    prepared(plain_fleet)
    plain_fleet.exchange.add_orders(1, account="A")
    plain_fleet.exchange.lists(step)
    sheet = mass(plain_fleet, "--for", "1", code=1)
    assert (sheet["result"], sheet["noneLeft"], sheet["seen"]) == ("not_read", False, 0)
    assert said == "cut" or any(said in note for note in sheet["notes"])


def test_a_lock_out_that_a_list_meets_binds_the_whole_fleet(plain_fleet: Fleet) -> None:
    prepared(plain_fleet)
    plain_fleet.exchange.add_orders(1, account="A")
    plain_fleet.exchange.lists({"status": 429})
    mass(plain_fleet, code=1)
    assert plain_fleet.ledger_client().survey().locked_out_until is not None
    calls = len(plain_fleet.exchange.calls())
    done = plain_fleet.run("cancel-all", "--account", "A", "--for", "1")
    assert (done.returncode, len(plain_fleet.exchange.calls())) == (1, calls)
    assert "is locked out until" in done.stderr


def test_it_reads_with_the_token_that_the_workers_share_and_renews_it_when_it_is_refused(
    plain_fleet: Fleet,
) -> None:
    plain_fleet.exchange.auth(users=[{"name": "alice", "password": "pw"}])
    login = {"username": "alice", "password": "pw"}
    plain_fleet.exchange.add_orders(1, account="A")
    plain_fleet.start(**login)
    plain_fleet.exchange.lists({"status": 401})
    assert mass(plain_fleet, **login)["result"] == "none_left"
    counts = plain_fleet.exchange.auth_counts()
    assert (counts["logins"], counts["renewals"]) == (1, 1)


# ------------------------------------------------------------------------------------------------- the sheet


def test_hostile_words_stay_words_in_the_page(plain_fleet: Fleet, tmp_path: Path) -> None:
    prepared(plain_fleet)
    account = HOSTILE["quotes"]
    plain_fleet.exchange.add_orders(1, account=account)
    rows = [
        {"id": n, "accountId": 1001, "ordStatus": text, "action": text}
        for n, text in enumerate(HOSTILE.values(), start=1)
    ]
    plain_fleet.exchange.lists({"reply": rows})
    page = tmp_path / "sheet.html"
    done = plain_fleet.run(
        "cancel-all",
        "--account",
        account,
        "--dry-run",
        "--format",
        "html",
        "-o",
        str(page),
        "--by",
        "<b>me</b>",
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    text = page.read_text(encoding="utf-8")
    tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(text.partition("\n")[2]).iter()}
    assert tags.isdisjoint({"script", "img", "b><"})
    assert "&lt;script&gt;alert(1)" in text
    assert "\u202e" not in text
    assert "DRY RUN" in text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_sheet_that_finds_no_room_is_told_in_one_line(plain_fleet: Fleet) -> None:
    prepared(plain_fleet)
    plain_fleet.exchange.add_orders(1, account="A")
    done = plain_fleet.run("cancel-all", "--account", "A", "--dry-run", "-o", "/dev/full")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert done.stderr.endswith("cancelq: -o /dev/full: cannot be written: No space left on device\n")


def test_a_sheet_that_cannot_be_written_is_known_before_anything_is_asked_for(plain_fleet: Fleet) -> None:
    prepared(plain_fleet)
    plain_fleet.exchange.add_orders(1, account="A")
    done = plain_fleet.run("cancel-all", "--account", "A", "-o", "/nowhere/at/all")
    assert done.returncode == 2
    assert "-o /nowhere/at/all: cannot be written" in done.stderr
    assert plain_fleet.ledger_client().survey().open == 0
