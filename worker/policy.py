"""What we do next: pure decisions over (job, what was just learned, the time). Nothing here does anything."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import assert_never

from worker.clock import from_micros, span_micros, to_micros
from worker.errors import ConfigError
from worker.job import Evidence, Job, Memory, Outcome, State, Step
from worker.reasons import DEFAULT_TRANSIENT, RULES, VERSION, Action, Meaning, Rule
from worker.reply import Transport
from worker.settings import Settings
from worker.verdict import ENDS, OrderState, Sight, Verdict, rule_of

# The exchange may show its own writes late. An open state permits a POST only if it was read this long
# after the last POST's answer (the contract's rule) …
PERMISSION_AGE = timedelta(seconds=1)
# … and is believed as an order's last word only after the longest lag that is known.
BELIEVED_AGE = timedelta(seconds=2)
# An accepted cancel whose order still works this long after the answer is asked for again.
ACCEPTED_PATIENCE = timedelta(seconds=5)
# Reads of one order: soon at first, because most cancels are done within a second.
READ_WAITS = tuple(timedelta(seconds=s) for s in (0.1, 0.2, 0.4, 0.8, 1.5, 3, 5))
# Transient replies in a row that may be answered by a POST without a read (the contract's rule).
UNREAD_REPOSTS = 3
# Reads that must miss an order before it counts as not found (the contract's rule).
MISSING_READS = 2
# An evidence's detail is a remark; the whole text is in the attempt's row.
MOST_DETAIL = 500
SESSION_CLOSED = "reason:SessionClosed"
# One more try after a 401, then it is this order's refusal.
UNAUTHORIZED_TRIES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Not at its end: come back after `delay` and do `step`."""

    step: Step
    delay: timedelta
    memory: Memory
    lock_out: timedelta | None = None

    @property
    def state(self) -> State:
        """The public word for a job that waits for this step."""
        match self.step:
            case Step.POST:
                return State.PARKED if self.delay else State.QUEUED
            case Step.RECONCILE:
                return State.RECONCILING
            case Step.CONFIRM:
                return State.CONFIRMING
            case Step.CLOSE:
                return State.CLOSING
        assert_never(self.step)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The job's end: what became of the order, and what that rests on."""

    outcome: Outcome
    evidence: Evidence
    detail: str
    memory: Memory

    @property
    def evidence_text(self) -> str:
        """One word, then detail, as the contract's `evidence`."""
        return f"{self.evidence} {self.detail}".rstrip()


Decision = Again | End


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The knobs of every decision, and the version that is stamped on each attempt."""

    transient: frozenset[str]
    max_attempts: int
    retry_budget: timedelta
    confirm: bool
    confirm_budget: timedelta
    lockout: timedelta
    jitter: Callable[[], float]  # 0 ≤ jitter < 1; spreads waits over ± 20 %
    dry_run: bool = False

    @property
    def version(self) -> str:
        """The table's version, marked when configuration changed which reasons are transient."""
        if self.transient == DEFAULT_TRANSIENT:
            return VERSION
        return f"{VERSION}+{hashlib.sha256(','.join(sorted(self.transient)).encode()).hexdigest()[:6]}"


def policy_from(settings: Settings, jitter: Callable[[], float]) -> Policy:
    """The policy that the settings ask for; ConfigError if a transient reason can't be meant."""
    known = {rule.name.removeprefix("reason:") for rule in RULES.values() if rule.name.startswith("reason:")}
    for reason in settings.transient_reasons - known | settings.transient_reasons & {"Success"}:
        near = get_close_matches(reason, known, n=1, cutoff=0.8)
        if near or reason == "Success":
            hint = "a success is never repeated" if "Success" in near else f"did you mean {near[0]}?"
            raise ConfigError(f"CANCELQ_TRANSIENT_REASONS: {reason!r}: {hint}")
    return Policy(
        transient=settings.transient_reasons,
        max_attempts=settings.max_attempts,
        retry_budget=settings.retry_budget,
        confirm=settings.confirm == "on",
        confirm_budget=settings.confirm_budget,
        lockout=settings.lockout,
        jitter=jitter,
        dry_run=settings.dry_run,
    )


