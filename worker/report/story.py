"""One job's rows as a timeline: each event has its time, its kind, and one sentence. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo

from worker.audit.order_story import JobFacts, ReplyRow, StartRow, VerdictRow
from worker.reply import Transport
from worker.report.figures import milliseconds
from worker.report.wording import answer_words, clock_time, read_words, rule_words


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened when; `says` may hold text from outside, harmless only once it was rendered."""

    at: datetime
    kind: str
    says: str
    attempt: int | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


def events(facts: JobFacts, redrives: Sequence[JobFacts], zone: tzinfo) -> tuple[Event, ...]:
    """The request comes first, whatever the clocks of the hosts say; the rest by time."""
    rest = [
        *_joined(facts, zone),
        *_attempts(facts),
        *_reads(facts),
        *_ended(facts),
        *_redriven(redrives),
    ]
    return (_asked(facts, zone), *sorted(rest, key=lambda event: event.at))


def _asked(facts: JobFacts, zone: tzinfo) -> Event:
    job = facts.job
    if not facts.recorded:
        return Event(
            at=job.enqueued_at, kind="enqueued", says="asked for; only the ledger tells of it so far"
        )
    parts = [
        f"asked for by {job.requested_by or 'nobody named'}",
        f"request {job.request_id}",
        f"priority {job.priority}",
        *([f"deadline {clock_time(job.deadline, zone)}"] if job.deadline else []),
        *([f"to act at {clock_time(job.activation_time, zone)}"] if job.activation_time else []),
        *([f"clOrdId {job.cl_ord_id}"] if job.cl_ord_id else []),
        *([f"tag50 {job.custom_tag50}"] if job.custom_tag50 else []),
        *([] if job.is_automated else ["a person's cancel (isAutomated is false)"]),
        *([f"redrive of job {job.redrive_of}"] if job.redrive_of else []),
    ]
    return Event(at=job.enqueued_at, kind="enqueued", says=", ".join(parts))


def _joined(facts: JobFacts, zone: tzinfo) -> Iterator[Event]:
    for row in facts.joins:
        deadline = f"deadline {clock_time(row.deadline, zone)}" if row.deadline else "no deadline"
        who = row.requested_by or "nobody named"
        says = f"joined by {who}, request {row.request_id}, priority {row.priority}, {deadline}"
        yield Event(at=row.requested_at, kind="joined", says=says)


def _attempts(facts: JobFacts) -> Iterator[Event]:
    replies = {row.attempt: row for row in facts.replies}
    verdicts = {row.attempt: row for row in facts.verdicts}
    for start in facts.starts:
        verdict = verdicts.get(start.attempt)
        yield _sent(start, replies.get(start.attempt))
        yield from _came_back(replies.get(start.attempt), verdict)
        yield from _decided(verdict)


def _sent(start: StartRow, reply: ReplyRow | None) -> Event:
    name = f"attempt {start.attempt}"
    if reply is not None and reply.sent_at is not None:
        says = f"{name}: POST sent by {start.worker}"
        return Event(at=reply.sent_at, kind="sent", says=says, attempt=start.attempt)
    said = "" if reply is not None else "; whether it was sent, and what came back, is not on record"
    says = f"{name}: about to be sent by {start.worker}{said}"
    return Event(at=start.started_at, kind="started", says=says, attempt=start.attempt)


def _came_back(reply: ReplyRow | None, verdict: VerdictRow | None) -> Iterator[Event]:
    if reply is None:
        return
    name = f"attempt {reply.attempt}"
    if reply.transport == Transport.ANSWERED:
        took = f" after {_latency(reply)}" if reply.latency_us is not None else ""
        says = f"{name}: answered{took}: {answer_words(reply, verdict)}"
        at, kind = reply.answered_at or reply.recorded_at, "answered"
    elif reply.transport == Transport.NOT_SENT:
        says = f"{name}: not sent, no byte left this host: {reply.error}"
        at, kind = reply.recorded_at, "not_sent"
    else:
        says = f"{name}: sent, but no answer came; the exchange may have acted: {reply.error}"
        at, kind = reply.recorded_at, "unanswered"
    yield Event(at=at, kind=kind, says=says, attempt=reply.attempt)


def _latency(reply: ReplyRow) -> str:
    return f"{milliseconds(timedelta(microseconds=reply.latency_us or 0)):.1f} ms"


def _decided(row: VerdictRow | None) -> Iterator[Event]:
    if row is not None:
        says = (
            f"attempt {row.attempt}: taken for {row.verdict}, {rule_words(row)} (policy {row.policy_version})"
        )
        facts = {"verdict": row.verdict, "rule": row.rule, "policyVersion": row.policy_version}
        yield Event(at=row.decided_at, kind="decided", says=says, attempt=row.attempt, facts=facts)


READ_KINDS = {"order": "order_read", "command_report": "command_report", "late_reply": "late_reply"}


def _reads(facts: JobFacts) -> Iterator[Event]:
    for row in facts.reads:
        yield Event(at=row.read_at, kind=READ_KINDS.get(row.kind, row.kind), says=read_words(row))


def _ended(facts: JobFacts) -> Iterator[Event]:
    row = facts.outcome
    if row is not None:
        proof = " ".join(part for part in (row.evidence, row.detail) if part)
        filled = f"; contracts filled: {row.filled_qty}" if row.filled_qty is not None else ""
        yield Event(at=row.finished_at, kind="ended", says=f"ended {row.outcome}, by {proof}{filled}")


def _redriven(redrives: Sequence[JobFacts]) -> Iterator[Event]:
    for other in redrives:
        job = other.job
        who = job.requested_by or "nobody named"
        says = f"redriven by {who} as job {job.job_id}"
        yield Event(at=job.enqueued_at, kind="redriven", says=says, facts={"jobId": job.job_id})
