"""Everything on one machine: database, Valkey, worker and Flower, kept up until a request to end."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from queue import SimpleQueue

import structlog

from worker.app.ending import Ending, go_on, interrupt
from worker.app.parts import ChildPart, ValkeyPart
from worker.app.supervise import Supervisor
from worker.audit import engine as audit_engine
from worker.audit.migrating import migrate
from worker.embedded.child import STOP_BOUND
from worker.errors import LedgerUnavailable
from worker.ledger import connection as ledger_connection
from worker.ledger.client import Ledger
from worker.settings import Settings

log = structlog.get_logger()
WRONG_CONFIGURATION = 2
REDIS_URL = "CANCELQ_REDIS_URL"
LEDGER_PATIENCE = timedelta(seconds=1)
# What a worker may need after its last request: to settle it, two commits, and its threads.
AFTER_LAST_REQUEST = timedelta(seconds=7)
# Flower keeps nothing that a SIGKILL could spoil.
FLOWER_STOP_BOUND = timedelta(seconds=3)


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for: the worker's sender threads, and where Flower listens (None: no Flower)."""

    concurrency: int | None = None
    flower: socket.socket | None = None


def up(settings: Settings, wish: Wish, ending: Ending) -> int:
    """Run until SIGTERM or SIGINT, until the ledger is drained, or the worker refuses its configuration; the exit code.

    Ended in the reverse order of the start: the worker first, Valkey last.
    """
    exits: SimpleQueue[int] = SimpleQueue()  # unlike an Event, a signal handler may put to it at any time

    def is_over(code: int) -> bool:
        final = code == WRONG_CONFIGURATION or (code == 0 and _is_drained(settings, found))
        if final:
            exits.put(code)
        return final

    ending.means(interrupt)
    migrate(audit_engine.audit_url(settings))
    with ExitStack() as running:
        found = _start_redis(settings, running)
        ending.means(lambda: exits.put(0))
        if wish.flower is not None:
            _keep_up(Supervisor(_flower(wish.flower, found)), running)
        _keep_up(Supervisor(_worker(settings, wish.concurrency, found), is_over), running)
        code = exits.get()
        ending.means(go_on)
        log.info("up.ending", exit=code)
    return code


def places(settings: Settings) -> Iterator[str]:
    """What this will work with, a line each, without any password."""
    if settings.is_live:
        yield f"LIVE: {settings.exchange_url} trades with real money"
    else:
        yield f"exchange  {settings.exchange_url} (not live)"
    if settings.dry_run:
        yield "DRY RUN   CANCELQ_DRY_RUN is on: nothing is POSTed"
    if settings.redis_url is None:
        yield f"Redis     embedded Valkey in {settings.home / 'valkey'}"
    else:
        yield f"Redis     {ledger_connection.address(settings.redis_url.get_secret_value())}"
    yield f"database  {audit_engine.address(audit_engine.open_engine(audit_engine.audit_url(settings)))}"


def _start_redis(settings: Settings, running: ExitStack) -> Mapping[str, str]:
    """Start the embedded Valkey, if it is that one; what the children must be told to find it."""
    if settings.redis_url is not None:
        return {}  # they read the same configuration
    valkey = ValkeyPart(settings.home)
    _keep_up(Supervisor(valkey), running)
    # By its address they use it only; by CANCELQ_HOME they would share it, and inherit it when it dies.
    return {REDIS_URL: valkey.url}


def _is_drained(settings: Settings, found: Mapping[str, str]) -> bool:
    """Whether a worker that ended by itself had nothing left to do, and never will until somebody says resume."""
    url = found.get(REDIS_URL) or (settings.redis_url.get_secret_value() if settings.redis_url else "")
    try:
        with Ledger(url, settings.ledger, timeout=LEDGER_PATIENCE) as ledger:
            survey = ledger.survey()
    except LedgerUnavailable:
        return False
    return survey.draining and survey.open == 0


def _worker(settings: Settings, concurrency: int | None, found: Mapping[str, str]) -> ChildPart:
    arguments = ["worker"] if concurrency is None else ["worker", "--concurrency", str(concurrency)]
    bound = max(STOP_BOUND, settings.total_timeout + AFTER_LAST_REQUEST)
    return ChildPart("worker", arguments, environment=found, stop_bound=bound)


def _flower(listener: socket.socket, found: Mapping[str, str]) -> ChildPart:
    """It gets the open socket, not a port: while it is started again nobody else can take its place."""
    return ChildPart(
        "flower",
        ["flower", "--listener", str(listener.fileno())],
        environment=found,
        stop_bound=FLOWER_STOP_BOUND,
        pass_fds=[listener.fileno()],
    )


def _keep_up(supervisor: Supervisor, running: ExitStack) -> None:
    supervisor.start()
    running.callback(supervisor.stop)
