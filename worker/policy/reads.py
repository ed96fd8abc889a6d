"""What follows one look at the order, or the lack of one."""

from dataclasses import replace
from datetime import datetime, timedelta

from worker.clock import from_micros, to_micros
from worker.job import Evidence, Job, Memory, Outcome, Step
from worker.policy.budgets import may_post, shut_out
from worker.policy.decisions import (
    BELIEVED_AGE,
    PERMISSION_AGE,
    READ_WAITS,
    SESSION_CLOSED,
    Again,
    Decision,
    End,
    Policy,
    before_the_reset,
    hold_of,
    wait_of,
)
from worker.reasons import Meaning
from worker.verdict import ENDS, OrderState, Sight, Verdict, rule_of

# An accepted cancel whose order still works this long after the answer is asked for again.
ACCEPTED_PATIENCE = timedelta(seconds=5)
# Reads that must miss an order before it counts as not found (the contract's rule).
MISSING_READS = 2
# What says nothing about the order.
UNSEEN = frozenset({OrderState.UNREAD, OrderState.UNCLEAR})
# Another worker may have the login that this one lacks.
UNSERVED_WAIT = timedelta(seconds=2)


def after_read(job: Job, sight: Sight, policy: Policy, now: datetime) -> Decision:
    """What follows one read of the order. An end that was seen wins over any reply."""
    return before_the_reset(_read(job, sight, policy, now), now)


def _read(job: Job, sight: Sight, policy: Policy, now: datetime) -> Decision:
    if sight.state in ENDS:
        detail = ": ".join(part for part in (sight.ord_status, sight.other_account) if part)
        return End(outcome=ENDS[sight.state], evidence=Evidence.ORDER_READ, detail=detail, memory=job.memory)
    memory = job.memory._replace(
        reads=job.memory.reads + 1,
        transient_replies=0,
        missing=job.memory.missing + 1 if sight.state is OrderState.MISSING else _kept_missing(job, sight),
        seen_open=_seen_open(job.memory, sight),
        unknown_since=job.memory.unknown_since if sight.state in UNSEEN else None,
    )
    memory = _delivered(memory, sight)
    job = job._replace(memory=memory)
    if sight.state is not OrderState.UNREAD and _expired_unsent(job, now):
        return _unresolved(memory, Evidence.DEADLINE, sight.ord_status)
    match sight.state:
        case OrderState.OPEN if sight.other_account is not None:
            return _after_stranger(job, sight, policy, now)
        case OrderState.OPEN:
            return _after_open(job, sight, policy, now)
        case OrderState.MISSING if _missing_for_good(memory, sight):
            return _not_found(memory)
        case _:
            return _paused(_keep_reading(job, sight, policy, now), sight, policy)


def unasked(job: Job) -> Again:
    """The read was withheld on this side: nothing is counted, and nothing ends."""
    return Again(step=job.step, delay=READ_WAITS[0], memory=job.memory)


def unserved(job: Job, policy: Policy, now: datetime) -> Decision:
    """No login acts for this account here: another worker may know one. What was never sent ends as refused."""
    detail = f"no login serves the account {job.request.account}"
    if job.memory.last_answer_at is not None:
        return after_read(job, Sight(state=OrderState.UNREAD, asked_at=now), policy, now)
    if may_post(job, policy, now):
        return Again(step=job.step, delay=UNSERVED_WAIT, memory=job.memory)
    return End(outcome=Outcome.REFUSED, evidence=Evidence.OTHER_ACCOUNT, detail=detail, memory=job.memory)


def _delivered(memory: Memory, sight: Sight) -> Memory:
    """One of our own commands was found at the exchange: the POST whose answer was lost had arrived."""
    if sight.command_id is None:
        return memory
    return memory._replace(
        pursuit=Meaning.ACCEPTED, maybe_acted=True, under_way=True, command_id=sight.command_id
    )


def _kept_missing(job: Job, sight: Sight) -> int:
    """A read that failed says nothing about an order that was missing before."""
    return job.memory.missing if sight.state is OrderState.UNREAD else 0


def _seen_open(memory: Memory, sight: Sight) -> bool:
    if sight.state in UNSEEN:
        return memory.seen_open
    return sight.state in {OrderState.OPEN, OrderState.CANCELING}


def _age(memory: Memory, sight: Sight) -> timedelta:
    """How long after the last POST's answer the read was taken; endless if nothing was ever sent."""
    if memory.last_answer_at is None:
        return timedelta.max
    return sight.asked_at - from_micros(memory.last_answer_at)


