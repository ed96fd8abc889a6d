"""One worker process: its parts built, started and stopped in the right order."""

import os
import random
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Self

import structlog
from uuid_utils import uuid7

from worker.app.watchers import Watchers
from worker.audit.engine import COMMIT_BOUND, STATEMENT_BOUND, open_engine, turns_us_away
from worker.audit.journal import Journal, journal_of
from worker.audit.schema import require_head, require_writer
from worker.audit.seals import Sealer
from worker.audit.stamp import require_owner, stamp, stamp_writer
from worker.audit.writer import AuditWriter
from worker.clock import monotonic
from worker.errors import AuditUnavailable, ConfigError, LedgerUnavailable
from worker.exchange.clients import clients
from worker.exchange.line import Timeouts
from worker.exchange.webhook import Webhook
from worker.gaps import Gap, reached
from worker.ledger.client import Ledger, Post
from worker.ledger.words import Rules
from worker.logins import lanes, logins_from
from worker.policy import policy_from
from worker.rate_limit import limits_from
from worker.settings import Settings
from worker.work.carry import withdraw
from worker.work.crew import Crew
from worker.work.duty import AT_FIRST, Alarm
from worker.work.governing import governor_of
from worker.work.hand import Hand, LedgerClock
from worker.work.keeper import keepers
from worker.work.seal import Sealing
from worker.work.settle import Settler
from worker.work.shift import Shift
from worker.work.sweep import Upkeep

if TYPE_CHECKING:
    from sqlalchemy import Engine

log = structlog.get_logger()
# Every call to Redis is a few milliseconds; a frozen one must not hold a lease's renewal up.
LEDGER_TIMEOUT = timedelta(seconds=1)
# What may follow the bound of the last request: its answer, which exists nowhere else, and what came of it go to disk.
LAST_WORDS = timedelta(seconds=3)
# After that each part of the process is waited for so long.
LAST_WAIT = timedelta(seconds=0.2)
# Beyond two requests' bounds and two commits a job in hand is stuck, not slow.
STUCK_AFTER = timedelta(seconds=30)


