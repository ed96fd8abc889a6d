"""Every answer a cancel can get, through a real worker: what became of it, what it rests on, what was POSTed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from models import Base
from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet
from worker.audit.engine import open_engine, reading

Row = dict[str, Any]
# Above the simulator's own answers, below the time the dripping and late ones take.
BOUNDS = {"connect_timeout": "1", "read_timeout": "1", "total_timeout": "1"}
ACCEPTED, TRANSIENT, AMBIGUOUS = "accepted", "transient", "ambiguous"


@dataclass(frozen=True)
class Case:
    """One order: what its POSTs meet, and what must come of it. Each verdict is one POST."""

    name: str
    posts: Sequence[Mapping[str, Any]]
    verdicts: Sequence[str]
    outcome: str = "canceled"
    evidence: str = "order_read"
    transport: str = "answered"  # of the first attempt
    order: Mapping[str, Any] = field(default_factory=dict)
    known: bool = True


def settled(name: str, post: Mapping[str, Any], **more: Any) -> Case:
    """Ambiguous, but the order shows that the cancel took effect: one POST is all."""
    return Case(name, [post], [AMBIGUOUS], **more)


def repeated(name: str, post: Mapping[str, Any], **more: Any) -> Case:
    """Ambiguous, and the order still works: read, then POSTed again."""
    return Case(name, [post], [AMBIGUOUS, ACCEPTED], **more)


def refused(name: str, post: Mapping[str, Any], **more: Any) -> Case:
    return Case(name, [post], ["refused"], **({"outcome": "refused", "evidence": "reply"} | more))


CASES = (
    Case("plain", [], [ACCEPTED]),
    Case(
        "success_said",
        [{"reply": {"failureReason": "Success"}, "effect": "before", "with_command": True}],
        [ACCEPTED],
    ),
    *(
        Case(reason, [{"reason": reason}] * 2, [TRANSIENT, TRANSIENT, ACCEPTED])
        for reason in ("AnotherCommandPending", "RiskCheckTimeout", "ExecutionProviderUnavailable")
    ),
    Case("many_transient", [{"reason": "AnotherCommandPending"}] * 5, [TRANSIENT] * 5 + [ACCEPTED]),
    refused("final", {"reason": "TradingLocked"}, evidence="reply TradingLocked"),
    refused(
        "final_but_done",
        {"reason": "AccountClosed", "effect": "before"},
        outcome="canceled",
        evidence="order_read",
    ),
    refused("denied", {"reason": "UnknownReason", "failure_text": "Access is denied"}),
    refused("error_text", {"reply": {"errorText": "no such thing"}}, evidence="reply body:errorText"),
    refused(
        "violations", {"reply": {"violations": [{"field": "orderId"}]}}, evidence="reply body:violations"
    ),
    refused("bad_request", {"status": 400}),
    refused("forbidden", {"status": 403}),
    repeated("future_reason", {"reason": "NewIn2027"}),
    settled("future_reason_but_done", {"reason": "NewIn2027", "effect": "before"}),
    repeated("empty_result", {"reply": {}}),
    repeated("session_evicted", {"status": 408}),
    repeated("no_json", {"text": "it works"}),
    repeated("json_but_no_object", {"reply": [1, 2]}),
    repeated("redirect", {"location": "/v1/order/cancelorder"}),
    repeated("redirect_that_keeps_the_method", {"status": 307, "location": "/v1/order/cancelorder"}),
    settled("reason_and_command", {"reason": "RiskCheckTimeout", "with_command": True, "effect": "before"}),
    repeated("odd_command", {"reply": {"commandId": 2**63}}),
    Case("too_late_canceled", [], [AMBIGUOUS], order={"ordStatus": "Canceled"}),
    Case("too_late_filled", [], [AMBIGUOUS], "filled", order={"ordStatus": "Filled"}),
    Case("too_late_completed", [], [AMBIGUOUS], "filled", order={"ordStatus": "Completed"}),
    Case("too_late_expired", [], [AMBIGUOUS], "gone", order={"ordStatus": "Expired"}),
    Case("too_late_rejected", [], [AMBIGUOUS], "gone", order={"ordStatus": "Rejected"}),
    repeated("too_late_but_working", {"reason": "TooLate"}),
    settled("error_after_effect", {"status": 500, "effect": "before"}),
    repeated("error_without_effect", {"status": 500}),
    settled("dropped_after_effect", {"drop": "after"}, transport="unanswered"),
    repeated("dropped_before_effect", {"drop": "before"}, transport="unanswered"),
    settled("reset_after_effect", {"reset": "after"}, transport="unanswered"),
    repeated("reset_before_effect", {"reset": "before"}, transport="unanswered"),
    settled("late_effect", {"status": 500, "effect": "after", "effect_delay": 0.4}),
    settled("cut_body", {"cut_body": 5}, transport="unanswered"),
    settled("too_long_a_length", {"content_length": 5000}, transport="unanswered"),
    settled("too_short_a_length", {"content_length": 3}),
    settled("dripped_head", {"drip": {"bytes_per_second": 10, "part": "headers"}}, transport="unanswered"),
    settled("dripped_body", {"drip": {"bytes_per_second": 10, "part": "body"}}, transport="unanswered"),
    settled("slow", {"delay": 3}, transport="unanswered"),
    repeated("garbage", {"garbage": True}, transport="unanswered"),
    settled("huge", {"body_bytes": 1_000_000}),
    settled("said_to_be_gzip", {"gzip": True}),
    Case("unknown_order", [], [AMBIGUOUS], "refused", "order_not_found", known=False),
    Case("ticket", [{"p-ticket": "t1", "p-time": 0.3}], ["throttled", ACCEPTED]),
    Case("token_refused_once", [{"status": 401}], ["unauthorized", ACCEPTED]),
    Case("token_refused", [{"status": 401}] * 2, ["unauthorized"] * 2, "refused", "reply"),
    Case(
        "rejected_late",
        [{"late_reject": "TradingLocked"}],
        [ACCEPTED],
        "refused",
        "command_report TradingLocked",
    ),
    Case("rejected_late_without_a_reason_to_stop", [{"late_reject": True}], [ACCEPTED, ACCEPTED]),
    Case("filled_first", [{"fill_first": True}], [AMBIGUOUS], "filled"),
    Case("filled_after", [{"fill_after": True}], [ACCEPTED], "filled"),
    Case("filled_in_part", [{"partial_fill": 1}], [ACCEPTED]),
    Case("settles_slowly", [{"settle": 1.5}], [ACCEPTED]),
)
# Cases whose answers did not get across in full, or carry no id, whatever the simulator believes.
UNHEARD = {"odd_command", "huge", "slow", "dripped_head", "dripped_body"}
ORDERS = {1001 + i: case for i, case in enumerate(CASES)}


def table(fleet: Fleet, name: str) -> list[Row]:
    engine = open_engine(fleet.database_url)
    try:
        with reading(engine) as connection:
            return [dict(row) for row in connection.execute(select(Base.metadata.tables[name])).mappings()]
    finally:
        engine.dispose()


def stage(fleet: Fleet, cases: Mapping[int, Case]) -> None:
    for order_id, case in cases.items():
        if case.known:
            fleet.exchange.add_orders({"id": order_id, "posts": list(case.posts), **case.order})


def test_every_answer_has_its_end(fleet: Fleet) -> None:
    stage(fleet, ORDERS)
    fleet.start(**BOUNDS)
    receipts = fleet.queue().cancel_many([{"order_id": order_id} for order_id in ORDERS])
    jobs = fleet.ends(len(ORDERS))
    job_of = {receipt.job_id: order_id for receipt, order_id in zip(receipts, ORDERS, strict=True)}
    attempts: dict[int, list[Row]] = {order_id: [] for order_id in ORDERS}
    for row in sorted(fleet.view("audit_attempts"), key=lambda row: row["attempt"]):
        attempts[row["order_id"]].append(row)
    reads = [row | {"order_id": job_of[row["job_id"]]} for row in table(fleet, "reads")]
    posts = fleet.exchange.requests()
    found = {o: _story(jobs[o], attempts[o], [p for p in posts if p["order_id"] == o]) for o in ORDERS}
    wanted = {o: _wanted(case) for o, case in ORDERS.items()}
    assert {ORDERS[o].name: (found[o], wanted[o]) for o in ORDERS if found[o] != wanted[o]} == {}
    assert _blind_retries(attempts, reads) == []
    assert _lost_replies(table(fleet, "replies"), job_of, posts) == []
    _check_ticket(fleet)
    overlaps = [row["id"] for row in fleet.exchange.truth().values() if row["max_in_flight"] > 1]
    assert overlaps == []


def _wanted(case: Case) -> Row:
    count = len(case.verdicts)
    return {
        "outcome": case.outcome,
        "evidence": case.evidence,
        "verdicts": list(case.verdicts),
        "attempts": list(range(1, count + 1)),
        "posts": count,
        "transport": case.transport,
        "same_command": True,
        "sent": True,
    }


def _story(job: Row, attempts: Sequence[Row], posts: Sequence[Row]) -> Row:
    case = ORDERS[job["order_id"]]
    whole = len(case.evidence.split()) > 1
    answered = [p["command_id"] for p in posts if p["command_id"] is not None and p["fate"] == "answered"]
    kept = [a["command_id"] for a in attempts if a["command_id"] is not None]
    return {
        "outcome": job["outcome"],
        "evidence": job["evidence"][: len(case.evidence)] if whole else job["evidence"].split()[0],
        "verdicts": [a["verdict"] for a in attempts],
        "attempts": [a["attempt"] for a in attempts],
        "posts": len(posts),
        "transport": attempts[0]["transport"],
        "same_command": (case.name in UNHEARD or kept == answered) and job["command_id"] == [None, *kept][-1],
        "sent": all(a["sent_at"] is not None for a in attempts)
        and job["first_sent_at"] == attempts[0]["sent_at"],
    }


def _blind_retries(attempts: Mapping[int, Sequence[Row]], reads: Sequence[Row]) -> list[str]:
    """POSTs after anything but a transient reply that no read of the order preceded."""
    blind = []
    for order_id, rows in attempts.items():
        for before, after in pairwise(rows):
            between = [
                r
                for r in reads
                if r["order_id"] == order_id and before["started_at"] < r["read_at"] < after["started_at"]
            ]
            if before["verdict"] != TRANSIENT and not any(r["found"] for r in between):
                blind.append(f"{ORDERS[order_id].name}: attempt {after['attempt']}")
    many = attempts[next(o for o, case in ORDERS.items() if case.name == "many_transient")]
    unread = [
        r for r in reads if r["order_id"] == many[0]["order_id"] and r["read_at"] < many[4]["started_at"]
    ]
    return blind if unread else [*blind, "more than three POSTs on transient replies without a read"]


def _lost_replies(replies: Sequence[Row], job_of: Mapping[Any, int], posts: Sequence[Row]) -> list[str]:
    """Answers that the exchange gave in full and that are not in the audit word for word."""
    kept = {(job_of[r["job_id"]], r["body"]) for r in replies if r["transport"] == "answered"}
    given = [p for p in posts if p["fate"] == "answered" and len(p["answer"]) < 500]
    return [
        f"{ORDERS[p['order_id']].name}: {p['answer']}"
        for p in given
        if ORDERS[p["order_id"]].name not in UNHEARD and (p["order_id"], p["answer"]) not in kept
    ]


def _check_ticket(fleet: Fleet) -> None:
    """The same body again, plus the ticket, once."""
    order_id = next(o for o, case in ORDERS.items() if case.name == "ticket")
    first, second = (post["body"] for post in fleet.exchange.requests(order_id))
    assert second == first[:-1] + ',"p-ticket":"t1"}'


# --- the deadline


@pytest.fixture
def plain_fleet(make_fleet: Callable[..., Fleet], redis_url: str, ledger_name: str, tmp_path: Path) -> Fleet:
    """On SQLite alone: what is asked here is the same on any database."""
    return make_fleet(redis_url, ledger_name, f"sqlite:///{tmp_path / 'audit.sqlite3'}")


def ends(fleet: Fleet, *orders: int) -> dict[int, tuple[str, str]]:
    jobs = fleet.ends(len(orders))
    return {order: (jobs[order]["outcome"], jobs[order]["evidence"].split()[0]) for order in orders}


def test_after_the_deadline_nothing_is_posted(plain_fleet: Fleet) -> None:
    """Never sent by then: one read, then the end it showed, or unresolved."""
    exchange, queue = plain_fleet.exchange, plain_fleet.queue()
    exchange.add_orders(1, {"id": 2, "ordStatus": "Filled"}, {"id": 3, "ordStatus": "Canceled"})
    first = plain_fleet.start()
    first.terminate()
    for order in (1, 2, 3, 4):
        assert queue.cancel(order_id=order, deadline=0.3).status == "accepted"
    eventually(lambda: _overdue(plain_fleet), what="the deadline")
    plain_fleet.start()
    assert ends(plain_fleet, 1, 2, 3, 4) == {
        1: ("unresolved", "deadline"),
        2: ("filled", "order_read"),
        3: ("canceled", "order_read"),
        4: ("unresolved", "deadline"),
    }
    assert exchange.requests() == []
    assert len(table(plain_fleet, "reads")) == 4
    assert plain_fleet.view("audit_attempts") == []


def _overdue(fleet: Fleet) -> bool:
    known = fleet.queue().status(order_id=4, account="default")
    return datetime.fromisoformat(known["deadline"]) < datetime.now(UTC)


def test_the_deadline_ends_repeated_posts(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.script(5, {"reason": "RiskCheckTimeout", "repeat": True})
    plain_fleet.start(confirm_budget="1")
    receipt = plain_fleet.queue().cancel(order_id=5, deadline=1.5)
    assert ends(plain_fleet, 5) == {5: ("unresolved", "seen_working")}
    (job,) = plain_fleet.view("audit_jobs")
    attempts = plain_fleet.attempts(5)
    assert len(attempts) >= 2
    assert all(row["sent_at"] < job["deadline"] for row in attempts)
    assert receipt.job_id == job["job_id"]


def test_a_spent_retry_budget_ends_repeated_posts(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.script(6, {"reason": "AnotherCommandPending", "repeat": True})
    plain_fleet.exchange.script(7, {"status": 500, "repeat": True})
    plain_fleet.start(max_attempts="3", confirm_budget="1")
    plain_fleet.queue().cancel_many([{"order_id": 6}, {"order_id": 7}])
    assert ends(plain_fleet, 6, 7) == {6: ("unresolved", "seen_working"), 7: ("unresolved", "seen_working")}
    assert [len(plain_fleet.exchange.requests(order)) for order in (6, 7)] == [3, 3]


# --- configuration


def test_without_confirmation_an_acceptance_is_the_end(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.add_orders(8, settle=5)
    plain_fleet.exchange.script(9, {"drop": "before"})
    plain_fleet.start(confirm="off")
    plain_fleet.queue().cancel_many([{"order_id": 8}, {"order_id": 9}])
    assert ends(plain_fleet, 8, 9) == {8: ("accepted", "reply"), 9: ("accepted", "reply")}
    assert {
        row["order_id"]: row["verdict"] for row in plain_fleet.view("audit_attempts") if row["attempt"] == 1
    } == {
        8: ACCEPTED,
        9: AMBIGUOUS,  # reconciling is never skipped
    }
    assert len(table(plain_fleet, "reads")) >= 1


def test_a_lock_out_stops_every_call(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.script(10, {"status": 429})
    plain_fleet.exchange.add_orders(11)
    plain_fleet.start(lockout="2")
    queue = plain_fleet.queue()
    queue.cancel(order_id=10)
    eventually(lambda: plain_fleet.attempts(10), what="the 429")
    eventually(lambda: plain_fleet.attempts(10)[0]["verdict"], what="the verdict")
    queue.cancel(order_id=11)
    assert ends(plain_fleet, 10, 11) == {10: ("canceled", "order_read"), 11: ("canceled", "order_read")}
    first, *later = plain_fleet.exchange.requests()
    assert all(row["at"] - first["at"] >= 2_000_000 for row in later)
