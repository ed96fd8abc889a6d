"""`cancelq why` tells what the audit holds, so that a person at 3 a.m. understands it."""

import json

import pytest
from sqlalchemy import Engine, text

from tests.parts.cancels import (
    a_finding,
    a_job,
    a_joiner,
    a_late_reply,
    a_reply,
    a_start,
    a_whole_life,
    an_action,
    an_outcome,
    at,
    not_sent,
    record,
    unanswered,
)
from tests.parts.tampering import disarm
from tests.parts.why import Why, a_look, a_try, an_end, kinds, said
from worker.audit.facts import job_fact, request_fact
from worker.audit.writer import AuditWriter
from worker.job import JobId, OrderId, Outcome, Steering
from worker.reasons import VERSION

ACCEPTED = b'{"commandId":9007199254740993}'
BUSY = b'{"failureReason":"AnotherCommandPending"}'
TOO_LATE = b'{"failureReason":"TooLate","failureText":"already filled"}'


def test_a_plain_cancel_is_told_from_the_request_to_the_proof(why: Why, audit_engine: Engine) -> None:
    record(
        audit_engine,
        job_fact(a_job(activation_time=None, cl_ord_id=None, custom_tag50=None, deadline=None)),
        *a_try(said(ACCEPTED, sent=4.2)),
        a_look("Canceled", after=182),
        an_end(Outcome.CANCELED, "order_read Canceled", after=190, filled=0),
    )
    lines = [line.strip() for line in why.text("123").splitlines()]
    assert lines == [
        "Order 123; times in UTC",
        "note: there is no ledger yet",
        "",
        "Account DEMO1: 1 job",
        "",
        "Job job-1 at http://127.0.0.1:8080/v1",
        "= canceled: order read as Canceled 182.0 ms after the request; 1 POST; no contracts filled",
        "2026-11-23 12:00:00.000      +0.0 ms  asked for by momentum, request request-of-job-1, priority normal",
        "2026-11-23 12:00:00.004      +4.2 ms  attempt 1: POST sent by host/1",
        (
            "2026-11-23 12:00:00.024     +24.2 ms  attempt 1: answered after 20.0 ms: "
            "HTTP 200, commandId 9007199254740993"
        ),
        (
            "2026-11-23 12:00:00.033     +33.0 ms  attempt 1: taken for accepted, rule reason:missing: "
            f"a commandId and no reason is how success looks (policy {VERSION})"
        ),
        "2026-11-23 12:00:00.182    +182.0 ms  order read: Canceled",
        "2026-11-23 12:00:00.190    +190.0 ms  ended canceled, by order_read Canceled; contracts filled: 0",
        "",
        "Linked orders, as this order named them on 2026-11-23 12:00:00.182: none",
    ]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("jobs", "account = x'41'"),
        ("jobs", "deadline = 'x'"),
        ("replies", "latency_us = 'abc'"),
        ("verdicts", "failure_reason = CAST(x'ff' AS TEXT)"),
    ],
)
def test_a_story_that_cannot_be_told_names_the_row_that_was_changed(
    why: Why, audit_engine: Engine, table: str, change: str
) -> None:
    record(audit_engine, *a_whole_life())
    disarm(audit_engine)
    with audit_engine.begin() as connection:
        connection.execute(text(f"UPDATE {table} SET {change}"))
    done = why.run("123", "--json")
    (said,) = done.stderr.splitlines()
    assert (done.exit_code, done.stdout) == (1, "")
    assert said.startswith(f"cancelq: the audit is NOT intact: {table} row ")


def test_times_are_shown_in_the_zone_that_was_asked_for(why: Why, audit_engine: Engine) -> None:
    record(audit_engine, *a_whole_life())
    page = why.text("123", "--tz", "Europe/Zurich")
    assert "times in Europe/Zurich" in page
    assert "2026-11-23 13:00:00.004" in page
    assert why.jobs("123", "--tz", "Europe/Zurich")[0]["events"][0]["at"] == "2026-11-23T12:00:00.000000Z"


def test_whoever_joined_is_named_with_their_wish(why: Why, audit_engine: Engine) -> None:
    record(
        audit_engine,
        job_fact(a_job()),
        request_fact("job-1", a_joiner("r-1", at(90_000))),
        request_fact("job-1", a_joiner("r-2")),
    )
    page = why.text("123")
    assert "joined by hedger, request r-1, priority urgent, deadline 2026-11-23 12:01:30.000" in page
    assert "joined by hedger, request r-2, priority urgent, no deadline" in page
    (job,) = why.jobs("123")
    assert [(r["requestId"], r["joined"]) for r in job["requests"]] == [
        ("request-of-job-1", False),
        ("r-1", True),
        ("r-2", True),
    ]


