"""Brings back what the journal kept, once the database answers again, and the writer with it. Decides nothing."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from worker.audit.carry import carry_all
from worker.audit.journal import Journal
from worker.audit.schema import require_head
from worker.audit.stamp import require_owner
from worker.gaps import Gap, reached
from worker.ledger.client import Ledger
from worker.work.astray import bring_back_carried
from worker.work.crew import Crew
from worker.work.recover import leftovers

# A database that takes longer over a transaction is as good as away: the cancels stay with the journal.
QUICK = timedelta(seconds=0.5)


class Carrier:
    """Asks again and again whether the database is back."""

    def __init__(self, crew: Crew, *, ending: Callable[[], bool]) -> None:
        self._crew = crew
        self._ending = ending
        if crew.journal is not None:
            crew.journal.on_arrival = partial(bring_back_carried, crew, crew.journal)
        self._after = ""  # the last of the carried jobs that were looked at

    def carry(self) -> None:
        """Carry over all that this host's journal keeps, whoever wrote it; AuditUnavailable while there is no database."""
        crew, journal = self._crew, self._crew.journal
        if journal is None:
            return
        journal.notice_loss()
        if not (journal.exists or journal.lost):
            return
        if crew.audit.journaling or journal.lost or journal.depth():
            self._take_turn(crew, journal)
        self._close(crew, journal)

    def _take_turn(self, crew: Crew, journal: Journal) -> None:
        with journal.carrying() as our_turn:
            if not our_turn:
                return
            require_head(crew.engine)
            require_owner(crew.engine, crew.post.exchange)
            if not journal.id:
                journal.confirm()
            carried = carry_all(journal, crew.engine, ending=self._ending)
            withdraw(journal, crew.ledger)
        if crew.audit.journaling and carried.slowest < QUICK:
            crew.audit.come_back()

    def _close(self, crew: Crew, journal: Journal) -> None:
        """Close what the carried attempts lack: whoever ended their jobs may have looked before the rows arrived.

        The jobs stand in the journal until that is done, so whoever carries next goes on with it.
        """
        jobs = journal.carried_jobs(after=self._after)
        self._after = jobs[-1] if jobs else ""
        if not jobs or journal.waiting():
            return
        with journal.carrying() as our_turn:
            if our_turn:
                facts, waiting = leftovers(crew, jobs)
                if facts:
                    reached(Gap.LEFT_OPEN)
                    crew.audit.commit(facts)
                journal.forget_jobs(set(jobs) - waiting)


def withdraw(journal: Journal, ledger: Ledger) -> None:
    """Chains of this host that have nothing in the journal any more: the ledger need not think otherwise."""
    marks = ledger.marks()
    if marks:
        journal.withdraw(marks, ledger.heads())
