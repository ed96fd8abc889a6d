"""The evidence sheet of a mass cancel: who asked, each order, when and how its end was proven, what is left and why."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from worker.audit.queries import Proof
from worker.clock import iso
from worker.job import JobId, OrderId
from worker.report.page import page_environment
from worker.work.mass_course import Course, Result
from worker.work.mass_order import MassOrder, Try

# What a page holds and a person reads; json has every order.
LISTED = 2000
MEANINGS = {
    Result.NONE_LEFT: "the last list shows no order left",
    Result.LEFT: "orders are left; each says why",
    Result.KEEPS_PLACING: "orders appeared in every round that was allowed: something keeps placing them; stop it first",
    Result.TIME_UP: "time is up; the cancels that are still open go on, and the same command goes on looking",
    Result.NOT_READ: "the exchange's list could not be read, so nothing is known of what is left; "
    "the cancels that were asked for go on, and the same command goes on looking",
    Result.DRY_RUN: "a dry run: these orders would be canceled; nothing was asked for",
}


def sheet(
    course: Course, *, exchange: str, live: bool, proofs: Mapping[JobId, Proof], notes: list[str]
) -> dict[str, Any]:
    """As JSON has it; times in UTC."""
    scope, contract = course.scope, course.scope.contract
    return {
        "massCancel": course.id,
        "exchange": exchange,
        "live": live,
        "account": scope.account,
        "accountId": scope.at_exchange.id,
        "accountName": scope.at_exchange.name,
        "contract": {"id": contract.id, "name": contract.name} if contract is not None else None,
        "dryRun": course.result is Result.DRY_RUN,
        "requestedBy": course.by,
        "askedAt": _iso(course.asked_at),
        "resumed": course.resumed,
        "beganAt": iso(course.began_at),
        "endedAt": iso(course.ended_at),
        "result": course.result,
        "meaning": MEANINGS[course.result],
        "noneLeft": course.result is Result.NONE_LEFT,
        "rounds": course.rounds,
        "looks": course.looks,
        "lastLookAt": _iso(course.last_look_at),
        "seen": len(course.orders),
        "left": len(course.left),
        "outcomes": dict(Counter(_outcome(order) for order in course.orders)),
        "orders": [_order(course, order, proofs) for order in _foremost(course)],
        "notes": [*course.notes, *notes],
    }


def render_json(made: Mapping[str, Any]) -> str:
    return json.dumps(made) + "\n"


def render_html(made: Mapping[str, Any]) -> str:
    """One self-contained page; what came from outside is text, never markup."""
    page = page_environment().get_template("sheet.html")
    return page.render(sheet=made, orders=made["orders"][:LISTED], listed=LISTED) + "\n"


def _foremost(course: Course) -> list[MassOrder]:
    """What is left first, then as they were seen."""
    return sorted(course.orders, key=lambda order: (not order.is_left, order.first.round, order.order_id))


def _order(course: Course, order: MassOrder, proofs: Mapping[JobId, Proof]) -> dict[str, Any]:
    last = order.last
    return {
        "orderId": order.order_id,
        "contractId": order.first.contract_id,
        "action": order.first.action,
        "firstSeenAt": order.first.at,
        "round": order.first.round,
        "ordStatusFirst": order.first.status,
        "ordStatusLast": order.listed.status if order.listed is not None else None,
        "left": order.is_left,
        "whyLeft": course.why_left(order) or None,
        "outcome": last.outcome if last is not None else None,
        "jobs": [_job(one, proofs) for one in order.tries],
        "contradictions": order.contradictions,
        "linked": list(_linked(course, order)),
    }


def _job(one: Try, proofs: Mapping[JobId, Proof]) -> dict[str, Any]:
    """The ledger's word, and what the audit adds to it."""
    known = one.known
    proof = proofs.get(JobId(str(one.job_id)))
    facts = ("state", "outcome", "evidence", "finishedAt", "attempts", "commandId", "reason", "firstSentAt")
    return {
        "jobId": one.job_id,
        "requestId": one.request_id,
        "status": one.fate,
        "error": one.error,
        **{name: known.get(name) for name in facts},
        "detail": proof.detail if proof is not None else None,
        "filledQty": proof.filled_qty if proof is not None else None,
    }


def _linked(course: Course, order: MassOrder) -> Iterator[dict[str, Any]]:
    """As the last list shows them; null where it does not."""
    links = {**order.first.links, **(order.listed.links if order.listed is not None else {})}
    for relation, number in links.items():
        listed = course.listed.get(OrderId(number))
        yield {
            "orderId": number,
            "relation": relation,
            "ordStatus": listed.status if listed is not None else None,
            "open": listed.is_open if listed is not None else None,
        }


def _outcome(order: MassOrder) -> str:
    last = order.last
    if last is None:
        return "not asked for"
    return str(last.outcome or ("open" if last.is_running else "unknown"))


def _iso(moment: datetime | None) -> str | None:
    return iso(moment) if moment is not None else None