# ---------------------------------------------------------------------------------------------- posting


def may_post(job: Job, policy: Policy, now: datetime) -> bool:
    """Whether deadline, attempt limit and retry budget allow one more POST at `now`; a dry run never does."""
    if policy.dry_run:
        return False
    deadline = job.request.deadline
    if deadline is not None and now >= deadline:
        return False
    return job.attempts < policy.max_attempts and not _budget_spent(job.memory, policy, now)


def _budget_spent(memory: Memory, policy: Policy, now: datetime) -> bool:
    since = memory.first_claim_at
    return since is not None and now >= from_micros(since) + policy.retry_budget


def resumed(memory: Memory, now: datetime, *, stood_still: int, held_back: int) -> Memory:
    """What a claim finds: budgets count from the first claim, not in a lock-out; POSTing not in a pause either."""
    if memory.first_claim_at is None:
        return replace(memory, first_claim_at=to_micros(now), stood_still=stood_still, held_back=held_back)
    locked = max(0, stood_still - memory.stood_still)
    paused = max(0, held_back - memory.held_back)
    if not locked and not paused:
        return memory
    return replace(
        memory,
        first_claim_at=memory.first_claim_at + locked + paused,
        proof_since=memory.proof_since + locked if memory.proof_since is not None else None,
        stood_still=memory.stood_still + locked,
        held_back=memory.held_back + paused,
    )


def held_up(memory: Memory, by: timedelta) -> Memory:
    """Something outside of the exchange kept the job waiting: its retry budget does not count that."""
    if memory.first_claim_at is None:
        return memory
    return replace(memory, first_claim_at=memory.first_claim_at + span_micros(by))


def instead_of_post(job: Job, now: datetime) -> Again:
    """The job may not be POSTed any more: prove what became of the order."""
    return _prove(job.memory, now, delay=timedelta(0))


def is_transient(verdict: Verdict) -> bool:
    """The predicate of tenacity: exactly the contract's `transient`."""
    return verdict.meaning is Meaning.TRANSIENT


# -------------------------------------------------------------------------------------------- after a POST


def after_reply(job: Job, verdict: Verdict, policy: Policy, now: datetime) -> Decision:
    """What follows one attempt. `job.attempts` counts that attempt already; `now` is when it ended."""
    memory = _remember(job.memory, verdict, now)
    match verdict.meaning:
        case Meaning.ACCEPTED:
            return _after_accepted(job, memory, policy, now)
        case Meaning.TRANSIENT:
            return _after_transient(replace(job, memory=memory), verdict, policy, now)
        case Meaning.REFUSED:
            return _prove(memory, now, delay=READ_WAITS[0])
        case Meaning.THROTTLED:
            return _after_throttled(memory, verdict, policy)
        case Meaning.AMBIGUOUS | Meaning.UNAUTHORIZED:
            return _after_unclear(replace(job, memory=memory), verdict, policy, now)
    assert_never(verdict.meaning)


def _remember(memory: Memory, verdict: Verdict, now: datetime) -> Memory:
    """Fold one verdict into what the job knows."""
    sent = verdict.rule != f"transport:{Transport.NOT_SENT}"
    counted = verdict.meaning is Meaning.UNAUTHORIZED
    refused = verdict.meaning is Meaning.REFUSED or memory.unauthorized + counted >= UNAUTHORIZED_TRIES
    acted = verdict.meaning is Meaning.ACCEPTED or verdict.command_id is not None or _may_have_acted(verdict)
    return replace(
        memory,
        pursuit=Meaning.REFUSED if refused else verdict.meaning,
        refusal=_refusal(verdict) if refused else "",
        transient_replies=memory.transient_replies + 1 if is_transient(verdict) else 0,
        unauthorized=memory.unauthorized + counted,
        command_id=verdict.command_id if verdict.command_id is not None else memory.command_id,
        accepted=memory.accepted or verdict.meaning is Meaning.ACCEPTED,
        maybe_acted=memory.maybe_acted or acted,
        last_answer_at=to_micros(now) if sent else memory.last_answer_at,
        reads=0,
        not_before=None,
        ticket=verdict.ticket,
    )


