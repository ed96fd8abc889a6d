"""Reads orders, many in one request, until their ends are known; reconciles what may have been sent."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from worker.audit.facts import Fact, Seen, read_fact
from worker.exchange.apart import read_apart
from worker.exchange.client import READ_BATCH, OrdersRead, ReportsRead
from worker.gaps import Gap, reached
from worker.job import Job
from worker.policy import Decision, End, after_read
from worker.reasons import Meaning
from worker.reply import Answered, Reply
from worker.verdict import OrderState, Sight, Verdict, classify, state_of
from worker.work.crew import Crew
from worker.work.recover import recover

# Reads that showed the order open before its command's reports are asked for: about a second's worth.
REPORT_READS = 3
# An order is about 300 bytes; a longer one is kept up to here.
KEPT_BODY = 4000
# A status or a reason is a word.
KEPT_WORD = 128

# A job, what follows for it, and the rows to commit before that.
Proven = tuple[Job, Decision, list[Fact]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen of one job's order, and the rows to commit."""

    job: Job
    sight: Sight
    facts: list[Fact]
    found: bool


def prove(crew: Crew, jobs: Sequence[Job]) -> list[Proven]:
    """Each job with what its order's state means for it, and the rows to commit before settling."""
    recovered = recover(crew, jobs)
    proven = [(job, ended, facts) for job, ended, facts in recovered if ended is not None]
    open_jobs = [(job, facts) for job, ended, facts in recovered if ended is None]
    for start in range(0, len(open_jobs), READ_BATCH):
        proven.extend(_prove_batch(crew, open_jobs[start : start + READ_BATCH]))
    return proven


def _prove_batch(crew: Crew, batch: Sequence[tuple[Job, list[Fact]]]) -> list[Proven]:
    """One read for all orders, one for all reports that are wanted, one for the fills of all that end."""
    asked_at = crew.clock.now()
    reads = read_apart(crew.exchange.orders, [job.request.order_id for job, _ in batch])
    reached(Gap.ORDER_READ)
    looks = [_look(crew, job, facts, reads[job.request.order_id], asked_at=asked_at) for job, facts in batch]
    return _with_fills(crew, [(look, _decided(crew, look)) for look in _with_reports(crew, looks)])


def _nothing_seen(read: OrdersRead, asked_at: datetime) -> Sight:
    """What an order that is not among the rows is: missing from a whole list, or just not read."""
    if read.conclusive:
        return Sight(state=OrderState.MISSING, asked_at=asked_at)
    verdict = classify(read.reply) if isinstance(read.reply, Answered) and not read.found else None
    throttled = verdict if verdict is not None and verdict.meaning is Meaning.THROTTLED else None
    return Sight(state=OrderState.UNREAD, asked_at=asked_at, throttled=throttled)


def _look(crew: Crew, job: Job, facts: list[Fact], read: OrdersRead, *, asked_at: datetime) -> Look:
    rows = read.found.get(job.request.order_id, ())
    sight = _sight(crew, job, rows, asked_at) if rows else _nothing_seen(read, asked_at)
    return Look(job=job, sight=sight, facts=[*facts, _order_row(job, sight, read)], found=bool(rows))


def _sight(crew: Crew, job: Job, rows: Sequence[Any], asked_at: datetime) -> Sight:
    """What the rows of one order say together."""
    statuses = [row.get("ordStatus") for row in rows]
    words = dict.fromkeys(str(status) for status in statuses if status is not None)
    strangers = [crew.exchange.accounts.stranger(job.request.account, row.get("accountId")) for row in rows]
    return Sight(
        state=state_of(statuses),
        asked_at=asked_at,
        ord_status=", ".join(words)[:KEPT_WORD] or None,
        other_account=strangers[0] if len(set(strangers)) == 1 else None,
    )


