"""What follows the answer to a POST, or its absence."""

from datetime import datetime, timedelta
from typing import Any, assert_never

from worker.clock import from_micros, to_micros
from worker.job import Evidence, Job, Memory, Outcome, Step
from worker.policy.budgets import held_up, is_transient, may_post, shut_out
from worker.policy.decisions import (
    PERMISSION_AGE,
    READ_WAITS,
    SESSION_CLOSED,
    Again,
    Decision,
    End,
    Policy,
    before_the_reset,
    hold_of,
    prove_from,
    wait_of,
)
from worker.reasons import Meaning
from worker.reply import Transport
from worker.verdict import Verdict, rule_of

# Transient replies in a row that may be answered by a POST without a read (the contract's rule).
UNREAD_REPOSTS = 3
# An evidence's detail is a remark; the whole text is in the attempt's row.
MOST_DETAIL = 500
PENDING, TOO_LATE = "AnotherCommandPending", "TooLate"
# Attempts that no answer came to.
UNHEARD = frozenset({f"transport:{Transport.NOT_SENT}", f"transport:{Transport.UNANSWERED}"})
# A 400 may mean an expired token. One renewal follows, if the token can be renewed; the read that comes then tells.
BAD_REQUEST, RENEWED_WITHIN = "http:400", timedelta(seconds=1)
# One more try after a 401, then it is this order's refusal.
UNAUTHORIZED_TRIES = 2


def after_reply(job: Job, verdict: Verdict, policy: Policy, now: datetime) -> Decision:
    """What follows one attempt. `job.attempts` counts that attempt already; `now` is when it ended."""
    return before_the_reset(_answered(job, verdict, policy, now), now)


def _answered(job: Job, verdict: Verdict, policy: Policy, now: datetime) -> Decision:
    memory = _remember(job, verdict, now)
    match verdict.meaning:
        case Meaning.ACCEPTED:
            return _after_accepted(job, memory, policy, now)
        case Meaning.TRANSIENT if verdict.reason == PENDING and job.memory.under_way:
            return _after_own_pending(memory, now)
        case Meaning.TRANSIENT:
            return _after_transient(job._replace(memory=memory), verdict, policy, now)
        case Meaning.REFUSED:
            renewal = verdict.rule == BAD_REQUEST
            return prove_from(memory, now, delay=RENEWED_WITHIN if renewal else READ_WAITS[0])
        case Meaning.THROTTLED:
            return _after_throttled(memory, verdict, policy)
        case Meaning.AMBIGUOUS | Meaning.UNAUTHORIZED:
            return _after_unclear(job._replace(memory=memory), verdict, policy, now)
    assert_never(verdict.meaning)


def _remember(job: Job, verdict: Verdict, now: datetime) -> Memory:
    """Fold one verdict into what the job knows."""
    memory = job.memory
    sent = verdict.rule != f"transport:{Transport.NOT_SENT}"
    counted = verdict.meaning is Meaning.UNAUTHORIZED
    turned_away = _turned_away(memory, verdict)
    refused = verdict.meaning is Meaning.REFUSED or turned_away >= UNAUTHORIZED_TRIES
    acted = verdict.meaning is Meaning.ACCEPTED or verdict.command_id is not None or _may_have_acted(verdict)
    return memory._replace(
        pursuit=Meaning.REFUSED if refused else verdict.meaning,
        refusal=_refusal(verdict) if refused else "",
        transient_replies=memory.transient_replies + 1 if is_transient(verdict) else 0,
        transients=memory.transients + 1 if is_transient(verdict) else 0,
        unauthorized=memory.unauthorized + counted,
        turned_away=turned_away,
        command_id=verdict.command_id if verdict.command_id is not None else memory.command_id,
        accepted=memory.accepted or verdict.meaning is Meaning.ACCEPTED,
        maybe_acted=memory.maybe_acted or acted,
        under_way=memory.under_way or (acted and verdict.reason != TOO_LATE),
        last_answer_at=to_micros(now) if sent else memory.last_answer_at,
        reads=0,
        not_before=None,
        unknown_since=_unknown_since(memory, verdict, now),
        **(_ticket(job, verdict) if sent else {}),
    )


def _ticket(job: Job, verdict: Verdict) -> dict[str, Any]:
    """The ticket that this answer asks to be sent next, and the body that it is for; none if it asks for none."""
    if not verdict.ticket:
        return {"ticket": "", "ticket_of": 0, "ticket_armed": None}
    return {
        "ticket": verdict.ticket,
        "ticket_of": label_of(job, job.attempts),
        "ticket_armed": _sent_for(job),
    }


