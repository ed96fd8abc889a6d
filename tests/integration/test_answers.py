"""Every answer a cancel can get, through a real worker: what became of it, what it rests on, what was POSTed."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.parts.answers import endings, reasons, shapes, transport
from tests.parts.answers.case import ACCEPTED, AMBIGUOUS, ANY, TRANSIENT, Case
from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet
from worker.reasons import RULES, VERSION

Row = dict[str, Any]
# Above the simulator's own answers on a busy machine, below the time the dripping and late ones take.
BOUNDS = {"connect_timeout": "2", "read_timeout": "2", "total_timeout": "2"}
# A job that nothing proves must end, too.
BUDGETS = {"retry_budget": "15", "confirm_budget": "6"}
CASES = (*transport.CASES, *reasons.CASES, *shapes.CASES, *endings.CASES)
ORDERS = {1001 + i: case for i, case in enumerate(CASES)}


def stage(fleet: Fleet) -> None:
    """The accounts first: their numbers go by the order of their coming, 1001 and 1002."""
    fleet.exchange.add_orders({"id": 1, "account": "DEMO1"}, {"id": 2, "account": "DEMO2"})
    known = [{"id": o, "posts": list(case.posts), **case.order} for o, case in ORDERS.items() if case.known]
    fleet.exchange.add_orders(*known)


def test_every_published_reason_has_its_cases() -> None:
    assert len(reasons.PUBLISHED) == len(set(reasons.PUBLISHED)) == 33
    assert {f"reason:{reason}" for reason in reasons.PUBLISHED} <= RULES.keys()
    assert len({case.name for case in CASES}) == len(CASES)


def test_every_answer_has_its_end(fleet: Fleet) -> None:
    stage(fleet)
    fleet.start(**BOUNDS, **BUDGETS)
    receipts = fleet.queue().cancel_many([{"order_id": o, **case.request} for o, case in ORDERS.items()])
    jobs = fleet.ends(len(ORDERS), seconds=60)
    job_of = {receipt.job_id: order_id for receipt, order_id in zip(receipts, ORDERS, strict=True)}
    attempts: dict[int, list[Row]] = {order_id: [] for order_id in ORDERS}
    for row in sorted(fleet.view("audit_attempts"), key=lambda row: row["attempt"]):
        attempts[row["order_id"]].append(row)
    reads = [row | {"order_id": job_of[row["job_id"]]} for row in fleet.table("reads")]
    posts = fleet.exchange.requests()
    found = {o: _story(jobs[o], attempts[o], [p for p in posts if p["order_id"] == o]) for o in ORDERS}
    wanted = {o: _wanted(case) for o, case in ORDERS.items()}
    differ = {ORDERS[o].name: _difference(found[o], wanted[o]) for o in ORDERS if found[o] != wanted[o]}
    assert differ == {}
    assert _blind_retries(attempts, reads) == []
    assert _lost_replies(fleet.table("replies"), job_of, posts) == []
    _check_ticket(fleet)
    overlaps = [row["id"] for row in fleet.exchange.truth().values() if row["max_in_flight"] > 1]
    assert overlaps == []


def _difference(found: Row, wanted: Row) -> Row:
    return {name: (found[name], wanted[name]) for name in wanted if found[name] != wanted[name]}


def _wanted(case: Case) -> Row:
    count = len(case.verdicts)
    return {
        "outcome": case.outcome,
        "evidence": case.evidence,
        "verdicts": list(case.verdicts),
        "attempts": list(range(1, count + 1)),
        "posts": count,
        "transport": case.transport,
        "rule": case.rule,
        "reason": case.reason,
        "filled": case.filled,
        "versions": {VERSION},
        "same_command": True,
        "sent": True,
    }


def _story(job: Row, attempts: Sequence[Row], posts: Sequence[Row]) -> Row:
    """What was found, as far as the case tells it."""
    case = ORDERS[job["order_id"]]
    whole = " " in case.evidence
    answered = [p["command_id"] for p in posts if p["command_id"] is not None and p["fate"] == "answered"]
    kept = [a["command_id"] for a in attempts if a["command_id"] is not None]
    return {
        "outcome": job["outcome"],
        "evidence": job["evidence"][: len(case.evidence)] if whole else job["evidence"].split()[0],
        "verdicts": [a["verdict"] for a in attempts],
        "attempts": [a["attempt"] for a in attempts],
        "posts": len(posts),
        "transport": attempts[0]["transport"],
        "rule": None if case.rule is None else attempts[0]["rule"],
        "reason": ANY if case.reason is ANY else attempts[0]["failure_reason"],
        "filled": ANY if case.filled is ANY else job["filled_qty"],
        "versions": {a["policy_version"] for a in attempts},
        "same_command": (not case.heard or kept == answered) and job["command_id"] == [None, *kept][-1],
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
    many = attempts[next(o for o, case in ORDERS.items() if case.name == "many transient")]
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
        if ORDERS[p["order_id"]].heard and (p["order_id"], p["answer"]) not in kept
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
    assert len(plain_fleet.table("reads")) == 4
    assert plain_fleet.view("audit_attempts") == []


def _overdue(fleet: Fleet) -> bool:
    known = fleet.queue().status(order_id=4, account="default")
    return datetime.fromisoformat(known["deadline"]) < datetime.now(UTC)


def test_the_deadline_ends_repeated_posts(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.script(5, {"reason": "RiskCheckTimeout", "repeat": True})
    plain_fleet.start(confirm_budget="1")
    receipt = plain_fleet.queue().cancel(order_id=5, deadline=4)
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
    assert len(plain_fleet.table("reads")) >= 1


LOCK_OUTS = {
    "429": {"status": 429},
    "423": {"status": 423},
    "captcha": {"p-ticket": "t", "p-time": 0, "p-captcha": True},
    "odd ticket": {"reply": {"p-ticket": 7}},
}


def test_a_lock_out_stops_every_call(plain_fleet: Fleet) -> None:
    """Not one first byte until it is over, not even a read's."""
    exchange, queue = plain_fleet.exchange, plain_fleet.queue()
    for number, post in enumerate(LOCK_OUTS.values()):
        exchange.script(10 + number, post)
        exchange.add_orders(20 + number)
    plain_fleet.start(lockout="1")
    for number, name in enumerate(LOCK_OUTS):
        first, other = 10 + number, 20 + number
        queue.cancel(order_id=first)
        eventually(lambda first=first: _verdicts(plain_fleet, first), what=f"the verdict on {name}")
        queue.cancel(order_id=other)
        both = plain_fleet.ends(2 * number + 2)
        assert [both[order]["outcome"] for order in (first, other)] == ["canceled"] * 2, name
        locked, *later = exchange.requests(first)
        over = locked["at"] / 1_000_000 + 1
        calls = [row["at"] / 1_000_000 for row in [*later, *exchange.requests(other)]]
        reads = [
            row["read_at"].timestamp() for order in (first, other) for row in _reads_of(plain_fleet, order)
        ]
        assert min(calls + reads) >= over, name


