"""The duties that repeat: renew leases, sweep, register in SQL, and ring when parked work comes due."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import structlog

from worker.audit.facts import action_fact, job_fact, request_fact
from worker.clock import monotonic
from worker.errors import ConfigError, LedgerUnavailable
from worker.gaps import Gap, reached
from worker.ledger.client import Swept
from worker.work.alerts import deliver
from worker.work.crew import Crew
from worker.work.duty import SWEEP_EVERY, Alarm, Every
from worker.work.settle import committed
from worker.work.shift import Shift

log = structlog.get_logger()
# Five renewals fit into a lease, so four may fail before it lapses.
RENEWALS_PER_LEASE = 5
# The sweep function itself runs at most this often, however many processes call it.
SWEEP_INTERVAL = timedelta(milliseconds=200)
# A job is in SQL within 2 s of its enqueue; most are there sooner, by their first start row.
REGISTER_EVERY = timedelta(milliseconds=500)
REGISTER_AGE = timedelta(milliseconds=500)
REGISTER_BATCH = 500
# A Redis that was restarted or replaced gets its functions and the proof of its durability back.
TEND_EVERY = timedelta(seconds=5)
ALERTS_EVERY = timedelta(milliseconds=500)
# Due work that nobody claimed for so long means that bells do not reach us: start without one.
UNHEARD = timedelta(seconds=1)


class Upkeep:
    """All repeating duties of one worker process."""

    def __init__(
        self, crew: Crew, shift: Shift, alarm: Alarm, *, end: Callable[[ConfigError | None], None]
    ) -> None:
        """`end` is called, once or more, when this process has no business here any more, and why if it is a fault."""
        self._crew = crew
        self._end = end
        self._shift = shift
        self._alarm = alarm
        self._witnessed = (0, "")
        self._drained = False
        self._duties = (
            Every("renewal", crew.lease / RENEWALS_PER_LEASE, self.renew),
            Every("sweep", SWEEP_EVERY, self.sweep),
            Every("register", REGISTER_EVERY, self.register),
            Every("witness", SWEEP_EVERY, self.witness),
            Every("tend", TEND_EVERY, self.tend),
            Every("alerts", ALERTS_EVERY, lambda: deliver(crew, ending=lambda: self._shift.stopping)),
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
            reached(Gap.RENEWED)
            crew.hand.renewed(named, lost, asked_at)

    def witness(self) -> None:
        """The ledger keeps each chain's head, so that a cut tail of the audit can be seen."""
        head = self._crew.audit.head()
        if head != self._witnessed and head[0] > 0:
            reached(Gap.WITNESS_DUE)
            self._crew.ledger.witness(self._crew.writer, *head)
            self._witnessed = head

    def sweep(self) -> None:
        asked_at = monotonic()
        swept = self._crew.ledger.sweep(SWEEP_INTERVAL)
        reached(Gap.SWEPT)
        self._crew.clock.observe(swept.now, asked_at)
        self._crew.hand.paused = swept.paused
        if swept.drained and not self._drained:
            self._drained = True
            log.info("ledger.drained")
            self._end(None)
        if swept.lapsed:
            log.warning("sweep.lapsed", jobs=swept.lapsed)
        if self._shift.idle and _unheard(swept):
            log.warning("bell.unheard", due=swept.due)
            self._alarm.after(timedelta(0))

    def tend(self) -> None:
        """Redis may be another one by now: functions, proof of durability, and whose ledger it is."""
        self._crew.ledger.prepare(self._crew.dedupe_life)
        try:
            self._crew.ledger.sign_on(self._crew.post, at_work=True)
        except ConfigError as error:
            log.warning("ledger.not_ours", error=str(error))
            self._end(error)

    def register(self) -> None:
        """Every accepted job and joiner gets its row, also while nobody may claim it; every action too."""
        while self._register_some() == REGISTER_BATCH:
            pass
        crew = self._crew
        actions = [
            (action.id, [action_fact(action, ledger=crew.ledger.name)]) for action in crew.ledger.actions()
        ]
        recorded = committed(crew.audit, actions)
        if recorded:
            reached(Gap.ACTION_ON_DISK)
            crew.ledger.actions_recorded(recorded)

    def _register_some(self) -> int:
        crew = self._crew
        found = crew.ledger.unregistered(REGISTER_BATCH, REGISTER_AGE)
        work = [
            ((job.id, len(joiners)), [job_fact(job), *(request_fact(job.id, joiner) for joiner in joiners)])
            for job, joiners in found
        ]
        if work:
            reached(Gap.UNREGISTERED_READ)
        written = committed(crew.audit, work)
        if written:
            reached(Gap.REGISTERED_ON_DISK)
            crew.ledger.registered(written)
        return len(written)


def _unheard(swept: Swept) -> bool:
    """A bell lies in the queue and the work it rang for has been due for long (in a lock-out none is rung)."""
    return swept.bells > 0 and swept.oldest_due is not None and swept.now - swept.oldest_due > UNHEARD
