"""Runs one Celery worker process around a WorkerProcess, from the first check to the last commit."""

import ctypes
import gc
import threading
import warnings
from typing import Any

import structlog
from celery.apps.worker import Worker
from celery.platforms import SecurityWarning
from celery.worker import state

from worker.app.doorbell import BELL_THREADS, celery_app
from worker.app.ending import Ending, go_on
from worker.app.presence import presence
from worker.app.process import WorkerProcess
from worker.audit.engine import audit_url
from worker.settings import Settings

log = structlog.get_logger()
M_ARENA_MAX = -8  # of malloc.h


class BellWorker(Worker):  # type: ignore[misc]
    """Celery's worker without its signal handlers: a second Ctrl-C, SIGHUP or SIGQUIT would drop what is on the wire."""

    def install_platform_tweaks(self, _worker: Any) -> None:
        """The process has its own `Ending`."""


def serve(settings: Settings, redis_url: str, ending: Ending) -> int:
    """Work until SIGTERM or SIGINT; the exit code of the process."""
    _share_arenas()
    process = WorkerProcess(settings, redis_url=redis_url, database_url=audit_url(settings))
    try:
        process.start()
        ending.means(process.claim_no_more)
        _collect_rarely()  # once nothing is raised any more: in a collector's callback that would be printed and lost
        celery_worker = _celery_worker(settings, redis_url, process)
        ending.means(lambda: _stop(process))
        with presence(celery_worker.app, process.watchers.news):  # it tells the last ends too
            try:
                celery_worker.start()
            finally:
                ending.means(go_on)
                process.stop()
        log.info("worker.celery_ended", exitcode=celery_worker.exitcode, threads=threading.active_count())
        if process.fault is not None:
            raise process.fault
        return int(celery_worker.exitcode or 0)
    finally:
        ending.means(go_on)
        process.stop()


def _share_arenas() -> None:
    """Where the C library can: each arena keeps what it once needed, and eighty threads would have sixteen of them."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 2)


def _collect_rarely() -> None:
    """What the program consists of stays for good, and a cancel leaves no cycles: looking for some took 8 % of the CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _stop(process: WorkerProcess) -> None:
    """Claim nothing more; Celery's loop looks at its flag at least once a second."""
    process.claim_no_more()
    state.should_stop = 0


def _celery_worker(settings: Settings, redis_url: str, process: WorkerProcess) -> BellWorker:
    # Said by Celery to a worker that runs as root in a container; ours runs no code from messages.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    return BellWorker(
        app=celery_app(redis_url, settings.ledger, process.shift.run, process.shift.leave_word),
        pool="threads",
        concurrency=BELL_THREADS,
        loglevel="WARNING",
        without_gossip=True,  # no leader, no chatter: the ledger is all that workers share
        without_mingle=True,
        without_heartbeat=True,  # see presence.py
        quiet=True,
    )
