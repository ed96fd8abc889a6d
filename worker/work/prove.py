"""Reads orders, many in one request, until their ends are known; reconciles what may have been sent."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from worker.audit.facts import Fact, Seen, read_fact
from worker.exchange.client import READ_BATCH, OrdersRead
from worker.job import Evidence, Job, OrderId
from worker.policy import ORD_STATUS, Decision, End, OrderState, Sight, after_read
from worker.reasons import Meaning
from worker.reply import Answered, Reply
from worker.verdict import Verdict, classify
from worker.work.crew import Crew
from worker.work.recover import recover

# Reads that showed the order open before its command's reports are asked for: about a second's worth.
REPORT_READS = 3
# An order is about 300 bytes; a longer one is kept up to here.
KEPT_BODY = 4000


# A job, what follows for it, and the rows to commit before that.
Proven = tuple[Job, Decision, list[Fact]]


def prove(crew: Crew, jobs: Sequence[Job]) -> list[Proven]:
    """Each job with what its order's state means for it, and the rows to commit before settling."""
    recovered = recover(crew, jobs)
    done = [(job, ended, facts) for job, ended, facts in recovered if ended is not None]
    open_jobs = [(job, facts) for job, ended, facts in recovered if ended is None]
    return [*done, *_with_fills(crew, _read_batches(crew, open_jobs))]


def _with_fills(crew: Crew, proven: list[Proven]) -> list[Proven]:
    """Contracts that filled before the end, as far as that can be read: a canceled order may have some."""
    ended = [job.request.order_id for job, decision, _ in proven if _was_read(decision)]
    filled = _fills_by_order(crew, ended)
    return [
        (job, _filled(decision, filled.get(job.request.order_id)), rows)
        if isinstance(decision, End) and _was_read(decision)
        else (job, decision, rows)
        for job, decision, rows in proven
    ]


def _filled(end: End, quantity: int | None) -> End:
    return replace(end, memory=replace(end.memory, filled_qty=quantity))


def _was_read(decision: Decision) -> bool:
    return isinstance(decision, End) and decision.evidence is Evidence.ORDER_READ


def _fills_by_order(crew: Crew, orders: Sequence[OrderId]) -> dict[OrderId, int]:
    found: dict[OrderId, int] = {}
    for start in range(0, len(orders), READ_BATCH):
        found.update(crew.exchange.fills(orders[start : start + READ_BATCH]) or {})
    return found


def _read_batches(crew: Crew, jobs: Sequence[tuple[Job, list[Fact]]]) -> list[Proven]:
    proven: list[Proven] = []
    for start in range(0, len(jobs), READ_BATCH):
        batch = jobs[start : start + READ_BATCH]
        asked_at = crew.clock.now()
        read = crew.exchange.orders([job.request.order_id for job, _ in batch])
        proven.extend(_decide(crew, job, facts, read, asked_at) for job, facts in batch)
    return proven


def _decide(crew: Crew, job: Job, facts: list[Fact], read: OrdersRead, asked_at: datetime) -> Proven:
    sight, order = _sight(job, read, asked_at)
    rows = [*facts, _order_row(job, sight, read, order)]
    if _wants_reports(job, sight):
        reject, report_row = _late_reject(crew, job)
        rows.append(report_row)
        sight = replace(sight, late_reject=reject)
    decision = after_read(job, sight, crew.policy, crew.clock.now())
    return replace(job, memory=decision.memory), decision, rows


def _sight(job: Job, read: OrdersRead, asked_at: datetime) -> tuple[Sight, Any]:
    order = read.found.get(job.request.order_id)
    if order is None:
        state = OrderState.MISSING if read.conclusive else OrderState.UNREAD
        return Sight(state=state, asked_at=asked_at), None
    status = order.get("ordStatus")
    known = ORD_STATUS.get(status, OrderState.UNCLEAR) if isinstance(status, str) else OrderState.UNCLEAR
    return Sight(state=known, asked_at=asked_at, ord_status=str(status)[:64]), order


def _order_row(job: Job, sight: Sight, read: OrdersRead, order: Any) -> Fact:
    seen = order is not None if read.conclusive else None
    body = json.dumps(order)[:KEPT_BODY] if order is not None else None
    return read_fact(job.id, "order", read.reply, Seen(found=seen, status=sight.ord_status, body=body))


def _wants_reports(job: Job, sight: Sight) -> bool:
    memory = job.memory
    accepted = memory.pursuit == Meaning.ACCEPTED and memory.command_id is not None
    return accepted and sight.state is OrderState.OPEN and memory.reads >= REPORT_READS


def _late_reject(crew: Crew, job: Job) -> tuple[Verdict | None, Fact]:
    """The newest rejection among the command's reports, classified by the same table as a reply."""
    command = job.memory.command_id or 0
    reply, reports = crew.exchange.command_reports(command)
    rejected = [r for r in reports if _is_rejection(r)]
    reason = str(rejected[-1].get("rejectReason"))[:128] if rejected else None
    body = json.dumps(rejected[-1])[:KEPT_BODY] if rejected else None
    seen = Seen(found=bool(rejected), status=reason, body=body)
    return (_as_verdict(crew, reply, reason) if reason is not None else None), read_fact(
        job.id, "command_report", reply, seen
    )


def _is_rejection(report: Any) -> bool:
    status = str(report.get("commandStatus", ""))
    return (bool(report.get("rejectReason")) and report["rejectReason"] != "Success") or status.endswith(
        "Rejected"
    )


def _as_verdict(crew: Crew, reply: Reply, reason: str) -> Verdict | None:
    if not isinstance(reply, Answered):
        return None
    as_reply = replace(reply, status=200, headers={}, body=json.dumps({"failureReason": reason}).encode())
    return classify(as_reply, crew.policy.transient)
