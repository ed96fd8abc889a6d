"""The duties that repeat: renew leases, sweep, register in SQL, seal, and ring when parked work comes due."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import structlog

from worker.audit.facts import action_fact, job_fact, request_fact
from worker.clock import monotonic
from worker.errors import ConfigError, LedgerUnavailable
from worker.gaps import Gap, reached
from worker.ledger.words import Swept
from worker.work.alerts import deliver
from worker.work.astray import bring_back_noted
from worker.work.carry import Carrier
from worker.work.compare import compare
from worker.work.crew import Crew
from worker.work.duty import SWEEP_EVERY, SWEEP_INTERVAL, Alarm, Every
from worker.work.keeper import KEEP_EVERY
from worker.work.seal import LOOK_EVERY
from worker.work.settle import committed
from worker.work.shift import Shift

log = structlog.get_logger()
# Five renewals fit into a lease, so four may fail before it lapses.
RENEWALS_PER_LEASE = 5
# A job is in SQL within 2 s of its enqueue; most are there sooner, by their first start row.
REGISTER_EVERY = timedelta(milliseconds=500)
REGISTER_AGE = timedelta(milliseconds=500)
REGISTER_BATCH = 500
# A Redis that was restarted or replaced gets its functions and the proof of its durability back.
TEND_EVERY = timedelta(seconds=5)
ALERTS_EVERY = timedelta(milliseconds=500)
# Whether the database is back is asked so often, by one worker of a host at a time.
CARRY_EVERY = timedelta(seconds=1)
# The ledger cuts off what lies beyond; the same number stands in its functions.
BELL_STORM = 1000
NOBODY_TOLD: tuple[tuple[int, str], str] = ((0, ""), "")
# Due work that nobody claimed for so long means that bells do not reach us: start without one.
UNHEARD = timedelta(milliseconds=500)


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
        self._witnessed = NOBODY_TOLD
        self._drained = False
        self._uncompared = False
        self._stranger = False  # not tended since it came back
        self._renewal = Every("renewal", crew.lease / RENEWALS_PER_LEASE, self.renew)
        self._sweeping = Every("sweep", SWEEP_EVERY, self.sweep)
        self._duties = (
            self._renewal,
            self._sweeping,
            Every("register", REGISTER_EVERY, self.register),
            Every("witness", SWEEP_EVERY, self.witness),
            Every("tend", TEND_EVERY, self.tend),
            Every("carry", CARRY_EVERY, Carrier(crew, ending=lambda: self._shift.stopping).carry),
            *(Every(f"token {keeper.login}", KEEP_EVERY, keeper.keep) for keeper in crew.keepers),
            Every("compare", SWEEP_EVERY, self.compare),
            *(Every("seal", LOOK_EVERY, sealing.look) for sealing in [crew.sealing] if sealing is not None),
            Every("alerts", ALERTS_EVERY, lambda: deliver(crew, ending=lambda: self._shift.stopping)),
        )

    def start(self) -> None:
        for duty in self._duties:
            duty.start()

    def stop(self, left: Callable[[], timedelta]) -> None:
        """Renewal ends last of all: what is still in hand stays ours until it is settled. `left` bounds each wait."""
        for duty in reversed(self._duties):
            duty.stop(left())
        with suppress(LedgerUnavailable):
            self.witness()

    def beats(self) -> dict[str, timedelta]:
        """When the duties without which no cancel is safe last began, by their names (monotonic)."""
        return {"renewal": self._renewal.began_at, "sweep": self._sweeping.began_at}

    def renew(self) -> None:
        crew = self._crew
        named = crew.hand.renewable()
        if named:
            asked_at = monotonic()
            lost = crew.ledger.renew(crew.lease, named)
            reached(Gap.RENEWED)
            crew.hand.renewed(named, lost, asked_at)
            crew.astray.note(lost)

    def witness(self) -> None:
        """The ledger keeps each chain's head, so that a cut tail of the audit can be seen."""
        audit = self._crew.audit
        head, mark = told = audit.head(), audit.mark
        if told != self._witnessed and head.seq > 0:
            reached(Gap.WITNESS_DUE)
            self._crew.ledger.witness(self._crew.writer, *head, mark)
            self._witnessed = told

    def sweep(self) -> None:
        asked_at = monotonic()
        try:
            swept = self._crew.ledger.sweep(SWEEP_INTERVAL)
        except LedgerUnavailable:
            self._stranger = self._uncompared = True  # it may come back as another, and without its functions
            raise
        reached(Gap.SWEPT)
        self._crew.tell(swept)
        self._crew.clock.observe(swept.now, asked_at)
        self._crew.hand.on_hold = swept.held
        self._crew.governor.hear(swept)
        self._crew.governor.tell()
        self._stranger = self._stranger or (swept.uncompared and not self._uncompared)
        self._uncompared = swept.uncompared
        if swept.drained and not self._drained:
            self._drained = True
            log.info("ledger.drained")
            self._end(None)
        if swept.lapsed:
            log.warning("sweep.lapsed", jobs=swept.lapsed)
        if swept.bells > BELL_STORM:
            log.warning("bell.storm", bells=swept.bells)
        if self._shift.idle and _unheard(swept):
            log.warning("bell.unheard", due=swept.due)
            self._alarm.after(timedelta(0))

    def tend(self) -> None:
        """Redis may be another one by now: functions, proof of durability, and whose ledger it is."""
        self._crew.ledger.prepare(self._crew.rules)
        try:
            self._crew.ledger.sign_on(self._crew.post, at_work=True)
        except ConfigError as error:
            log.warning("ledger.not_ours", error=str(error))
            self._end(error)

    def compare(self) -> None:
        """Redis is another one, or was emptied: nothing is POSTed until what it lost is back."""
        if self._stranger:
            self.tend()
            self._stranger = False
            self._witnessed = NOBODY_TOLD  # in which journal our rows may be, too
        if self._uncompared:
            compare(self._crew, ending=lambda: self._shift.stopping)
        bring_back_noted(self._crew)

    def register(self) -> None:
        """Every accepted job and joiner gets its row, also while nobody may claim it; every action too."""
        while self._register_some() == REGISTER_BATCH and not self._shift.stopping:
            pass
        crew = self._crew
        actions = [
            (action.id, [action_fact(action, ledger=crew.ledger.name)]) for action in crew.ledger.actions()
        ]
        recorded = committed(crew.audit, actions)
        if recorded:
            reached(Gap.ACTION_ON_DISK)
            known = crew.ledger.actions_recorded(recorded)
            crew.astray.note((), steered=known < len(recorded))

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
            # Asked only now: rows that went to the journal are in the database once it is not used any more.
            crew.astray.note(crew.ledger.registered(written, shared=not crew.audit.journaling))
        return len(written)


def _unheard(swept: Swept) -> bool:
    """A bell lies in the queue and the work it rang for has been due for long (what waits for a hold or a budget is not)."""
    return swept.bells > 0 and swept.oldest_due is not None and swept.now - swept.oldest_due > UNHEARD
