"""The duties that repeat: renew leases, sweep, register in SQL, and ring when parked work comes due."""

import heapq
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import structlog

from worker.audit.facts import job_fact, request_fact
from worker.clock import monotonic
from worker.errors import CancelqError, LedgerUnavailable
from worker.ledger.client import Swept
from worker.work.crew import Crew
from worker.work.settle import committed
from worker.work.shift import Shift

log = structlog.get_logger()
# Five renewals fit into a lease, so four may fail before it lapses.
RENEWALS_PER_LEASE = 5
SWEEP_EVERY = timedelta(milliseconds=250)
# The sweep function itself runs at most this often, however many processes call it.
SWEEP_INTERVAL = timedelta(milliseconds=200)
# A job is in SQL within 2 s of its enqueue; most are there sooner, by their first start row.
REGISTER_EVERY = timedelta(milliseconds=500)
REGISTER_AGE = timedelta(milliseconds=500)
REGISTER_BATCH = 500
# A Redis that was restarted or replaced gets its functions and the proof of its durability back.
TEND_EVERY = timedelta(seconds=5)
# Due work that nobody claimed for so long means that bells do not reach us: start without one.
UNHEARD = timedelta(seconds=1)


class Every:
    """Runs `duty` in a thread of its own, each `interval`, whatever it raises."""

    def __init__(self, name: str, interval: timedelta, duty: Callable[[], None]) -> None:
        self._name = name
        self._interval = interval
        self._duty = duty
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval.total_seconds()):
            try:
                self._duty()
            except CancelqError as error:
                log.warning("duty.failed", duty=self._name, error=str(error))
            except Exception:
                log.exception("duty.broke", duty=self._name)


class Alarm:
    """Starts a shift when work that this process parked comes due; a bell would come a sweep later."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._changed = threading.Condition()
        self._times: list[timedelta] = []
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="alarm", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def after(self, delay: timedelta) -> None:
        """Ring once `delay` has passed; delays longer than a sweep are the sweep's business."""
        if delay > SWEEP_EVERY:
            return
        with self._changed:
            heapq.heappush(self._times, monotonic() + delay)
            self._changed.notify()

    def _run(self) -> None:
        while self._wait():
            self._ring()

    def _wait(self) -> bool:
        """Block until the earliest time has come and forget all that came with it; False at the end."""
        with self._changed:
            while not self._stopped:
                now = monotonic()
                if self._times and self._times[0] <= now:
                    while self._times and self._times[0] <= now:
                        heapq.heappop(self._times)
                    return True
                self._changed.wait((self._times[0] - now).total_seconds() if self._times else None)
            return False


class Upkeep:
    """All repeating duties of one worker process."""

    def __init__(self, crew: Crew, shift: Shift, alarm: Alarm) -> None:
        self._crew = crew
        self._shift = shift
        self._alarm = alarm
        self._witnessed = (0, "")
        self._duties = (
            Every("renewal", crew.lease / RENEWALS_PER_LEASE, self.renew),
            Every("sweep", SWEEP_EVERY, self.sweep),
            Every("register", REGISTER_EVERY, self.register),
            Every("witness", SWEEP_EVERY, self.witness),
            Every("tend", TEND_EVERY, lambda: crew.ledger.prepare(crew.dedupe_life)),
        )

    def start(self) -> None:
        for duty in self._duties:
            duty.start()

    def stop(self) -> None:
        """Renewal ends last of all: what is still in hand stays ours until it is settled."""
        for duty in reversed(self._duties):
            duty.stop()
        with suppress(LedgerUnavailable):
            self.witness()

    def renew(self) -> None:
        crew = self._crew
        named = crew.hand.renewable()
        if named:
            asked_at = monotonic()
            lost = crew.ledger.renew(crew.lease, named)
            crew.hand.renewed(named, lost, asked_at)

    def witness(self) -> None:
        """The ledger keeps each chain's head, so that a cut tail of the audit can be seen."""
        head = self._crew.audit.head()
        if head != self._witnessed and head[0] > 0:
            self._crew.ledger.witness(self._crew.writer, *head)
            self._witnessed = head

    def sweep(self) -> None:
        asked_at = monotonic()
        swept = self._crew.ledger.sweep(SWEEP_INTERVAL)
        self._crew.clock.observe(swept.now, asked_at)
        if swept.lapsed:
            log.warning("sweep.lapsed", jobs=swept.lapsed)
        if self._shift.idle and _unheard(swept):
            log.warning("bell.unheard", due=swept.due)
            self._alarm.after(timedelta(0))

    def register(self) -> None:
        """Every accepted job and joiner gets its row, also while nobody may claim it."""
        while self._register_some() == REGISTER_BATCH:
            pass

    def _register_some(self) -> int:
        crew = self._crew
        found = crew.ledger.unregistered(REGISTER_BATCH, REGISTER_AGE)
        work = [
            ((job.id, len(joiners)), [job_fact(job), *(request_fact(job.id, joiner) for joiner in joiners)])
            for job, joiners in found
        ]
        written = committed(crew.audit, work)
        if written:
            crew.ledger.registered(written)
        return len(written)


def _unheard(swept: Swept) -> bool:
    """A bell lies in the queue and the work it rang for has been due for long (in a lock-out none is rung)."""
    return swept.bells > 0 and swept.oldest_due is not None and swept.now - swept.oldest_due > UNHEARD
