"""The parts that one worker process works with, built once at its start."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Engine

from worker.audit.writer import AuditWriter
from worker.exchange.client import Exchange
from worker.exchange.webhook import Webhook
from worker.ledger.client import Ledger, Post
from worker.policy import Policy
from worker.work.hand import Hand, LedgerClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Everything that working a job needs; shared by all threads of the process."""

    name: str  # host/pid, as the audit's `worker`
    writer: str  # this process's chain in the audit
    ledger: Ledger
    audit: AuditWriter
    engine: Engine
    exchange: Exchange
    policy: Policy
    hand: Hand
    clock: LedgerClock
    lease: timedelta
    concurrency: int
    dedupe_life: timedelta
    post: Post
    webhook: Webhook | None = None