def _verdicts(fleet: Fleet, order: int) -> list[str]:
    return [row["verdict"] for row in fleet.attempts(order) if row["verdict"] is not None]


def _reads_of(fleet: Fleet, order: int) -> list[Row]:
    jobs = {row["job_id"] for row in fleet.view("audit_jobs") if row["order_id"] == order}
    return [row for row in fleet.table("reads") if row["job_id"] in jobs]


def test_a_lock_out_that_a_read_meets_stops_every_call_too(plain_fleet: Fleet) -> None:
    exchange, queue = plain_fleet.exchange, plain_fleet.queue()
    exchange.add_orders({"id": 30, "posts": [{"status": 500}], "reads": [{"status": 429}]}, 31)
    plain_fleet.start(lockout="1")
    queue.cancel(order_id=30)
    eventually(lambda: _reads_of(plain_fleet, 30), what="the 429")
    locked = _reads_of(plain_fleet, 30)[0]["read_at"].timestamp()
    eventually(
        lambda: queue.status(order_id=30, account="default")["state"] == "reconciling", what="the lock-out"
    )
    queue.cancel(order_id=31)
    assert ends(plain_fleet, 30, 31) == {30: ("canceled", "order_read"), 31: ("canceled", "order_read")}
    later = [*exchange.requests(30)[1:], *exchange.requests(31)]
    assert [row["order_id"] for row in later if row["at"] / 1_000_000 - locked < 0.95] == []


# --- reads that prove nothing


@pytest.mark.parametrize("spoiled", [{"status": 401}, {"status": 403}, {"text": "<html>"}])
def test_without_one_conclusive_read_nothing_is_claimed(plain_fleet: Fleet, spoiled: dict[str, Any]) -> None:
    """A token that no read proves: what the exchange said stands, the rest is unresolved."""
    blind = {"reads": [spoiled | {"repeat": True}]}
    plain_fleet.exchange.add_orders(
        {"id": 40, "posts": [{"status": 500, "repeat": True}], **blind},
        {"id": 41, **blind},
        {"id": 42, "posts": [{"reason": "TradingLocked"}], **blind},
    )
    plain_fleet.start(confirm_budget="1", retry_budget="1")
    plain_fleet.queue().cancel_many([{"order_id": order} for order in (40, 41, 42)])
    jobs = plain_fleet.ends(3)
    assert {
        order: (row["outcome"], row["evidence"][:19], row["filled_qty"]) for order, row in jobs.items()
    } == {
        40: ("unresolved", "unproven", None),
        41: ("unresolved", "unproven", None),
        42: ("refused", "reply TradingLocked", None),
    }


def test_fills_that_cannot_be_read_leave_the_number_unknown_and_hold_nothing_up(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.add_orders(
        {"id": 50, "filled": 2, "reads": [{"of": "fill", "status": 500, "repeat": True}]}
    )
    plain_fleet.start()
    plain_fleet.queue().cancel(order_id=50)
    job = plain_fleet.ends(1, seconds=5)[50]
    assert (job["outcome"], job["evidence"], job["filled_qty"]) == ("canceled", "order_read Canceled", None)


def test_an_order_alone_is_missing_only_after_two_reads_of_a_list(plain_fleet: Fleet) -> None:
    """A single order is asked for by itself, and a 404 there proves nothing about the token."""
    plain_fleet.start()
    plain_fleet.queue().cancel(order_id=60)
    assert ends(plain_fleet, 60) == {60: ("refused", "order_not_found")}
    reads = _reads_of(plain_fleet, 60)
    assert len(reads) >= 2
    assert {(row["http_status"], row["found"]) for row in reads} == {(200, False)}