def _expired_unsent(job: Job, now: datetime) -> bool:
    """The deadline passed before anything left for the exchange: one read is all that follows."""
    deadline = job.request.deadline
    return job.memory.last_answer_at is None and deadline is not None and now >= deadline


def _missing_for_good(memory: Memory, sight: Sight) -> bool:
    """A young order may be missing from a lagging read, so the misses must also be old enough."""
    since = memory.last_answer_at if memory.last_answer_at is not None else memory.first_claim_at
    old = since is None or sight.asked_at - from_micros(since) >= BELIEVED_AGE
    return old and memory.missing >= MISSING_READS


def _not_found(memory: Memory) -> End:
    outcome = Outcome.UNRESOLVED if memory.maybe_acted else Outcome.REFUSED
    return End(outcome=outcome, evidence=Evidence.ORDER_NOT_FOUND, detail="", memory=memory)


def _after_open(job: Job, sight: Sight, policy: Policy, now: datetime) -> Decision:
    """The order still works: whether that permits a POST depends on what the exchange said last."""
    age = _age(job.memory, sight)
    if sight.late_reject is not None:
        return _after_late_reject(job, sight, policy, now)
    if job.memory.pursuit == Meaning.REFUSED and not _was_the_token(job, policy, now):
        return _after_refusal(job, sight, policy, now)
    sooner = _wanted_sooner(job, now)
    if job.memory.pursuit == Meaning.ACCEPTED and not sooner and _patience_left(job, sight, age):
        return _keep_reading(job, sight, policy, now)
    if not may_post(job, policy, now):
        return _open_for_good(job, sight, policy, now)
    wait = max(PERMISSION_AGE - min(age, PERMISSION_AGE), _shut_for(job, now))
    if wait > timedelta(0):
        return Again(step=job.step, delay=wait, memory=job.memory)
    return Again(step=Step.POST, delay=timedelta(0), memory=job.memory._replace(proof_since=None))


def _was_the_token(job: Job, policy: Policy, now: datetime) -> bool:
    """A 400 may mean an expired token: once a newer one was proven, the POST is tried with it."""
    renewed = job.memory.token_floor > 0 and job.memory.refusal.startswith("http:400")
    return renewed and may_post(job, policy, now)


def _wanted_sooner(job: Job, now: datetime) -> bool:
    """A joiner wants the order canceled before the time, still to come, that it was armed for at the exchange."""
    armed, wanted = job.memory.armed_for, job.request.activation_time
    return armed is not None and to_micros(now) < armed and (wanted is None or to_micros(wanted) < armed)


def _shut_for(job: Job, now: datetime) -> timedelta:
    """Until the session may be open again, or the deadline forbids to ask."""
    if job.memory.not_before is None:
        return timedelta(0)
    until = from_micros(job.memory.not_before)
    return (min(until, job.request.deadline) if job.request.deadline is not None else until) - now


def _patience_left(job: Job, sight: Sight, age: timedelta) -> bool:
    """An accepted cancel has its time: from the answer, or from the activation it was armed for."""
    known = job.memory.armed_for
    armed = from_micros(known) if known is not None else job.request.activation_time
    since_armed = sight.asked_at - armed if armed is not None else timedelta.max
    return min(age, since_armed) < ACCEPTED_PATIENCE


def _after_refusal(job: Job, sight: Sight, policy: Policy, now: datetime) -> Decision:
    """The end, unless an earlier POST may still act: that one has its time first."""
    age = _age(job.memory, sight)
    if age < BELIEVED_AGE:
        return Again(step=Step.CONFIRM, delay=BELIEVED_AGE - age, memory=job.memory)
    if job.memory.under_way:
        return _keep_reading(job, sight, policy, now)
    return End(outcome=Outcome.REFUSED, evidence=Evidence.REPLY, detail=job.memory.refusal, memory=job.memory)


def _after_stranger(job: Job, sight: Sight, policy: Policy, now: datetime) -> Decision:
    """No POST for an order of another account; what was sent before that was known may still act."""
    age = _age(job.memory, sight)
    if job.memory.pursuit == Meaning.ACCEPTED and _patience_left(job, sight, age):
        return _keep_reading(job, sight, policy, now)
    if age < BELIEVED_AGE:
        return Again(step=Step.CONFIRM, delay=BELIEVED_AGE - age, memory=job.memory)
    detail = sight.other_account or ""
    return End(outcome=Outcome.REFUSED, evidence=Evidence.OTHER_ACCOUNT, detail=detail, memory=job.memory)


