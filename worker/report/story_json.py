"""The story for programs: one object with every row, ids exact, times in UTC."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar

from worker.audit.order_story import JobFacts, LateRow, ReplyRow, StartRow, VerdictRow
from worker.clock import iso
from worker.report.links import Linked
from worker.report.story import Event
from worker.report.why import JobTale, Tale
from worker.report.wording import rule_why

Row = TypeVar("Row", ReplyRow, LateRow, VerdictRow)


def render_story(tale: Tale) -> str:
    """One JSON object; control characters are escaped."""
    content = {
        "orderId": tale.order_id,
        "live": tale.is_live,
        "notes": list(tale.notes),
        "accounts": [
            {
                "account": account.account,
                "jobs": [_job(job) for job in account.jobs],
                "linked": [_linked(linked) for linked in account.links.orders],
                "linkedAsOf": _plain(account.links.as_of),
            }
            for account in tale.accounts
        ],
    }
    return json.dumps(content, indent=2) + "\n"


def _job(job: JobTale) -> dict[str, Any]:
    facts = job.facts
    ended = _cells(facts.outcome, "outcome", "evidence", "detail", "filled_qty", "finished_at")
    return {
        **_cells(facts.job, *asdict(facts.job)),
        "live": job.is_live,
        "recorded": facts.recorded,
        "redrivenAs": list(job.redriven_as),
        "conclusion": job.conclusion,
        **ended,
        "now": job.now,
        "requests": list(_requests(facts)),
        "attempts": [_attempt(start, facts) for start in facts.starts],
        "reads": [_cells(row, *(name for name in asdict(row) if name != "job_id")) for row in facts.reads],
        "findings": [_cells(row, "finding", "found_by", "because", "found_at") for row in facts.findings],
        "events": [_event(event) for event in job.events],
    }


REQUEST = ("request_id", "requested_by", "priority", "deadline")


def _requests(facts: JobFacts) -> Iterable[dict[str, Any]]:
    """The first request and each joiner; what only the ledger knows has no requests on record."""
    if facts.recorded:
        first = {"requestedAt": _plain(facts.job.enqueued_at), "joined": False}
        yield _cells(facts.job, *REQUEST) | first
    for row in facts.joins:
        yield _cells(row, *REQUEST, "requested_at") | {"joined": True}


LATE = (
    "transport",
    "http_status",
    "answered_at",
    "command_id",
    "error",
    "body",
    "body_encoding",
    "recorded_at",
)


def _attempt(start: StartRow, facts: JobFacts) -> dict[str, Any]:
    reply = _of_attempt(facts.replies, start.attempt)
    verdict = _of_attempt(facts.verdicts, start.attempt)
    late = _of_attempt(facts.late, start.attempt)
    latency = reply.latency_us if reply is not None else None
    return {
        **_cells(start, "attempt", "worker", "started_at", "policy_version"),
        "sentBody": start.body,
        **_cells(
            reply, "transport", "http_status", "sent_at", "answered_at", "error", "body", "body_encoding"
        ),
        "latencyMs": None if latency is None else latency / 1000,
        **_cells(verdict, "verdict", "command_id", "failure_reason", "failure_text", "rule", "decided_at"),
        "why": rule_why(verdict) if verdict is not None else None,
        "lateReply": _cells(late, *LATE) if late is not None else None,
        "judgedBy": verdict.policy_version if verdict is not None else None,
    }


def _of_attempt(rows: Sequence[Row], attempt: int) -> Row | None:
    return next((row for row in rows if row.attempt == attempt), None)


def _event(event: Event) -> dict[str, Any]:
    return {
        "at": iso(event.at),
        "kind": event.kind,
        "attempt": event.attempt,
        "says": event.says,
        **event.facts,
    }


def _linked(linked: Linked) -> dict[str, Any]:
    return {
        "orderId": linked.order_id,
        "relation": linked.relation,
        "ordStatus": linked.ord_status,
        "open": linked.is_open,
        "note": linked.note,
    }


def _cells(row: object | None, *names: str) -> dict[str, Any]:
    """The row's values under the names of the other JSON answers; null where there is no row."""
    return {_camel(name): _plain(getattr(row, name, None)) for name in names}


def _plain(value: object) -> object:
    return iso(value) if isinstance(value, datetime) else value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
