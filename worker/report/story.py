"""One job's rows as a timeline: each event has its time, its kind, and one sentence. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo

from worker.audit.order_story import ActionRow, JobFacts, ReplyRow, StartRow, VerdictRow
from worker.clock import iso
from worker.job import Steering
from worker.reply import Transport
from worker.report.figures import milliseconds
from worker.report.wording import answer_words, clock_time, late_words, read_words, rule_words


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened when; `says` may hold text from outside, harmless only once it was rendered."""

    at: datetime
    kind: str
    says: str
    attempt: int | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What bears on a job from outside: the jobs that redid it, and what people did with the ledger."""

    redrives: Sequence[JobFacts] = ()
    actions: Sequence[ActionRow] = ()


def events(facts: JobFacts, around: Surroundings, zone: tzinfo) -> tuple[Event, ...]:
    """The request comes first, whatever the clocks of the hosts say; the rest by time."""
    rest = [
        *_joined(facts, zone),
        *_attempts(facts),
        *_late(facts),
        *_reads(facts),
        *_steered(facts, around.actions, zone),
        *_ended(facts),
        *_found(facts),
        *_redriven(around.redrives),
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


def _late(facts: JobFacts) -> Iterator[Event]:
    for row in facts.late:
        says = f"attempt {row.attempt}: late reply, it was already written off: {late_words(row)}"
        at = row.answered_at or row.recorded_at
        yield Event(at=at, kind="late_reply", says=says, attempt=row.attempt)


READ_KINDS = {"order": "order_read", "command_report": "command_report"}


def _reads(facts: JobFacts) -> Iterator[Event]:
    for row in facts.reads:
        yield Event(at=row.read_at, kind=READ_KINDS.get(row.kind, row.kind), says=read_words(row))


def _steered(facts: JobFacts, actions: Sequence[ActionRow], zone: tzinfo) -> Iterator[Event]:
    """Each pause that overlaps the job's life, and what else was done during it."""
    born, died = facts.job.enqueued_at, facts.outcome.finished_at if facts.outcome is not None else None
    for pause, resume in _pauses(actions):
        if (died is None or pause.acted_at < died) and (resume is None or resume.acted_at > born):
            yield _paused(pause, resume, zone)
    for row in actions:
        if row.action == Steering.DRAIN and born <= row.acted_at and (died is None or row.acted_at < died):
            yield Event(at=row.acted_at, kind="drained", says=f"drain asked for by {_actor(row)}")


def _pauses(actions: Sequence[ActionRow]) -> Iterator[tuple[ActionRow, ActionRow | None]]:
    """A pause within a pause changes nothing; None: it goes on."""
    pause: ActionRow | None = None
    for row in actions:
        if row.action == Steering.PAUSE and pause is None:
            pause = row
        elif row.action == Steering.RESUME and pause is not None:
            yield pause, row
            pause = None
    if pause is not None:
        yield pause, None


def _paused(pause: ActionRow, resume: ActionRow | None, zone: tzinfo) -> Event:
    until = "not resumed since"
    if resume is not None:
        until = f"to {clock_time(resume.acted_at, zone)}, resumed by {_actor(resume)}"
    says = f"paused by {_actor(pause)}, from {clock_time(pause.acted_at, zone)} {until}"
    facts = {"by": pause.acted_by, "until": iso(resume.acted_at) if resume is not None else None}
    return Event(at=pause.acted_at, kind="paused", says=says, facts=facts)


def _actor(row: ActionRow) -> str:
    return f"{row.acted_by} ({row.because})" if row.because else row.acted_by


def _ended(facts: JobFacts) -> Iterator[Event]:
    row = facts.outcome
    if row is not None:
        proof = " ".join(part for part in (row.evidence, row.detail) if part)
        filled = f"; contracts filled: {row.filled_qty}" if row.filled_qty is not None else ""
        yield Event(at=row.finished_at, kind="ended", says=f"ended {row.outcome}, by {proof}{filled}")


def _found(facts: JobFacts) -> Iterator[Event]:
    for row in facts.findings:
        says = f"found {row.finding} by a person, {row.found_by}: {row.because}"
        yield Event(at=row.found_at, kind="finding", says=says, facts={"finding": row.finding})


def _redriven(redrives: Sequence[JobFacts]) -> Iterator[Event]:
    for other in redrives:
        job = other.job
        who = job.requested_by or "nobody named"
        says = f"redriven by {who} as job {job.job_id}"
        yield Event(at=job.enqueued_at, kind="redriven", says=says, facts={"jobId": job.job_id})
