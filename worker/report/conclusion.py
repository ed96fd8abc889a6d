"""One job in one plain sentence: what became of the order, how that is known, and what it took. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any

from worker.audit.order_story import JobFacts, OutcomeRow, VerdictRow
from worker.job import Evidence, Outcome, State
from worker.reasons import Meaning
from worker.report.wording import clock_time, rule_words, span_words

NEXT_STEP = {
    State.QUEUED: "waits for a worker to POST it",
    State.CLAIMED: "in a worker's hands",
    State.PARKED: "waits for its next POST",
    State.RECONCILING: "the order is read before anything else",
    State.CONFIRMING: "the order is read until its end is seen",
    State.CLOSING: "its end is decided and on its way to the record",
}
NEEDS_A_PERSON = {Outcome.UNRESOLVED.value, Outcome.REFUSED.value}


def conclusion(
    facts: JobFacts, now: Mapping[str, Any] | None, redrives: Sequence[JobFacts], zone: tzinfo
) -> str:
    """`canceled: order read as Canceled 182.0 ms after the request; 2 POSTs, …`"""
    ended = facts.outcome
    if ended is not None:
        parts = [f"{ended.outcome}: {_proof(facts, ended)}", _tries(facts), *_filled(ended)]
        done = redrives or facts.findings or ended.evidence.startswith(Evidence.DRY_RUN)
        parts += ["a person is needed"] if ended.outcome in NEEDS_A_PERSON and not done else []
    elif now is not None and now["state"] == State.DONE:
        parts = [f"{now['outcome']}: the ledger says so, by {now['evidence']}; the audit does not say it yet"]
    else:
        posts = 0 if now is None else int(now["attempts"])
        parts = [f"still open: {_present(now, zone)}", _tries(facts, at_least=posts)]
    parts += [f"found {row.finding} by a person ({row.found_by})" for row in facts.findings[-1:]]
    parts += [f"redriven as job {other.job.job_id} ({_end(other)})" for other in redrives]
    return "; ".join(parts)


def _present(now: Mapping[str, Any] | None, zone: tzinfo) -> str:
    if now is None:
        return "no outcome on record, and what the ledger holds is not known"
    return f"now {present_words(now, zone)}"


def present_words(now: Mapping[str, Any], zone: tzinfo) -> str:
    """The ledger's status answer: state, next step, and when that is due."""
    if now["state"] == State.DONE:
        return f"done, the ledger says {now['outcome']} by {now['evidence']}, the audit does not yet"
    at = now.get("nextAt")
    due = f", due {clock_time(datetime.fromisoformat(at), zone)}" if at else ""
    return f"{now['state']}: {NEXT_STEP.get(now['state'], 'a state unknown here')}{due}"


def _proof(facts: JobFacts, ended: OutcomeRow) -> str:
    word, _, rest = ended.evidence.partition(" ")
    detail = rest or ended.detail or ""
    after = f"{span_words(_proven_at(facts, ended) - facts.job.enqueued_at)} after the request"
    known = {
        Evidence.ORDER_READ: f"order read as {detail} {after}",
        Evidence.COMMAND_REPORT: f"the command's report says {detail}, read {after}",
        Evidence.REPLY: f"the exchange's answer said so ({detail})",
        Evidence.SEEN_WORKING: f"the budget is spent and the order was seen open ({detail}) {after}",
        Evidence.ORDER_NOT_FOUND: f"the exchange does not know the order, {after}",
        Evidence.DEADLINE: f"the deadline passed before anything was sent, no end was seen ({detail})",
        Evidence.DRY_RUN: f"a dry run, nothing was to be POSTed, and the order was open ({detail}) {after}",
        Evidence.UNPROVEN: f"the budgets are spent without one conclusive read, {after}",
    }
    return next((said for evidence, said in known.items() if evidence == word), f"{word} {detail}").replace(
        " ()", ""
    )


def _proven_at(facts: JobFacts, ended: OutcomeRow) -> datetime:
    """When the read that decided was made; the record of the end comes a little later."""
    before = [
        row.read_at for row in facts.reads if row.kind != "late_reply" and row.read_at <= ended.finished_at
    ]
    return before[-1] if before else ended.finished_at


def _tries(facts: JobFacts, *, at_least: int = 0) -> str:
    """How often it was POSTed, and each kind of answer that was no acceptance."""
    posts = max(len(facts.starts), at_least)
    told = f"{posts} POST{'' if posts == 1 else 's'}" if posts else "no POST"
    return ", ".join([told, *_answers(facts.verdicts)])


def _answers(verdicts: Sequence[VerdictRow]) -> Iterator[str]:
    odd = [row for row in verdicts if row.verdict != Meaning.ACCEPTED]
    counts = Counter((row.failure_reason, row.rule) for row in odd)
    for (reason, rule), count in counts.items():
        row = next(row for row in odd if (row.failure_reason, row.rule) == (reason, rule))
        said = f"answer{'' if count == 1 else 's'} {reason}" if reason else row.verdict
        yield f"{count} {said} ({rule_words(row)})"


def _filled(ended: OutcomeRow) -> Iterator[str]:
    if ended.filled_qty is not None:
        count = ended.filled_qty
        yield f"{count or 'no'} contract{'' if count == 1 else 's'} filled"
    elif ended.evidence.startswith(Evidence.ORDER_READ):
        yield "how many contracts filled is not known"


def _end(facts: JobFacts) -> str:
    return facts.outcome.outcome if facts.outcome is not None else "still open"
