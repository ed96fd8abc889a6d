"""Facts: one row each, made from the nouns, checked and made storable before any database sees them. No I/O."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from worker.clock import span_micros, utc_now
from worker.job import Action, Job, Joiner, Outcome
from worker.reply import Answered, NotSent, Reply, Transport, Unanswered, transport_of
from worker.verdict import Verdict

PLAIN_ENCODING = "identity"
CUT = "cut at the cap"


@dataclass(frozen=True, slots=True)
class Fact:
    """One row to be; `values` may leave out what is null."""

    table: str
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one look at the order, or at the reports on a command, showed; nothing is known of what is None."""

    found: bool | None = None
    status: str | None = None  # ordStatus, or the report's rejectReason
    body: str | None = None


def job_fact(job: Job) -> Fact:
    """The job and the request that made it, as that request came: joiners have rows of their own."""
    asked = job.request
    wish = job.first_wish or asked
    return Fact(
        "jobs",
        {
            "job_id": job.id,
            "account": asked.account,
            "order_id": asked.order_id,
            "cl_ord_id": asked.cl_ord_id,
            "activation_time": wish.activation_time,
            "custom_tag50": asked.custom_tag50,
            "is_automated": asked.is_automated,
            "requested_by": asked.requested_by,
            "request_id": asked.request_id,
            "priority": wish.priority,
            "deadline": wish.deadline,
            "enqueued_at": job.enqueued_at,
            "redrive_of": job.redrive_of,
        },
    )


def request_fact(job_id: str, joiner: Joiner) -> Fact:
    return Fact(
        "requests",
        {
            "job_id": job_id,
            "request_id": joiner.request_id,
            "requested_by": joiner.requested_by,
            "priority": joiner.priority,
            "deadline": joiner.deadline,
            "requested_at": joiner.requested_at,
            "activation_time": joiner.activation_time,
        },
    )


def start_fact(
    job_id: str, attempt: int, *, worker: str, started_at: datetime, policy_version: str, body: str
) -> Fact:
    """A POST is about to leave; `body` is the request's JSON as sent, without secrets."""
    return Fact(
        "starts",
        {
            "job_id": job_id,
            "attempt": attempt,
            "worker": worker,
            "started_at": started_at,
            "policy_version": policy_version,
            "body": body,
        },
    )


def reply_fact(job_id: str, attempt: int, reply: Reply, *, recorded_at: datetime) -> Fact:
    """What came back, raw; a body that is not clean text is kept as base64."""
    values = {"job_id": job_id, "attempt": attempt, **_wire(reply), "recorded_at": recorded_at}
    return Fact("replies", values)


def late_reply_fact(
    job_id: str, attempt: int, reply: Reply, *, command_id: int | None, recorded_at: datetime
) -> Fact:
    """The answer to an attempt that was written off meanwhile; `command_id` is what it carried."""
    kept = {name: value for name, value in _wire(reply).items() if name != "latency_us"}
    values = {"job_id": job_id, "attempt": attempt, **kept}
    return Fact("late_replies", values | {"command_id": command_id, "recorded_at": recorded_at})


def verdict_fact(
    job_id: str, attempt: int, verdict: Verdict, *, policy_version: str, decided_at: datetime
) -> Fact:
    return Fact(
        "verdicts",
        {
            "job_id": job_id,
            "attempt": attempt,
            "verdict": verdict.meaning,
            "command_id": verdict.command_id,
            "failure_reason": verdict.reason,
            "failure_text": verdict.text,
            "rule": verdict.rule,
            "policy_version": policy_version,
            "decided_at": decided_at,
        },
    )


def read_fact(job_id: str, kind: str, reply: Reply, seen: Seen) -> Fact:
    """One look: `kind` is order, command or command_report."""
    return Fact(
        "reads",
        {
            "job_id": job_id,
            "kind": kind,
            "read_at": reply.answered_at if isinstance(reply, Answered) else utc_now(),
            "transport": transport_of(reply),
            "http_status": reply.status if isinstance(reply, Answered) else None,
            "found": seen.found,
            "status": seen.status,
            "body": seen.body,
            "error": None if isinstance(reply, Answered) else reply.error,
        },
    )


def outcome_fact(
    job_id: str,
    outcome: Outcome,
    *,
    evidence: str,
    finished_at: datetime,
    detail: str | None = None,
    filled_qty: int | None = None,
) -> Fact:
    return Fact(
        "outcomes",
        {
            "job_id": job_id,
            "outcome": outcome,
            "evidence": evidence,
            "detail": detail,
            "filled_qty": filled_qty,
            "finished_at": finished_at,
        },
    )


def finding_fact(
    job_id: str, finding_id: str, finding: Outcome, *, by: str, because: str, at: datetime
) -> Fact:
    """A person's word on an order whose cancel ended unresolved."""
    return Fact(
        "findings",
        {
            "job_id": job_id,
            "finding_id": finding_id,
            "finding": finding,
            "found_by": by,
            "because": because,
            "found_at": at,
        },
    )


def action_fact(action: Action, *, ledger: str) -> Fact:
    return Fact(
        "actions",
        {
            "action_id": action.id,
            "ledger": ledger,
            "action": action.kind,
            "acted_by": action.by,
            "because": action.because,
            "acted_at": action.at,
        },
    )


def stamp_fact(name: str, value: str, *, at: datetime) -> Fact:
    return Fact("stamps", {"name": name, "value": value, "stamped_at": at})


def storable(text: str) -> str:
    """The text without what no database takes: NUL and lone surrogates become escapes."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _wire(reply: Reply) -> dict[str, object]:
    match reply:
        case NotSent():
            return {"transport": Transport.NOT_SENT, "error": reply.error}
        case Unanswered():
            return {"transport": Transport.UNANSWERED, "error": reply.error, "sent_at": reply.sent_at}
        case Answered():
            body, encoding = _body(reply.body)
            return {
                "transport": Transport.ANSWERED,
                "http_status": reply.status,
                "body": body,
                "body_encoding": encoding,
                "error": oddity(reply),
                "sent_at": reply.sent_at,
                "answered_at": reply.answered_at,
                "latency_us": max(0, span_micros(reply.answered_at - reply.sent_at)),
            }
    assert_never(reply)


def oddity(reply: Answered) -> str | None:
    """Why the body cannot be read as it stands, kept so that the row can be judged again as the reply was."""
    encoding = reply.headers.get("content-encoding", PLAIN_ENCODING)
    parts = [CUT] if reply.truncated else []
    parts += [f"content-encoding {encoding}"] if encoding != PLAIN_ENCODING else []
    return "; ".join(parts) or None


def _body(raw: bytes) -> tuple[str, str]:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return b64encode(raw).decode(), "base64"
    return (b64encode(raw).decode(), "base64") if "\0" in text else (text, "text")
