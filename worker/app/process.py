"""One worker process: its parts built, started and stopped in the right order."""

import os
import random
import signal
import socket
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Self

import structlog
from pydantic import SecretStr
from uuid_utils import uuid7

from worker.audit.engine import open_engine
from worker.audit.schema import migrate, require_head
from worker.audit.stamp import stamp
from worker.audit.writer import AuditWriter
from worker.errors import ConfigError, LedgerUnavailable
from worker.exchange.client import Exchange
from worker.exchange.line import Timeouts
from worker.exchange.webhook import Webhook
from worker.gaps import Gap, reached
from worker.ledger.client import Ledger, Post
from worker.policy import policy_from
from worker.settings import Settings
from worker.work.crew import Crew
from worker.work.duty import Alarm
from worker.work.hand import Hand, LedgerClock
from worker.work.settle import Settler
from worker.work.shift import Shift
from worker.work.sweep import Upkeep

log = structlog.get_logger()
# Every call to Redis is a few milliseconds; a frozen one must not hold a lease's renewal up.
LEDGER_TIMEOUT = timedelta(seconds=1)
# Beyond two requests' bounds and two commits a job in hand is stuck, not slow.
STUCK_AFTER = timedelta(seconds=30)


def require_token(settings: Settings) -> SecretStr:
    """The exchange's bearer token; ConfigError if there is none."""
    if settings.access_token is None or not settings.access_token.get_secret_value():
        raise ConfigError("CANCELQ_ACCESS_TOKEN is not set; the exchange needs a bearer token")
    return settings.access_token


class WorkerProcess:
    """All that works jobs, without Celery: `shift.run` answers a bell."""

    def __init__(self, settings: Settings, *, redis_url: str, database_url: str) -> None:
        self._settings = settings
        self._token = require_token(settings)
        self._policy = policy_from(settings, random.random)
        self._ledger = Ledger(redis_url, settings.ledger, timeout=LEDGER_TIMEOUT)
        self._redis_url = redis_url
        self._database_url = database_url
        self._opened = ExitStack()
        self._started = False
        self.fault: ConfigError | None = None  # why it ended by itself, if that was a fault
        self.shift: Shift

    def start(self) -> Self:
        """Check every dependency in turn, then begin; whatever fails is named and nothing stays open."""
        with ExitStack() as opened:
            opened.callback(self._ledger.close_connections)
            self._prepare_ledger()
            crew = self._build_crew(opened)
            self._ledger.sign_on(
                crew.post
            )  # last: a worker that can't start must not make the ledger its own
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
        """Finish what is on the wire, settle it, hand the rest back, close everything."""
        self._opened.close()
        if self._started:
            log.info("worker.stopped")

    def claim_no_more(self) -> None:
        self.shift.stopping = True

    def _run_shift(self) -> None:
        self.shift.run()

    def _prepare_ledger(self) -> None:
        self._ledger.ping()
        self._ledger.prepare(self._settings.dedupe_life)
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
        if settings.database_url is None:
            migrate(self._database_url)
        engine = open_engine(self._database_url)
        opened.callback(engine.dispose)
        require_head(engine)
        chain = str(uuid7())
        writer = AuditWriter(engine, writer=chain, environment=settings.environment)
        exchange = Exchange(
            settings.exchange_url,
            self._token,
            timeouts=Timeouts(
                connect=settings.connect_timeout, read=settings.read_timeout, total=settings.total_timeout
            ),
            connections=settings.concurrency,
        )
        opened.callback(exchange.close)
        writer.start()
        opened.callback(writer.stop, timedelta(seconds=10))
        stamp(engine, writer, settings.exchange_url)
        return Crew(
            name=f"{socket.gethostname()}/{os.getpid()}",
            writer=chain,
            ledger=self._ledger,
            audit=writer,
            engine=engine,
            exchange=exchange,
            policy=self._policy,
            hand=Hand(lease=settings.lease, work_bound=2 * settings.total_timeout + STUCK_AFTER),
            clock=LedgerClock(),
            lease=settings.lease,
            concurrency=settings.concurrency,
            dedupe_life=settings.dedupe_life,
            post=Post(
                exchange=settings.exchange_url,
                worker=chain,
                dry_run=settings.dry_run,
                alerts=settings.alert_url is not None,
            ),
            webhook=_webhook(settings, opened),
        )

    def _start_threads(self, crew: Crew, opened: ExitStack) -> None:
        """Stopped in the reverse order: no new claims, then settle what is in hand, renewing to the last."""
        alarm = Alarm(self._run_shift)
        settler = Settler(crew, alarm.after)
        self.shift = Shift(crew, settler)
        upkeep = Upkeep(crew, self.shift, alarm, end=self._end)
        upkeep.start()
        opened.callback(upkeep.stop)
        settler.start()
        opened.callback(settler.stop)
        opened.callback(self.shift.stop)
        alarm.start()
        opened.callback(alarm.stop)
        opened.callback(self.claim_no_more)  # or a busy shift that the alarm started would not end


def _webhook(settings: Settings, opened: ExitStack) -> Webhook | None:
    if settings.alert_url is None:
        return None
    webhook = Webhook(settings.alert_url)
    opened.callback(webhook.close)
    return webhook
