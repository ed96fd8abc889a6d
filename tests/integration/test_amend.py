"""Redrive and resolve, through the commands: the old outcome stays, and what is asked wrongly changes nothing."""

import json
from typing import Any

import pytest

from tests.parts.fleet import Fleet

SHORT = {"retry_budget": "1", "confirm_budget": "2"}
RELEASED = {"reason": "RiskCheckTimeout", "repeat": 50}


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def by_id(fleet: Fleet) -> dict[str, dict[str, Any]]:
    return {row["job_id"]: row for row in fleet.view("audit_jobs")}


@pytest.fixture
def ended(fleet: Fleet) -> dict[str, str]:
    """Three jobs at their end: canceled, refused and unresolved."""
    fleet.exchange.add_orders(1, 2, 3)
    fleet.exchange.script(2, {"reason": "TradingLocked"})
    fleet.exchange.script(3, RELEASED)
    fleet.start(**SHORT)
    fleet.queue().cancel_many(
        [
            {"order_id": n, "cl_ord_id": f"mine-{n}", "custom_tag50": "t", "priority": "urgent"}
            for n in (1, 2, 3)
        ]
    )
    jobs = fleet.ends(3)
    assert [jobs[n]["outcome"] for n in (1, 2, 3)] == ["canceled", "refused", "unresolved"]
    return {row["outcome"]: row["job_id"] for row in jobs.values()}


def test_a_redriven_cancel_is_a_new_job_and_the_old_outcome_stays(
    fleet: Fleet, ended: dict[str, str]
) -> None:
    done = fleet.run("redrive", ended["refused"], "--by", "alice")
    assert done.returncode == 0, done.stderr
    (answer,) = lines(done.stdout)
    assert (answer["redriveOf"], answer["status"]) == (ended["refused"], "accepted")
    again = fleet.wait_for_end(answer["jobId"])
    assert (again["outcome"], again["redrive_of"]) == ("canceled", ended["refused"])
    assert (again["requested_by"], again["cl_ord_id"], again["priority"]) == ("alice", "mine-2", "urgent")
    assert by_id(fleet)[ended["refused"]]["outcome"] == "refused"
    assert fleet.fault_of_audit() is None


def test_an_order_at_its_end_is_closed_without_a_post(fleet: Fleet, ended: dict[str, str]) -> None:
    fleet.exchange.script(3, events=[{"ordStatus": "Expired"}])
    fleet.exchange.wait_for(3, ordStatus="Expired")
    before = len(fleet.exchange.requests(3))
    (answer,) = lines(fleet.run("redrive", ended["unresolved"]).stdout)
    again = fleet.wait_for_end(answer["jobId"])
    assert (again["outcome"], again["attempts"]) == ("gone", 0)
    assert len(fleet.exchange.requests(3)) == before


def test_jobs_are_found_by_time_and_reason_and_redriven_once(fleet: Fleet, ended: dict[str, str]) -> None:
    since = ("--since", "2026-01-01T00:00:00Z")
    (answer,) = lines(fleet.run("redrive", *since, "--reason", "TradingLocked").stdout)
    assert answer["redriveOf"] == ended["refused"]
    fleet.wait_for_end(answer["jobId"])
    again = fleet.run("redrive", *since, "--reason", "TradingLocked")
    assert (again.returncode, again.stdout) == (0, "")
    (by_evidence,) = lines(fleet.run("redrive", *since, "--reason", "seen_working").stdout)
    assert by_evidence["redriveOf"] == ended["unresolved"]
    assert fleet.run("redrive", *since, "--reason", "seen").stdout == ""
    assert fleet.run("redrive", "--since", "2199-01-01T00:00:00Z", "--reason", "TradingLocked").stdout == ""
    assert fleet.run("redrive", *since, "--reason", "seen_working", "--account", "other").stdout == ""


def test_what_did_not_end_badly_is_not_redriven(fleet: Fleet, ended: dict[str, str]) -> None:
    done = fleet.run("redrive", ended["canceled"], "no-such-job")
    assert done.returncode == 1
    canceled, unknown = lines(done.stdout)
    assert "ended as canceled" in canceled["error"]
    assert "knows no such job" in unknown["error"]
    fleet.run("redrive", ended["refused"])
    twice = fleet.run("redrive", ended["refused"])
    assert (twice.returncode, "redriven already" in twice.stderr) == (1, True)


@pytest.mark.parametrize(
    "scope",
    [
        (),
        ("--since", "2026-01-01"),
        ("--reason", "TooLate"),
        ("job", "--since", "2026-01-01", "--reason", "x"),
    ],
)
def test_an_unscoped_redrive_is_refused(plain_fleet: Fleet, scope: tuple[str, ...]) -> None:
    refused = plain_fleet.run("redrive", *scope)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "which jobs?" in refused.stderr


def test_a_persons_finding_is_a_row_of_its_own(fleet: Fleet, ended: dict[str, str]) -> None:
    job_id = ended["unresolved"]
    finding = ("--as", "filled", "--by", "alice", "--because", "fill seen in the platform")
    done = fleet.run("resolve", job_id, *finding)
    assert done.returncode == 0, done.stderr
    row = by_id(fleet)[job_id]
    assert (row["outcome"], row["resolved_as"], row["resolved_by"]) == ("unresolved", "filled", "alice")
    assert row["resolved_because"] == "fill seen in the platform"
    assert [a["acted_by"] for a in fleet.view("audit_actions") if a["action"] == "resolve"] == ["alice"]
    assert fleet.fault_of_audit() is None
    assert fleet.run("redrive", "--since", "2026-01-01", "--reason", "seen_working").stdout == ""


def test_only_unresolved_jobs_can_be_resolved(fleet: Fleet, ended: dict[str, str]) -> None:
    for job_id, why in ((ended["canceled"], "ended as canceled"), ("no-such-job", "knows no job")):
        done = fleet.run("resolve", job_id, "--as", "gone", "--by", "alice", "--because", "x")
        assert (done.returncode, why in done.stderr, done.stdout) == (1, True, "")
    nobody = fleet.run("resolve", ended["unresolved"], "--as", "gone", "--by", " ", "--because", "x")
    assert (nobody.returncode, "--by" in nobody.stderr) == (2, True)
    elsewhere = fleet.run(
        "resolve",
        *(ended["unresolved"], "--as", "gone", "--by", "alice", "--because", "x"),
        exchange_url="https://demo.tradovateapi.com/v1",
    )
    assert (elsewhere.returncode, "belongs to the exchange" in elsewhere.stderr) == (2, True)
    assert fleet.select("SELECT * FROM findings") == []