def test_a_transient_answer_is_counted_and_its_rule_explained(why: Why, audit_engine: Engine) -> None:
    record(
        audit_engine,
        job_fact(a_job()),
        *a_try(said(BUSY, sent=4)),
        *a_try(said(ACCEPTED, sent=104), attempt=2, after=102),
        a_look("Canceled", after=200),
        an_end(Outcome.CANCELED, "order_read Canceled", after=201, filled=3),
    )
    (job,) = why.jobs("123")
    assert job["conclusion"] == (
        "canceled: order read as Canceled 200.0 ms after the request; 2 POSTs, 1 answer AnotherCommandPending "
        "(rule reason:AnotherCommandPending: another command of this order is in flight); 3 contracts filled"
    )
    assert [(a["verdict"], a["commandId"], a["latencyMs"]) for a in job["attempts"]] == [
        ("transient", None, 20.0),
        ("accepted", 9007199254740993, 20.0),
    ]
    assert job["attempts"][0]["why"] == "another command of this order is in flight"


def test_an_unclear_answer_is_followed_by_what_the_reads_showed(why: Why, audit_engine: Engine) -> None:
    record(
        audit_engine,
        job_fact(a_job()),
        *a_try(unanswered()),
        a_look(None, after=100, found=None),
        a_look("Working", after=200),
        a_look(None, after=250, kind="command_report", found=False),
        *a_try(said(TOO_LATE, sent=1302), attempt=2, after=1300),
        a_look("Filled", after=1500),
        an_end(Outcome.FILLED, "order_read Filled", after=1501, filled=1),
    )
    (job,) = why.jobs("123")
    assert job["conclusion"] == (
        "filled: order read as Filled 1500.0 ms after the request; 2 POSTs, 1 ambiguous (rule "
        "transport:unanswered: bytes left, no answer came: the one true unknown), 1 answer TooLate (rule "
        "reason:TooLate: three facts in one word: filled, canceled, or never open); 1 contract filled"
    )
    assert kinds(job["events"]) == [
        *("enqueued", "sent", "unanswered", "decided", "order_read", "order_read", "command_report"),
        *("sent", "answered", "decided", "order_read", "ended"),
    ]
    says = [event["says"] for event in job["events"]]
    assert "attempt 1: sent, but no answer came; the exchange may have acted: reset" in says
    assert "order read: nothing learned, HTTP 200" in says
    assert "command report read: no rejection" in says
    assert 'attempt 2: answered after 20.0 ms: HTTP 200, TooLate, "already filled"' in says


def test_a_rejection_in_the_command_report_is_the_proof(why: Why, audit_engine: Engine) -> None:
    record(
        audit_engine,
        job_fact(a_job()),
        *a_try(said(ACCEPTED, sent=4)),
        a_look("TradingLocked", after=900, kind="command_report"),
        an_end(Outcome.REFUSED, "command_report TradingLocked", after=901),
    )
    page = why.text("123")
    assert "command report read: the cancel was rejected: TradingLocked" in page
    assert "refused: the command's report says TradingLocked, read 900.0 ms after the request" in page


def test_an_unresolved_job_asks_for_a_person_until_one_found_out(why: Why, audit_engine: Engine) -> None:
    record(
        audit_engine,
        job_fact(a_job()),
        *a_try(not_sent()),
        a_look("Working", after=60_000),
        an_end(Outcome.UNRESOLVED, "seen_working Working", after=60_001),
    )
    assert why.jobs("123")[0]["conclusion"] == (
        "unresolved: the budget is spent and the order was seen open (Working) 60.000 s after the request; "
        "1 POST, 1 transient (rule transport:not_sent: no byte left; read before the next POST all the same); "
        "a person is needed"
    )
    record(audit_engine, a_finding(), writer="writer-2")
    (job,) = why.jobs("123")
    assert job["conclusion"].endswith("; found filled by a person (alice)")
    assert job["findings"][0]["because"] == "seen in the platform"
    assert "+200.000 s  found filled by a person, alice: seen in the platform" in why.text("123")


def test_an_open_job_without_a_ledger_says_that_more_is_not_known(why: Why, audit_engine: Engine) -> None:
    record(audit_engine, job_fact(a_job()), a_start())
    (job,) = why.jobs("123")
    assert (
        job["conclusion"]
        == "still open: no outcome on record, and what the ledger holds is not known; 1 POST"
    )
    assert job["outcome"] is None
    assert job["events"][1]["says"].endswith("whether it was sent, and what came back, is not on record")