def _turned_away(memory: Memory, verdict: Verdict) -> int:
    """401s in a row: a POST that was let in between them says that the token was good."""
    if verdict.meaning is Meaning.UNAUTHORIZED:
        return memory.turned_away + 1
    return memory.turned_away if verdict.rule in UNHEARD else 0


def label_of(job: Job, attempt: int) -> int:
    """Which attempt's label a POST carries: a ticket is redeemed with the body that it was given for."""
    return job.memory.ticket_of if job.memory.ticket else attempt


def armed_for(job: Job) -> datetime | None:
    """The activation time that a POST carries now; a ticket's body keeps its own."""
    micros = _sent_for(job)
    return from_micros(micros) if micros is not None else None


def _sent_for(job: Job) -> int | None:
    if job.memory.ticket:
        return job.memory.ticket_armed
    armed = job.request.activation_time
    return to_micros(armed) if armed is not None else None


def _unknown_since(memory: Memory, verdict: Verdict, now: datetime) -> int | None:
    """Since when it is not known whether a cancel reached the exchange; only a read ends that."""
    if verdict.rule == f"transport:{Transport.UNANSWERED}" or verdict.rule.startswith(("body:", "http:")):
        unclear = verdict.meaning is Meaning.AMBIGUOUS
        return (memory.unknown_since or to_micros(now)) if unclear else memory.unknown_since
    return memory.unknown_since


def _may_have_acted(verdict: Verdict) -> bool:
    """Replies after which a missing order is unresolved rather than refused (the contract's order_not_found)."""
    return verdict.reason == TOO_LATE or verdict.rule == f"transport:{Transport.UNANSWERED}"


def _refusal(verdict: Verdict) -> str:
    """As text that any encoder takes: a lone surrogate of the exchange's becomes a visible escape."""
    said = ": ".join(part for part in (verdict.reason or verdict.rule, verdict.text) if part)[:MOST_DETAIL]
    return said.encode("utf-8", "backslashreplace").decode()


def _after_unclear(job: Job, verdict: Verdict, policy: Policy, now: datetime) -> Again:
    """Read first."""
    delay = wait_of(rule_of(verdict), job.attempts, policy)
    if verdict.rule == SESSION_CLOSED:
        return Again(step=Step.RECONCILE, delay=READ_WAITS[0], memory=shut_out(job.memory, policy, now))
    unauthorized = verdict.meaning is Meaning.UNAUTHORIZED
    memory = held_up(job.memory, delay) if unauthorized else job.memory
    return Again(step=Step.RECONCILE, delay=delay, memory=memory)


def _after_accepted(job: Job, memory: Memory, policy: Policy, now: datetime) -> Decision:
    if not policy.confirm:
        detail = "confirmation is off"
        return End(outcome=Outcome.ACCEPTED, evidence=Evidence.REPLY, detail=detail, memory=memory)
    armed = armed_for(job)
    wait = max(armed - now, timedelta(0)) if armed is not None else timedelta(0)
    memory = memory._replace(
        armed_for=to_micros(armed) if armed is not None else None,
        proof_since=to_micros(now + wait),
    )
    return Again(step=Step.CONFIRM, delay=wait + READ_WAITS[0], memory=memory)


def _after_own_pending(memory: Memory, now: datetime) -> Again:
    """A command is in flight after one of ours had an unknown fate: it was delivered, and has its time."""
    return prove_from(memory._replace(pursuit=Meaning.ACCEPTED), now, delay=READ_WAITS[0])


def _after_transient(job: Job, verdict: Verdict, policy: Policy, now: datetime) -> Again:
    delay = wait_of(rule_of(verdict), job.memory.transients, policy)
    if not may_post(job, policy, now + delay):
        return prove_from(job.memory, now, delay=READ_WAITS[0])
    unsent = verdict.rule == "transport:not_sent"
    unread = job.memory.transient_replies <= UNREAD_REPOSTS and not unsent
    if unread:
        return Again(step=Step.POST, delay=delay, memory=job.memory)
    # A read that comes sooner could not permit a POST, so it would be followed by another one.
    return Again(
        step=Step.RECONCILE, delay=delay if unsent else max(delay, PERMISSION_AGE), memory=job.memory
    )


def _after_throttled(memory: Memory, verdict: Verdict, policy: Policy) -> Again:
    """Nobody's fault here: the ledger holds the whole login for as long, and `resumed` moves each job's budgets."""
    return Again(step=Step.RECONCILE, delay=hold_of(verdict, policy).span, memory=memory)