def _paused(decision: Decision, sight: Sight, policy: Policy) -> Decision:
    """Reads are calls like any other: a penalty or lock-out that one of them meets is kept."""
    if sight.throttled is None or isinstance(decision, End):
        return decision
    return replace(decision, delay=hold_of(sight.throttled, policy).span)


def _after_late_reject(job: Job, sight: Sight, policy: Policy, now: datetime) -> Decision:
    """The cancel was accepted and then rejected by a command report: its reason goes through the table."""
    reject, age = sight.late_reject, _age(job.memory, sight)
    if reject is None or not (reject.meaning is Meaning.REFUSED or may_post(job, policy, now)):
        return _keep_reading(job, sight, policy, now)
    if reject.meaning is not Meaning.REFUSED:
        return _after_passing_reject(job, reject, policy, now)
    if age < BELIEVED_AGE:
        return Again(step=Step.CONFIRM, delay=BELIEVED_AGE - age, memory=job.memory)
    detail = reject.reason or reject.rule
    return End(outcome=Outcome.REFUSED, evidence=Evidence.COMMAND_REPORT, detail=detail, memory=job.memory)


def _after_passing_reject(job: Job, reject: Verdict, policy: Policy, now: datetime) -> Again:
    """The rejected command counts no more: the order is read, and if it still works, POSTed again."""
    delay = wait_of(rule_of(reject), 1, policy)
    memory = job.memory._replace(pursuit=Meaning.AMBIGUOUS, under_way=False, proof_since=None)
    if reject.rule == SESSION_CLOSED:
        memory, delay = shut_out(memory, policy, now), READ_WAITS[0]
    return Again(step=Step.RECONCILE, delay=delay, memory=memory)


def _open_for_good(job: Job, sight: Sight, policy: Policy, now: datetime) -> Decision:
    """No POST is allowed any more and the order is open: say so, once a late effect can be ruled out."""
    if not job.memory.maybe_acted and _age(job.memory, sight) >= BELIEVED_AGE:
        evidence = Evidence.DRY_RUN if policy.dry_run else Evidence.SEEN_WORKING
        return _unresolved(job.memory, evidence, sight.ord_status)
    return _keep_reading(job, sight, policy, now)


def _unresolved(memory: Memory, evidence: Evidence, detail: str | None) -> End:
    return End(outcome=Outcome.UNRESOLVED, evidence=evidence, detail=detail or "", memory=memory)


def _keep_reading(job: Job, sight: Sight, policy: Policy, now: datetime) -> Decision:
    """Nothing is proven yet: read again, until posting *and* the confirm budget are over."""
    memory = job.memory
    # Spread, so that jobs which were read together once are not read together for ever.
    delay = READ_WAITS[min(memory.reads, len(READ_WAITS)) - 1] * (0.8 + 0.4 * policy.jitter())
    if memory.proof_since is None:
        if may_post(job, policy, now):
            return Again(step=job.step, delay=delay, memory=memory)
        memory = memory._replace(proof_since=to_micros(now))
    since = from_micros(memory.proof_since or 0)
    if not _wanted_sooner(job, now):
        delay = max(delay, since - now)  # armed for later: looked at before its time, it has to wait for it
    posting = memory.pursuit != Meaning.REFUSED and may_post(job, policy, now)
    if posting or now < since + policy.confirm_budget:
        return Again(step=Step.CONFIRM, delay=delay, memory=memory)
    return _unproven(job._replace(memory=memory), sight, now)


def _unproven(job: Job, sight: Sight, now: datetime) -> End:
    """Every budget is spent and no end was read: say what is known, no more."""
    memory = job.memory
    if memory.pursuit == Meaning.REFUSED and (not memory.under_way or sight.state is OrderState.OPEN):
        return End(outcome=Outcome.REFUSED, evidence=Evidence.REPLY, detail=memory.refusal, memory=memory)
    if memory.seen_open:
        return _unresolved(memory, Evidence.SEEN_WORKING, sight.ord_status)
    evidence = Evidence.DEADLINE if _expired_unsent(job, now) else Evidence.UNPROVEN
    return _unresolved(memory, evidence, sight.ord_status)