def test_a_redrive_is_told_from_both_sides(why: Why, audit_engine: Engine) -> None:
    redrive = a_job("job-2", requested_by="alice")._replace(redrive_of=JobId("job-1"), enqueued_at=at(9000))
    record(
        audit_engine,
        job_fact(a_job()),
        an_end(Outcome.REFUSED, "reply AccountClosed", after=500),
        job_fact(redrive),
    )
    old, new = why.jobs("123")
    assert (old["redrivenAs"], new["redriveOf"]) == (["job-2"], "job-1")
    assert old["conclusion"].endswith("no POST; redriven as job job-2 (still open)")
    assert kinds(old["events"])[-1] == "redriven"
    assert new["events"][0]["says"].endswith("redrive of job job-1")


def test_every_account_with_such_an_order_has_its_section(why: Why, audit_engine: Engine) -> None:
    record(
        audit_engine,
        *a_whole_life("job-1"),
        *a_whole_life("job-2", account="OTHER"),
        *a_whole_life("job-3", order_id=OrderId(124)),
    )
    both = why.json("123")["accounts"]
    assert [(a["account"], [j["jobId"] for j in a["jobs"]]) for a in both] == [
        ("DEMO1", ["job-1"]),
        ("OTHER", ["job-2"]),
    ]
    assert [job["jobId"] for job in why.jobs("123", "--account", "OTHER")] == ["job-2"]


def test_an_order_that_nobody_canceled_is_unknown(why: Why, audit_engine: Engine) -> None:
    record(audit_engine, *a_whole_life())
    done = why.run("9")
    assert (done.exit_code, done.stdout) == (1, "")
    assert (
        "order 9: the audit knows of no cancel; a request that is not on record yet is found with --account"
        in (done.stderr)
    )
    assert "order 9 of account A: no cancel was ever asked for" in why.run("9", "--account", "A").stderr
    done = why.run("123", "--account", "OTHER", "--json")
    answer = json.loads(done.stdout)
    assert (done.exit_code, answer["status"], answer["orderId"]) == (1, "unknown", 123)


def test_hostile_text_drives_no_terminal_and_makes_no_lines(why: Why, audit_engine: Engine) -> None:
    text = "\x1b[2J\x1b]0;title\x07\r\nended canceled\u202e\u2028\x9b31m" + "x" * 5000
    reply = said(json.dumps({"failureReason": "Odd\x1b[31m", "failureText": text}).encode(), sent=4)
    record(
        audit_engine,
        job_fact(a_job(requested_by="me\n  = canceled", account="A\x1b[0m")),
        *a_try(reply),
        a_look("Work\ning", after=100, body='{"parentId": 7}'),
        an_end(Outcome.UNRESOLVED, "unproven", after=200),
        a_finding(name="f\x1b"),
    )
    page = why.text("123")
    assert all(char.isprintable() or char == "\n" for char in page)
    assert [line for line in page.splitlines() if line.startswith("  =")] == [
        line for line in page.splitlines() if "= unresolved" in line
    ]
    assert "\\x1b[2J" in page
    assert max(map(len, page.splitlines())) < 1000
    assert why.json("123")["accounts"][0]["jobs"][0]["attempts"][0]["failureText"] == text


def test_an_answer_that_came_too_late_is_told(why: Why, audit_engine: Engine) -> None:
    record(
        audit_engine,
        job_fact(a_job()),
        a_start(),
        *a_reply(unanswered(sent=None)),
        a_late_reply(),
        an_outcome(),
    )
    (job,) = why.jobs("123")
    assert job["attempts"][0]["lateReply"]["commandId"] == 77
    (late,) = [event["says"] for event in job["events"] if event["kind"] == "late_reply"]
    assert late.startswith("attempt 1: late reply, it was already written off: HTTP 200, commandId 77")


def test_only_pauses_that_overlap_the_jobs_life_are_told(why: Why, audit_engine: Engine) -> None:
    record(
        audit_engine,
        job_fact(a_job()),
        an_outcome(after=1000),
        *(an_action("p1", after=-9000), an_action("r1", Steering.RESUME, after=-8000)),
        *(an_action("p2", after=-50), an_action("r2", Steering.RESUME, after=300)),
        *(an_action("p3", after=400), an_action("p4", after=450), an_action("d", Steering.DRAIN, after=500)),
        *(an_action("r3", Steering.RESUME, after=2000), an_action("p5", after=3000)),
    )
    events = why.jobs("123")[0]["events"]
    assert kinds(events) == ["enqueued", "paused", "paused", "drained", "ended"]
    assert [event["says"] for event in events if event["kind"] == "paused"] == [
        "paused by bob, from 2026-11-23 11:59:59.950 to 2026-11-23 12:00:00.300, resumed by bob",
        "paused by bob, from 2026-11-23 12:00:00.400 to 2026-11-23 12:00:02.000, resumed by bob",
    ]


