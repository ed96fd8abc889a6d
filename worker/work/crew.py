"""The parts that one worker process works with, built once at its start."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import Engine

from worker.audit.journal import Journal
from worker.audit.writer import AuditWriter
from worker.exchange.clients import Clients
from worker.exchange.governor import Governor
from worker.exchange.webhook import Webhook
from worker.ledger.client import Ledger, Post
from worker.ledger.words import Rules
from worker.policy import Policy
from worker.work.astray import Astray
from worker.work.hand import Hand, LedgerClock
from worker.work.happening import Happening, nobody_listens
from worker.work.keeper import Keeper
from worker.work.seal import Sealing


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Everything that working a job needs; shared by all threads of the process."""

    name: str  # host/pid, as the audit's `worker`
    writer: str  # this process's chain in the audit
    ledger: Ledger
    audit: AuditWriter
    engine: Engine
    journal: Journal | None
    clients: Clients
    policy: Policy
    hand: Hand
    clock: LedgerClock
    lease: timedelta
    concurrency: int
    governor: Governor
    rules: Rules
    post: Post
    webhook: Webhook | None = None
    tell: Callable[[Happening], None] = nobody_listens
    keepers: Sequence[Keeper] = ()
    sealing: Sealing | None = None
    astray: Astray = field(default_factory=Astray)
