"""Whether a job may be POSTed (again), and what does not count against its budgets."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from worker.clock import from_micros, span_micros, to_micros
from worker.job import Job, Memory
from worker.policy.decisions import SESSION_CLOSED, Again, Policy, prove_from, wait_of
from worker.reasons import RULES, Meaning, RuleName
from worker.verdict import Verdict


def may_post(job: Job, policy: Policy, now: datetime) -> bool:
    """Whether deadline, attempt limit and retry budget allow one more POST at `now`; a dry run never does."""
    if policy.dry_run:
        return False
    deadline = job.request.deadline
    if deadline is not None and now >= deadline:
        return False
    # Whoever waits for a token, or for the session, has not spent a try.
    counted = job.attempts - job.memory.unauthorized - job.memory.shut_outs
    return counted < policy.max_attempts and not _budget_spent(job.memory, policy, now)


def _budget_spent(memory: Memory, policy: Policy, now: datetime) -> bool:
    since = memory.first_claim_at
    return since is not None and now >= from_micros(since) + policy.retry_budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """µs for which a login's jobs could not be worked, since the ledger began."""

    held: int = 0  # by a lock-out or a penalty
    paused: int = 0  # by an operator, holds apart
    dry: int = 0  # reads that were due waited for their budget


def resumed(memory: Memory, now: datetime, idle: Idle) -> Memory:
    """What a claim finds: budgets count from the first claim, not in a hold or without a token.

    POSTing not in a pause either, and proof not while reads wait for their budget.
    """
    if memory.first_claim_at is None:
        known = memory._replace(stood_still=idle.held, held_back=idle.paused, ran_dry=idle.dry)
        return known._replace(first_claim_at=to_micros(now))
    held = max(0, idle.held - memory.stood_still)
    paused = max(0, idle.paused - memory.held_back)
    dry = max(0, idle.dry - memory.ran_dry)
    since = memory.waiting_since
    waited = max(0, to_micros(now) - since - held - paused) if since is not None else 0
    if since is None and not held and not paused and not dry:
        return memory
    proof = memory.proof_since
    return memory._replace(
        first_claim_at=memory.first_claim_at + held + paused + waited,
        proof_since=proof + held + dry + waited if proof is not None else None,
        waiting_since=None,
        stood_still=memory.stood_still + held,
        held_back=memory.held_back + paused,
        ran_dry=memory.ran_dry + dry,
    )


def held_up(memory: Memory, by: timedelta) -> Memory:
    """Something outside of the exchange kept the job waiting: its retry budget does not count that."""
    if memory.first_claim_at is None:
        return memory
    return memory._replace(first_claim_at=memory.first_claim_at + span_micros(by))


def shut_out(memory: Memory, policy: Policy, now: datetime) -> Memory:
    """While the session is closed a POST gains nothing, so no budget and no attempt is spent; reads go on."""
    span = wait_of(RULES[RuleName(SESSION_CLOSED)], memory.shut_outs + 1, policy)
    held = held_up(memory, span)
    return held._replace(not_before=to_micros(now + span), shut_outs=memory.shut_outs + 1)


def without_token(job: Job, wait: timedelta, now: datetime) -> Again:
    """Nothing can be sent or read now: come back for the same step; `resumed` gives the time back."""
    return Again(step=job.step, delay=wait, memory=job.memory._replace(waiting_since=to_micros(now)))


def token_refused(memory: Memory, revision: int) -> Memory:
    """A POST met 401 or 400: the next one takes a newer token, whichever worker sends it."""
    return memory._replace(token_floor=revision + 1)


def token_proven(memory: Memory, revision: int) -> Memory:
    """A read was answered. If it had no newer token than the POST, that one was good: the refusal was of something else."""
    return memory if revision >= memory.token_floor else memory._replace(token_floor=0)


def is_transient(verdict: Verdict) -> bool:
    """The predicate of tenacity: exactly the contract's `transient`."""
    return verdict.meaning is Meaning.TRANSIENT


def instead_of_post(job: Job, now: datetime) -> Again:
    """The job may not be POSTed any more: prove what became of the order."""
    return prove_from(job.memory, now, delay=timedelta(0))
