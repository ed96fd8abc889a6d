"""Joins the exchange's governor to the ledger, which speaks for the whole fleet."""

from collections.abc import Callable
from datetime import datetime

from worker.clock import monotonic
from worker.exchange.governor import Governor, Rulings
from worker.ledger.client import Ledger
from worker.policy import Policy, hold_of
from worker.work.duty import SWEEP_INTERVAL
from worker.work.hand import LedgerClock


def governor_of(ledger: Ledger, policy: Policy, now: Callable[[], datetime], *, limited: bool) -> Governor:
    """`now` is the ledger's clock; `limited`: whether calls are counted at all."""
    rulings = Rulings(
        now=now,
        ask=lambda: ledger.sweep(SWEEP_INTERVAL),
        grant=ledger.grant,
        tell=lambda login, hold: ledger.hold(login, hold.span, lockout=hold.lockout),
        hold_of=lambda verdict: hold_of(verdict, policy),
    )
    return Governor(rulings, limited=limited, dry_run=policy.dry_run)


def governor_for_commands(ledger: Ledger, policy: Policy, *, limited: bool) -> Governor:
    """For a process that is no worker: it has one look at the ledger's clock and its lock-outs first."""
    clock = LedgerClock()
    governor = governor_of(ledger, policy, clock.now, limited=limited)
    asked_at = monotonic()
    swept = ledger.sweep(SWEEP_INTERVAL)
    clock.observe(swept.now, asked_at)
    governor.hear(swept)
    return governor
