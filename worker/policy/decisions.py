"""The two decisions, the knobs behind them, and the waits that all of them share. Nothing here does anything."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import assert_never

from worker.clock import to_micros
from worker.errors import ConfigError
from worker.job import Evidence, Memory, Outcome, State, Step
from worker.reasons import DEFAULT_TRANSIENT, RULES, VERSION, Action, Rule
from worker.session import last_look
from worker.settings import Settings
from worker.verdict import Verdict, rule_of

# The exchange may show its own writes late. An open state permits a POST only if it was read this long
# after the last POST's answer (the contract's rule) …
PERMISSION_AGE = timedelta(seconds=1)
# … and is believed as an order's last word only after the longest lag that is known.
BELIEVED_AGE = timedelta(seconds=2)
# Reads of one order: soon at first, because most cancels are done within a second.
READ_WAITS = tuple(timedelta(seconds=s) for s in (0.1, 0.2, 0.4, 0.8, 1.5, 3, 5))
SESSION_CLOSED = "reason:SessionClosed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Not at its end: come back after `delay` and do `step`."""

    step: Step
    delay: timedelta
    memory: Memory

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
class Hold:
    """A login that makes no call for a while."""

    span: timedelta
    lockout: bool  # a person must know; a penalty ends by itself


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


def hold_of(verdict: Verdict, policy: Policy) -> Hold:
    """For how long a throttled answer forbids the login all calls."""
    if rule_of(verdict).action is Action.TICKET and verdict.penalty is not None:
        return Hold(span=verdict.penalty, lockout=False)
    return Hold(span=max(policy.lockout, verdict.penalty or timedelta(0)), lockout=True)


def before_the_reset(decision: Decision, now: datetime) -> Decision:
    """No wait leads past the exchange's reset unread: what is open is looked at shortly before."""
    if isinstance(decision, End):
        return decision
    look_at = last_look(now)
    if now + decision.delay <= look_at:
        return decision
    step = Step.RECONCILE if decision.step is Step.POST else decision.step
    return replace(decision, step=step, delay=look_at - now)


def wait_of(rule: Rule, times: int, policy: Policy) -> timedelta:
    """Doubling from the rule's first wait to its longest, spread by ± 20 %."""
    doublings = max(0, min(times - 1, 20))
    grown: timedelta = min(rule.longest, rule.first * (1 << doublings))
    return grown * (0.8 + 0.4 * policy.jitter())


def prove_from(memory: Memory, since: datetime, *, delay: timedelta) -> Again:
    """Posting is over (for now): read until the order's end is known."""
    proof_since = memory.proof_since if memory.proof_since is not None else to_micros(since)
    return Again(step=Step.CONFIRM, delay=delay, memory=memory._replace(proof_since=proof_since))