def test_a_pause_that_was_over_before_a_later_job_is_not_told_of_it(why: Why, audit_engine: Engine) -> None:
    record(
        audit_engine,
        job_fact(a_job()),
        *(an_action("p", after=100), an_action("r", Steering.RESUME, after=200)),
        an_outcome(after=1000),
        job_fact(a_job("job-2")._replace(enqueued_at=at(5000))),
    )
    first, second = why.jobs("123")
    assert (kinds(first["events"]), kinds(second["events"])) == (
        ["enqueued", "paused", "ended"],
        ["enqueued"],
    )


def test_a_mass_cancel_hides_no_pause(why: Why, audit_engine: Engine) -> None:
    begun = an_action("m", after=-10)
    begun.values["action"] = "cancel_all"
    record(audit_engine, job_fact(a_job()), an_action("p", after=-50), begun)
    assert "paused by bob" in why.text("123")


def test_an_order_that_a_dry_run_left_open_needs_no_person(why: Why, audit_engine: Engine) -> None:
    record(
        audit_engine,
        job_fact(a_job()),
        a_look("Working", after=50),
        an_end(Outcome.UNRESOLVED, "dry_run Working", after=60),
    )
    assert "a person is needed" not in why.text("123")
    assert "= unresolved: a dry run, nothing was to be POSTed, and the order was open (Working)" in why.text(
        "123"
    )


def test_a_pause_that_goes_on_is_told_of_an_open_job(why: Why, audit_engine: Engine) -> None:
    record(audit_engine, job_fact(a_job()), an_action(after=-50))
    assert "paused by bob, from 2026-11-23 11:59:59.950 not resumed since" in why.text("123")


def test_rules_of_other_tables_are_told_as_far_as_they_are_known(why: Why, audit_engine: Engine) -> None:
    old = job_fact(a_job()), a_start(), *a_reply(said(BUSY, sent=4))
    record(audit_engine, *old)
    assert f"in flight, as table {VERSION} has it (policy policy-1)" in why.text("123")
    gone = a_try(said(BUSY, sent=4), attempt=2)
    gone[2].values["rule"] = "reason:ForgottenLongAgo"
    gone[2].values["policy_version"] = "2020-01.1"
    record(audit_engine, *gone, writer="writer-2")
    unknown = (
        f"rule reason:ForgottenLongAgo: unknown here, this program's table is {VERSION} (policy 2020-01.1)"
    )
    assert unknown in why.text("123")


def test_a_reason_made_transient_by_configuration_is_not_explained_by_the_table(
    why: Why, audit_engine: Engine
) -> None:
    tried = a_try(said(TOO_LATE, sent=4))
    tried[2].values.update(verdict="transient", policy_version=f"{VERSION}+abc123")
    record(audit_engine, job_fact(a_job()), *tried)
    assert f"rule reason:TooLate: why is not known here, table {VERSION} says ambiguous" in why.text("123")


def test_a_thousand_reads_that_say_the_same_are_two_lines(why: Why, audit_engine: Engine) -> None:
    looks = [a_look("Working", after=100 + number) for number in range(1000)]
    record(audit_engine, job_fact(a_job()), *looks, a_look("Canceled", after=2000))
    page = why.text("123")
    assert (page.count("order read: Working"), page.count("the same 999 times more up to here")) == (1, 1)
    assert len(why.jobs("123")[0]["reads"]) == 1001


def test_live_orders_are_shown_as_live(why: Why, audit_engine: Engine) -> None:
    record(audit_engine, *a_whole_life())
    assert "LIVE" not in why.text("123")
    audit = AuditWriter(audit_engine, writer="live", environment="https://live.tradovateapi.com/v1")
    audit.start()
    audit.commit([job_fact(a_job("job-2", account="REAL"))])
    audit.stop()
    page = why.text("123")
    assert page.startswith("*** LIVE: real orders, real money ***")
    assert "Job job-1 at http://127.0.0.1:8080/v1\n" in page
    assert "Job job-2 at https://live.tradovateapi.com/v1 LIVE\n" in page
    assert [a["jobs"][0]["live"] for a in why.json("123")["accounts"]] == [False, True]


@pytest.mark.parametrize("order", ["0", "-1", "1e3", "9223372036854775808", "abc"])
def test_a_number_that_is_no_order_is_wrong_use(why: Why, order: str) -> None:
    done = why.run("--", order)
    assert (done.exit_code, "must be 1 to 9223372036854775807" in done.stderr) == (2, True)