class WorkerProcess:
    """All that works jobs, without Celery: `shift.run` answers a bell."""

    def __init__(self, settings: Settings, *, redis_url: str, database_url: str) -> None:
        self._settings = settings
        self._logins = logins_from(settings)
        self._policy = policy_from(settings, random.random)
        self._rules = Rules(
            dedupe_life=settings.dedupe_life,
            limits=limits_from(settings.rate_limit),
            logins=lanes(self._logins),
        )
        self._clock = LedgerClock()
        self._ledger = Ledger(redis_url, settings.ledger, timeout=LEDGER_TIMEOUT)
        self._governor = governor_of(
            self._ledger, self._policy, self._clock.now, limited=bool(self._rules.limits)
        )
        self._database_url = database_url
        self.watchers = Watchers(settings, policy_version=self._policy.version)
        self._opened = ExitStack()
        self._started = False
        self._ends_by: timedelta | None = None  # (monotonic) once it is ending
        self.fault: ConfigError | None = None  # why it ended by itself, if that was a fault
        self.shift: Shift
        self._crew: Crew

    def start(self) -> Self:
        """Check every dependency in turn, then begin; whatever fails is named and nothing stays open."""
        with ExitStack() as opened:
            self.watchers.listen(opened)
            opened.callback(self._ledger.close_connections)
            AT_FIRST(self._prepare_ledger)
            crew = self._build_crew(opened)
            # Last: a worker that can't start must not make the ledger its own.
            AT_FIRST(self._ledger.sign_on, crew.post)
            opened.callback(self._sign_off, crew.post)
            reached(Gap.SIGNED_ON)
            self._start_threads(crew, opened)
            self._opened = opened.pop_all()
        self._started = True
        log.info(
            "worker.started",
            worker=crew.name,
            exchange=self._settings.exchange_url,
            live=self._settings.is_live,
            dry_run=self._settings.dry_run,
        )
        return self

    def stop(self) -> None:
        """Finish what is on the wire, settle it, hand the rest back, close everything.

        Takes at most one request's bound and LAST_WORDS, counted from `claim_no_more`, and what it takes to close.
        """
        self._opened.close()
        if self._started:
            self._started = False
            log.info("worker.stopped")

    def claim_no_more(self) -> None:
        """From here on counts for how long the process may go on."""
        if self._ends_by is None:
            self._ends_by = monotonic() + self._settings.total_timeout + LAST_WORDS
            self._crew.audit.end_by(self._ends_by)
        self.shift.stopping = True

    def _in_time(self, act: Callable[[], None]) -> None:
        """Do this beside the ending, which does not wait for it beyond its time."""
        acting = threading.Thread(target=act, name="last-act", daemon=True)
        acting.start()
        acting.join(self._left().total_seconds())

    def _left(self) -> timedelta:
        """For how long one part may still be waited for."""
        return max((self._ends_by or timedelta(0)) - monotonic(), LAST_WAIT)

    def _run_shift(self) -> None:
        self.shift.run()

    def _prepare_ledger(self) -> None:
        self._ledger.ping()
        self._ledger.prepare(self._rules)
        self._ledger.require_owner(self._settings.exchange_url)

    def _sign_off(self, post: Post) -> None:
        with suppress(LedgerUnavailable):
            self._ledger.sign_off(post)

    def _end(self, fault: ConfigError | None) -> None:
        """As if somebody had asked from outside."""
        self.fault = fault
        os.kill(os.getpid(), signal.SIGTERM)

    def _build_crew(self, opened: ExitStack) -> Crew:
        settings = self._settings
        engine = open_engine(self._database_url)
        opened.callback(engine.dispose)
        journal = self._journal(opened)
        chain = str(uuid7())
        writer = self._audit_writer(chain, journal if self._keeps_a_journal else None, opened)
        sealing = self._sealing(engine, chain, writer, opened)
        timeouts = Timeouts(
            connect=settings.connect_timeout, read=settings.read_timeout, total=settings.total_timeout
        )
        exchanges = clients(
            settings.exchange_url,
            self._logins,
            timeouts,
            governor=self._governor,
        )
        opened.callback(exchanges.close)
        kept = keepers(exchanges, self._ledger, self._governor, timeouts=timeouts, lockout=settings.lockout)
        for keeper in kept:
            opened.callback(keeper.close)
        self._meet_audit(engine, writer, journal, opened)
        stamp_writer(writer, chain, settings.ledger)
        return Crew(
            name=f"{socket.gethostname()}/{os.getpid()}",
            writer=chain,
            ledger=self._ledger,
            audit=writer,
            engine=engine,
            journal=journal,
            clients=exchanges,
            keepers=kept,
            sealing=sealing,
            policy=self._policy,
            hand=Hand(lease=settings.lease, work_bound=2 * settings.total_timeout + STUCK_AFTER),
            clock=self._clock,
            lease=settings.lease,
            concurrency=settings.concurrency,
            governor=self._governor,
            rules=self._rules,
            post=Post(
                exchange=settings.exchange_url,
                worker=chain,
                dry_run=settings.dry_run,
                alerts=settings.alert_url is not None,
            ),
            webhook=_webhook(settings, opened),
            tell=self.watchers,
        )

    def _audit_writer(self, chain: str, journal: Journal | None, opened: ExitStack) -> AuditWriter:
        """On an engine of its own: where a journal stands by, its commits are given up sooner than others."""
        bound = STATEMENT_BOUND if journal is None else COMMIT_BOUND
        engine = open_engine(self._database_url, statement_bound=bound)
        opened.callback(engine.dispose)
        return AuditWriter(engine, writer=chain, environment=self._settings.environment, journal=journal)

    @property
    def _keeps_a_journal(self) -> bool:
        return self._settings.audit_down == "journal"

    def _journal(self, opened: ExitStack) -> Journal | None:
        """What an earlier setting left in one is carried over all the same."""
        journal = journal_of(self._settings, self._ledger.witness)
        if not (self._keeps_a_journal or journal.exists):
            return None
        opened.callback(journal.engine.dispose)
        return journal

    def _sealing(self, engine: "Engine", chain: str, writer: AuditWriter, opened: ExitStack) -> Sealing:
        sealer = Sealer(engine, self._settings.environment)
        sealing = Sealing(sealer, ledger=self._ledger, audit=writer, writer=chain)
        opened.callback(self._in_time, sealing.finish)  # met after the writer's last commit
        return sealing

    def _meet_audit(
        self, engine: "Engine", writer: AuditWriter, journal: Journal | None, opened: ExitStack
    ) -> None:
        """Require the audit to be ours; while it is away, a journal for which that was once found is enough."""
        away = False
        try:
            if self._settings.database_url is None:
                # Alembic: 7 MB of every other worker
                from worker.audit.migrating import migrate  # noqa: PLC0415

                migrate(self._database_url)
            require_head(engine)
            require_writer(engine)
            require_owner(engine, self._settings.exchange_url)
        except AuditUnavailable as error:
            away = self._keeps_a_journal and journal is not None and journal.exists and journal.confirmed
            if not away or turns_us_away(error):
                raise
            log.warning("audit.away", reason=str(error))
        writer.start(journaling=away)
        opened.callback(lambda: writer.stop(self._left()))
        if not away:
            stamp(engine, writer, self._settings.exchange_url)
            self._make_ready(journal)

    def _make_ready(self, journal: Journal | None) -> None:
        """A journal that can't be used is a fault, but not yet a cancel's."""
        try:
            if journal is not None:
                journal.confirm()
                withdraw(journal, self._ledger)
        except AuditUnavailable as error:
            log.error("audit.no_journal", reason=str(error))  # noqa: TRY400  # no bug of ours

    def _start_threads(self, crew: Crew, opened: ExitStack) -> None:
        """Stopped in the reverse order: no new claims, then settle what is in hand, renewing to the last."""
        alarm = Alarm(self._run_shift)
        settler = Settler(crew, alarm.after)
        self._crew = crew
        self.shift = Shift(crew, settler, alarm.after)
        self.shift.start()
        upkeep = Upkeep(crew, self.shift, alarm, end=self._end)
        upkeep.start()
        opened.callback(upkeep.stop, self._left)
        settler.start()
        opened.callback(lambda: settler.stop(self._left()))
        opened.callback(lambda: self.shift.stop(self._left()))
        alarm.start()
        opened.callback(lambda: alarm.stop(self._left()))
        self.watchers.serve(crew, upkeep.beats, opened)
        opened.callback(self.claim_no_more)  # or a busy shift that the alarm started would not end


def _webhook(settings: Settings, opened: ExitStack) -> Webhook | None:
    if settings.alert_url is None:
        return None
    webhook = Webhook(settings.alert_url)
    opened.callback(webhook.close)
    return webhook
