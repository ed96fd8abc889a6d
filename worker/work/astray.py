"""What reached the audit after the ledger had lost it: jobs, wishes, a pause. It goes back as a comparison puts it back."""

import threading
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from worker.audit.journal import Chunk, Journal
from worker.audit.open_jobs import OpenJob, open_jobs_among
from worker.audit.steering import last_steered
from worker.errors import LedgerUnavailable
from worker.job import JobId
from worker.ledger.restored import Restored

if TYPE_CHECKING:
    from worker.work.crew import Crew

log = structlog.get_logger()
AT_ONCE = timedelta(0)


class Astray:
    """The jobs of this process that the ledger did not know, or gave to another; no more than it ever held at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: set[JobId] = set()
        self._steered = False

    def note(self, jobs: Iterable[JobId], *, steered: bool = False) -> None:
        """`steered`: an action was recorded that the ledger does not know either."""
        with self._lock:
            self._jobs.update(jobs)
            self._steered = self._steered or steered

    def take(self) -> tuple[set[JobId], bool]:
        with self._lock:
            taken = self._jobs, self._steered
            self._jobs, self._steered = set(), False
            return taken


def bring_back_noted(crew: "Crew") -> None:
    """What cannot be looked at now is looked at later."""
    jobs, steered = crew.astray.take()
    try:
        bring_back(crew, jobs)
        if steered:
            steer_again(crew)
    except BaseException:
        crew.astray.note(jobs, steered=steered)
        raise


def bring_back_carried(crew: "Crew", journal: Journal, chunk: Chunk) -> None:
    """Before the journal forgets rows: whoever compared before they were there has not put back what they tell of."""
    bring_back(crew, journal.told_whole(chunk))
    if "actions" in chunk.rows:
        steer_again(crew)


def bring_back(crew: "Crew", jobs: Iterable[JobId]) -> None:
    """Put back those that the audit knows as open and of which the ledger knows less."""
    back = 0
    for page in open_jobs_among(crew.engine, crew.ledger.name, jobs):
        restored = crew.ledger.restore("", AT_ONCE, restored_of(crew, page))
        if restored is None:
            raise LedgerUnavailable(
                "the ledger's functions are of an older cancelq; a worker loads them anew"
            )
        back += restored
    if back:
        log.warning("ledger.brought_back", ledger=crew.ledger.name, jobs=back)


def restored_of(crew: "Crew", page: Sequence[OpenJob]) -> list[Restored]:
    """The answer to an attempt may still be on its way to a holder whose lease the ledger has forgotten."""
    return [
        Restored(job=found.job, joiners=found.joiners, delay=crew.lease if found.on_its_way else AT_ONCE)
        for found in page
    ]


def steer_again(crew: "Crew") -> None:
    """A pause, drain or resume that the ledger has forgotten is in force again."""
    told = last_steered(crew.engine, crew.ledger.name)
    if told is not None and crew.ledger.steer_again(told.at, told.paused_at, draining=told.draining):
        log.error(
            "ledger.steered_again",
            ledger=crew.ledger.name,
            paused=told.paused_at is not None,
            draining=told.draining,
            by=told.by,
            at=told.at.isoformat(),
        )