def _may_have_acted(verdict: Verdict) -> bool:
    """Replies after which a missing order is unresolved rather than refused (the contract's order_not_found)."""
    return verdict.reason == "TooLate" or verdict.rule == f"transport:{Transport.UNANSWERED}"


def _refusal(verdict: Verdict) -> str:
    return ": ".join(part for part in (verdict.reason or verdict.rule, verdict.text) if part)[:MOST_DETAIL]


def _after_unclear(job: Job, verdict: Verdict, policy: Policy, now: datetime) -> Again:
    """Read first."""
    delay = _wait(rule_of(verdict), job.attempts, policy)
    if verdict.rule == SESSION_CLOSED:
        return Again(step=Step.RECONCILE, delay=READ_WAITS[0], memory=_shut_out(job.memory, delay, now))
    return Again(step=Step.RECONCILE, delay=delay, memory=job.memory)


def _shut_out(memory: Memory, span: timedelta, now: datetime) -> Memory:
    """While the session is closed a POST gains nothing, so no budget is spent; reads go on."""
    return replace(held_up(memory, span), not_before=to_micros(now + span))


def _after_accepted(job: Job, memory: Memory, policy: Policy, now: datetime) -> Decision:
    if not policy.confirm:
        detail = "confirmation is off"
        return End(outcome=Outcome.ACCEPTED, evidence=Evidence.REPLY, detail=detail, memory=memory)
    armed = job.request.activation_time
    memory = replace(memory, armed_for=to_micros(armed) if armed is not None else None)
    wait = max(armed - now, timedelta(0)) if armed is not None else timedelta(0)
    return _prove(replace(memory, proof_since=None), now + wait, delay=wait + READ_WAITS[0])


def _after_transient(job: Job, verdict: Verdict, policy: Policy, now: datetime) -> Again:
    delay = _wait(rule_of(verdict), job.memory.transient_replies, policy)
    if not may_post(job, policy, now + delay):
        return _prove(job.memory, now, delay=READ_WAITS[0])
    unsent = verdict.rule == "transport:not_sent"
    unread = job.memory.transient_replies <= UNREAD_REPOSTS and not unsent
    return Again(step=Step.POST if unread else Step.RECONCILE, delay=delay, memory=job.memory)


def _after_throttled(memory: Memory, verdict: Verdict, policy: Policy) -> Again:
    """A penalty is nobody's fault here: the retry budget stands still while it lasts.

    A lock-out holds everybody up, so the ledger counts it and `resumed` moves each job's budgets.
    """
    pause, lock_out = _pause(verdict, policy)
    memory = held_up(memory, pause) if lock_out is None else memory
    return Again(step=Step.RECONCILE, delay=pause, memory=memory, lock_out=lock_out)


def _pause(verdict: Verdict, policy: Policy) -> tuple[timedelta, timedelta | None]:
    """How long this job waits, and how long everybody does: a ticket binds one request, a lock-out all."""
    if rule_of(verdict).action is Action.TICKET:
        return verdict.penalty if verdict.penalty is not None else policy.lockout, None
    return policy.lockout, policy.lockout


def _prove(memory: Memory, since: datetime, *, delay: timedelta) -> Again:
    """Posting is over (for now): read until the order's end is known."""
    proof_since = memory.proof_since if memory.proof_since is not None else to_micros(since)
    return Again(step=Step.CONFIRM, delay=delay, memory=replace(memory, proof_since=proof_since))


def _wait(rule: Rule, times: int, policy: Policy) -> timedelta:
    """Doubling from the rule's first wait to its longest, spread by ± 20 %."""
    doublings = max(0, min(times - 1, 20))
    grown: timedelta = min(rule.longest, rule.first * (1 << doublings))
    return grown * (0.8 + 0.4 * policy.jitter())


# -------------------------------------------------------------------------------------------- after a read


