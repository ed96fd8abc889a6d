"""Reads orders, many in one request, until their ends are known; reconciles what may have been sent."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from worker.audit.facts import Fact, Seen, read_fact
from worker.exchange.apart import read_apart
from worker.exchange.client import READ_BATCH, CommandsRead, Exchange, OrdersRead, ReportsRead, own_label
from worker.gaps import Gap, reached
from worker.job import Job
from worker.policy import Again, Decision, End, after_read, token_proven, unasked, unserved, without_token
from worker.reasons import Meaning
from worker.reply import Answered, NotSent, Reply
from worker.verdict import OrderState, Sight, Verdict, classify, state_of
from worker.work.crew import Crew
from worker.work.happening import followed, named
from worker.work.recover import recover, without_story

log = structlog.get_logger()

# Reads that showed the order open before its command's reports are asked for: about a second's worth.
REPORT_READS = 3
# An order is about 300 bytes; a longer one is kept up to here.
KEPT_BODY = 4000
# A status or a reason is a word.
KEPT_WORD = 128
# The exchange's clock may be behind the ledger's by this much.
CLOCKS_APART = timedelta(seconds=1)

# A job, and the rows that are to be written of it.
Recorded = tuple[Job, list[Fact]]
# The same, with what follows for it.
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
    for exchange, some in _by_login(crew, open_jobs):
        if exchange is None or exchange.bearer.token() is None:
            proven.extend(_unread(crew, exchange, some))
            continue
        for start in range(0, len(some), READ_BATCH):
            proven.extend(_prove_batch(crew, exchange, some[start : start + READ_BATCH]))
    return proven


def _by_login(crew: Crew, jobs: Sequence[Recorded]) -> list[tuple[Exchange | None, list[Recorded]]]:
    """A read shows what its login may see: the jobs of each, None for those that nobody serves."""
    found: dict[int, tuple[Exchange | None, list[Recorded]]] = {}
    for job, facts in jobs:
        exchange = crew.clients.of(job.request.account)
        found.setdefault(id(exchange), (exchange, []))[1].append((job, facts))
    return list(found.values())


def _unread(crew: Crew, exchange: Exchange | None, jobs: Sequence[Recorded]) -> list[Proven]:
    """Nobody can be asked about these orders now."""
    now, found = crew.clock.now(), list[Proven]()
    for job, facts in jobs:
        if exchange is None:
            decision = unserved(job, crew.policy, now)
        else:
            decision = without_token(job, exchange.bearer.patience, now)
        found.append((job._replace(memory=decision.memory), decision, facts))
    return found


def _prove_batch(crew: Crew, exchange: Exchange, batch: Sequence[Recorded]) -> list[Proven]:
    """One read for all orders, one for all reports that are wanted, one for the fills of all that end."""
    asked_at = crew.clock.now()
    reads = read_apart(exchange.orders, [job.request.order_id for job, _ in batch])
    reached(Gap.ORDER_READ)
    looks = [
        _look(exchange, job, facts, reads[job.request.order_id], asked_at=asked_at) for job, facts in batch
    ]
    looks = _with_reports(crew, exchange, _with_commands(exchange, looks))
    return _with_fills(exchange, [(look, _decided(crew, look)) for look in looks])


def _nothing_seen(read: OrdersRead, asked_at: datetime) -> Sight:
    """What an order that is not among the rows is: missing from a whole list, or just not read."""
    if read.conclusive:
        return Sight(state=OrderState.MISSING, asked_at=asked_at)
    verdict = classify(read.reply) if isinstance(read.reply, Answered) and not read.found else None
    throttled = verdict if verdict is not None and verdict.meaning is Meaning.THROTTLED else None
    withheld = isinstance(read.reply, NotSent) and read.reply.withheld
    return Sight(state=OrderState.UNREAD, asked_at=asked_at, throttled=throttled, withheld=withheld)


def _look(exchange: Exchange, job: Job, facts: list[Fact], read: OrdersRead, *, asked_at: datetime) -> Look:
    rows = read.found.get(job.request.order_id, ())
    sight = _sight(exchange, job, rows, asked_at) if rows else _nothing_seen(read, asked_at)
    if read.conclusive and isinstance(read.reply, Answered) and job.memory.token_floor > 0:
        job = job._replace(memory=token_proven(job.memory, read.reply.revision))
    return Look(job=job, sight=sight, facts=[*facts, _order_row(job, sight, read)], found=bool(rows))


def _sight(exchange: Exchange, job: Job, rows: Sequence[Any], asked_at: datetime) -> Sight:
    """What the rows of one order say together."""
    statuses = [row.get("ordStatus") for row in rows]
    words = dict.fromkeys(str(status) for status in statuses if status is not None)
    strangers = [exchange.accounts.stranger(job.request.account, row.get("accountId")) for row in rows]
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
    if look.sight.withheld:
        return unasked(look.job)
    decision = after_read(look.job, look.sight, crew.policy, crew.clock.now())
    return without_story(look.job, decision)


# ----------------------------------------------------------------------------------------------- commands


def _with_commands(exchange: Exchange, looks: Sequence[Look]) -> list[Look]:
    """Whether a POST whose answer was lost had arrived all the same: its order still works, and may have a command."""
    asked = [look.job.request.order_id for look in looks if _wants_commands(look)]
    if not asked:
        return list(looks)
    read = exchange.commands(asked)
    reached(Gap.COMMANDS_READ)
    return [_with_command(look, read) if _wants_commands(look) else look for look in looks]


def _wants_commands(look: Look) -> bool:
    return look.job.memory.unknown_since is not None and look.sight.state is OrderState.OPEN


def _with_command(look: Look, read: CommandsRead) -> Look:
    """The newest of our own cancels, if there is one."""
    rows = read.found.get(look.job.request.order_id, ())
    ours = [row for row in rows if _is_ours(look.job, row)]
    newest = max(ours, key=_age_of_report, default=None)
    seen = Seen(
        found=newest is not None if isinstance(read.reply, Answered) and read.reply.status == 200 else None,
        status=str(newest.get("commandStatus"))[:KEPT_WORD] if newest is not None else None,
        body=json.dumps(newest)[:KEPT_BODY] if newest is not None else None,
    )
    sight = replace(look.sight, command_id=newest["id"] if newest is not None else None)
    return replace(
        look, sight=sight, facts=[*look.facts, read_fact(look.job.id, "command", read.reply, seen)]
    )


def _is_ours(job: Job, row: Any) -> bool:
    """A cancel under this job's label, newer than what any answer has told of.

    A producer's label may be another job's too, so such a command must be younger than this job.
    """
    label, number = str(row.get("clOrdId") or ""), row.get("id")
    if row.get("commandType") != "Cancel" or not isinstance(number, int):
        return False
    if job.request.cl_ord_id:
        own = label == job.request.cl_ord_id and _is_since(row, job.enqueued_at - CLOCKS_APART)
    else:
        own = label.startswith(own_label(job.id, ""))
    return own and number > (job.memory.command_id or 0)


def _is_since(row: Any, moment: datetime) -> bool:
    try:
        return datetime.fromisoformat(str(row.get("timestamp"))) >= moment
    except (ValueError, TypeError):  # no time, or one without a zone
        return False


# ------------------------------------------------------------------------------------------------ reports


def _with_reports(crew: Crew, exchange: Exchange, looks: Sequence[Look]) -> list[Look]:
    """What became of accepted commands whose orders still work. Only the newest command of a job counts."""
    asked = [look.job.memory.command_id or 0 for look in looks if _wants_reports(look)]
    if not asked:
        return list(looks)
    read = exchange.command_reports(asked)
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


def _with_fills(exchange: Exchange, decided: Sequence[tuple[Look, Decision]]) -> list[Proven]:
    """Contracts that filled before the end, as far as that can be read: a canceled order may have some."""
    ended = [
        look.job.request.order_id for look, decision in decided if look.found and isinstance(decision, End)
    ]
    filled = exchange.fills(ended) if ended else {}
    if ended:
        reached(Gap.FILLS_READ)
    return [_proven(look, decision, filled.get(look.job.request.order_id)) for look, decision in decided]


def _proven(look: Look, decision: Decision, filled: int | None) -> Proven:
    if isinstance(decision, End):
        decision = replace(decision, memory=decision.memory._replace(filled_qty=filled))
    _say(look, decision)
    return look.job._replace(memory=decision.memory), decision, look.facts


def _say(look: Look, decision: Decision) -> None:
    """A read that changes nothing comes again every few seconds, for many orders: no news. An end is told when it is on disk."""
    if isinstance(decision, Again) and decision.step is not look.job.step:
        log.info("order.read", **named(look.job), state=str(look.sight.state), **followed(decision))