def _order_row(job: Job, sight: Sight, read: OrdersRead) -> Fact:
    rows = read.found.get(job.request.order_id, ())
    seen = bool(rows) if rows or read.conclusive else None
    body = json.dumps(rows[0] if len(rows) == 1 else rows)[:KEPT_BODY] if rows else None
    return read_fact(job.id, "order", read.reply, Seen(found=seen, status=sight.ord_status, body=body))


def _decided(crew: Crew, look: Look) -> Decision:
    return after_read(look.job, look.sight, crew.policy, crew.clock.now())


# ------------------------------------------------------------------------------------------------ reports


def _with_reports(crew: Crew, looks: Sequence[Look]) -> list[Look]:
    """What became of accepted commands whose orders still work. Only the newest command of a job counts."""
    asked = [look.job.memory.command_id or 0 for look in looks if _wants_reports(look)]
    if not asked:
        return list(looks)
    read = crew.exchange.command_reports(asked)
    reached(Gap.REPORTS_READ)
    return [_with_report(crew, look, read) if _wants_reports(look) else look for look in looks]


def _wants_reports(look: Look) -> bool:
    """An answer after the accepted one ends the pursuit, so the command known then is the newest."""
    memory = look.job.memory
    accepted = memory.pursuit == Meaning.ACCEPTED and memory.command_id is not None
    return accepted and look.sight.state is OrderState.OPEN and memory.reads >= REPORT_READS


def _with_report(crew: Crew, look: Look, read: ReportsRead) -> Look:
    """The newest rejection, if any, classified by the same table as a reply."""
    rejected = [row for row in read.found.get(look.job.memory.command_id or 0, ()) if _is_rejection(row)]
    newest = max(rejected, key=_age_of_report, default=None)
    reason = _reason(newest) if newest is not None else None
    body = json.dumps(newest)[:KEPT_BODY] if newest is not None else None
    row = read_fact(
        look.job.id, "command_report", read.reply, Seen(found=bool(rejected), status=reason, body=body)
    )
    reject = _as_verdict(crew, read.reply, reason, newest) if reason is not None else None
    return replace(look, sight=replace(look.sight, late_reject=reject), facts=[*look.facts, row])


def _is_rejection(report: Any) -> bool:
    named = bool(report.get("rejectReason")) and report["rejectReason"] != "Success"
    return named or str(report.get("commandStatus", "")).endswith("Rejected")


def _age_of_report(report: Any) -> tuple[str, int]:
    """Lists come in any order; times are ISO 8601, and ids grow."""
    number = report.get("id")
    return str(report.get("timestamp", "")), number if isinstance(number, int) else 0


def _reason(report: Any) -> str:
    """Why the command was rejected, or at least that it was."""
    return str(report.get("rejectReason") or report.get("commandStatus"))[:KEPT_WORD]


def _as_verdict(crew: Crew, reply: Reply, reason: str, report: Any) -> Verdict | None:
    if not isinstance(reply, Answered):
        return None
    body = {"failureReason": reason, "failureText": str(report.get("text") or "")}
    as_reply = replace(reply, status=200, headers={}, body=json.dumps(body).encode())
    return classify(as_reply, crew.policy.transient)


# -------------------------------------------------------------------------------------------------- fills


def _with_fills(crew: Crew, decided: Sequence[tuple[Look, Decision]]) -> list[Proven]:
    """Contracts that filled before the end, as far as that can be read: a canceled order may have some."""
    ended = [
        look.job.request.order_id for look, decision in decided if look.found and isinstance(decision, End)
    ]
    filled = crew.exchange.fills(ended) if ended else {}
    if ended:
        reached(Gap.FILLS_READ)
    return [_proven(look, decision, filled.get(look.job.request.order_id)) for look, decision in decided]


def _proven(look: Look, decision: Decision, filled: int | None) -> Proven:
    if isinstance(decision, End):
        decision = replace(decision, memory=replace(decision.memory, filled_qty=filled))
    return replace(look.job, memory=decision.memory), decision, look.facts