def after_read(job: Job, sight: Sight, policy: Policy, now: datetime) -> Decision:
    """What follows one read of the order. An end that was seen wins over any reply."""
    if sight.state in ENDS:
        detail = ": ".join(part for part in (sight.ord_status, sight.other_account) if part)
        return End(outcome=ENDS[sight.state], evidence=Evidence.ORDER_READ, detail=detail, memory=job.memory)
    memory = replace(
        job.memory,
        reads=job.memory.reads + 1,
        transient_replies=0,
        missing=job.memory.missing + 1 if sight.state is OrderState.MISSING else _kept_missing(job, sight),
        seen_open=_seen_open(job.memory, sight),
    )
    job = replace(job, memory=memory)
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


def _kept_missing(job: Job, sight: Sight) -> int:
    """A read that failed says nothing about an order that was missing before."""
    return job.memory.missing if sight.state is OrderState.UNREAD else 0


def _seen_open(memory: Memory, sight: Sight) -> bool:
    if sight.state in {OrderState.UNREAD, OrderState.UNCLEAR}:
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
    if job.memory.pursuit == Meaning.REFUSED:
        return _after_refusal(job, age)
    sooner = _wanted_sooner(job)
    if job.memory.pursuit == Meaning.ACCEPTED and not sooner and _patience_left(job, sight, age):
        return _keep_reading(job, sight, policy, now)
    if not may_post(job, policy, now):
        return _open_for_good(job, sight, policy, now)
    wait = max(PERMISSION_AGE - min(age, PERMISSION_AGE), _shut_for(job, now))
    if wait > timedelta(0):
        return Again(step=job.step, delay=wait, memory=job.memory)
    return Again(step=Step.POST, delay=timedelta(0), memory=replace(job.memory, proof_since=None))


def _wanted_sooner(job: Job) -> bool:
    """A joiner wants the order canceled before the time it was armed for at the exchange."""
    armed, wanted = job.memory.armed_for, job.request.activation_time
    return armed is not None and (wanted is None or to_micros(wanted) < armed)


def _shut_for(job: Job, now: datetime) -> timedelta:
    """Until the session may be open again, or the deadline forbids to ask."""
    if job.memory.not_before is None:
        return timedelta(0)
    until = from_micros(job.memory.not_before)
    return (min(until, job.request.deadline) if job.request.deadline is not None else until) - now


def _patience_left(job: Job, sight: Sight, age: timedelta) -> bool:
    """An accepted cancel has its time: from the answer, or from the activation it was armed for."""
    armed = job.request.activation_time
    since_armed = sight.asked_at - armed if armed is not None else timedelta.max
    return min(age, since_armed) < ACCEPTED_PATIENCE


def _after_refusal(job: Job, age: timedelta) -> Decision:
    if age < BELIEVED_AGE:
        return Again(step=Step.CONFIRM, delay=BELIEVED_AGE - age, memory=job.memory)
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
    pause, lock_out = _pause(sight.throttled, policy)
    return replace(decision, delay=pause, lock_out=lock_out)


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
    delay = _wait(rule_of(reject), 1, policy)
    memory = replace(job.memory, pursuit=Meaning.AMBIGUOUS, proof_since=None)
    if reject.rule == SESSION_CLOSED:
        memory, delay = _shut_out(memory, delay, now), READ_WAITS[0]
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
        memory = replace(memory, proof_since=to_micros(now))
    if now < from_micros(memory.proof_since or 0) + policy.confirm_budget:
        return Again(step=Step.CONFIRM, delay=delay, memory=memory)
    return _unproven(replace(job, memory=memory), sight, now)


def _unproven(job: Job, sight: Sight, now: datetime) -> End:
    """Every budget is spent and no end was read: say what is known, no more."""
    memory = job.memory
    if memory.pursuit == Meaning.REFUSED:
        return End(outcome=Outcome.REFUSED, evidence=Evidence.REPLY, detail=memory.refusal, memory=memory)
    if memory.seen_open:
        return _unresolved(memory, Evidence.SEEN_WORKING, sight.ord_status)
    evidence = Evidence.DEADLINE if _expired_unsent(job, now) else Evidence.UNPROVEN
    return _unresolved(memory, evidence, sight.ord_status)
