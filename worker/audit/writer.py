"""Group commit: one thread gathers the facts that all others wait for and commits them in one transaction.

A caller returns only when its facts are on disk. Interprets no fact, and never changes a row.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta
from queue import Empty, SimpleQueue

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from worker.audit.chain import Head
from worker.audit.committer import InDoubtError, NotCommittedError, RacedError
from worker.audit.engine import address, is_busy, reason
from worker.audit.facts import Fact
from worker.audit.journal import Journal
from worker.audit.route import Route
from worker.audit.shapes import Entry, entry
from worker.audit.transaction import Plan, Stored, Written
from worker.clock import monotonic
from worker.errors import AuditUnavailable, FactRejected

__all__ = ["AuditWriter", "Stored"]

# A batch stays short enough to be committed in a few tens of milliseconds.
MOST_FACTS = 1000
# For how long facts that no POST waits for gather company. A commit costs more than the rows in it, and what comes
# first may not find the connection taken.
GATHERING = timedelta(milliseconds=4)
PATIENCE = timedelta(seconds=10)
# The database bounds each statement; a call whose transaction is under way may wait this much longer than it asked.
UNDER_WAY = timedelta(seconds=30)
# At the very end a transaction that is under way is waited for so long; then its fate is the database's.
LAST_WAIT = timedelta(seconds=1)
FIRST_PAUSE = timedelta(milliseconds=50)
LONGEST_PAUSE = timedelta(seconds=1)
# Losing this many races in a row for the same keys is no race any more.
MOST_RACES = 20

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Call:
    """One caller's facts: committed together or not at all."""

    entries: tuple[Entry, ...]
    deadline: timedelta
    urgent: bool = False
    answer: "Future[list[Stored]]" = field(default_factory=Future)


@dataclass(slots=True)
class _Batch:
    """Calls on their way to the disk, and what is not known of an earlier COMMIT of theirs."""

    calls: list[_Call]
    sent: list[_Call] = field(default_factory=list)  # whose facts the COMMIT in doubt carried
    doubt: Plan | None = None
    races: int = 0
    since: timedelta = field(default_factory=monotonic)

    def entries(self) -> list[Entry]:
        return [entry for call in self.calls for entry in call.entries]

    def drop_expired(self, message: str, *, until: timedelta) -> None:
        """Tell those whose time is up, be it all of theirs at `until`; the others go on."""
        now = monotonic()
        left = []
        for call in self.calls:
            if min(call.deadline, until) <= now:
                doubtful = "; the facts may have been stored" if self.doubt is not None else ""
                call.answer.set_exception(AuditUnavailable(message + doubtful))
            else:
                left.append(call)
        self.calls = left

    def answer(self, written: Written, *, earlier: bool) -> None:
        fates = iter(written.fates)
        for call in self.sent if earlier else self.calls:
            own = [next(fates) for _ in call.entries]
            if not call.answer.done():
                call.answer.set_result(own)


class AuditWriter:
    """The one thread of this process that writes facts; `writer` must be unique to the process.

    With a journal it goes on while the database is away; without one its callers wait.
    """

    def __init__(
        self, engine: Engine, *, writer: str, environment: str, journal: Journal | None = None
    ) -> None:
        self._address = address(engine)
        self._route = Route(engine, journal, writer=writer, environment=environment)
        self._journal = journal
        self._coming_back = threading.Event()
        self._waiting: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="audit-writer", daemon=True)
        self._closed = threading.Event()
        self._abandoned = threading.Event()
        self._until = timedelta.max  # (monotonic) after which nothing is tried any more

    def start(self, *, journaling: bool = False) -> None:
        """`journaling`: the database is known to be away, and this host's journal to be its own."""
        if journaling:
            self._route.turn_away()
        self._thread.start()

    def end_by(self, moment: timedelta) -> None:
        """Let every call, those that wait by now included, be over at that moment (monotonic)."""
        self._until = moment

    def stop(self, timeout: timedelta = PATIENCE) -> None:
        """Commit what is queued, then end; after `timeout` the rest fails with AuditUnavailable."""
        self._closed.set()
        self._waiting.put(None)
        self._thread.join(timeout.total_seconds())
        self._until = timedelta(0)
        self._abandoned.set()
        self._thread.join(LAST_WAIT.total_seconds())

    def head(self) -> Head:
        """(seq, digest) of the newest row that this writer has committed; (0, "") before the first."""
        return self._route.head

    @property
    def journaling(self) -> bool:
        """Whether the newest rows of this writer are in the journal."""
        return self._route.journaling

    @property
    def mark(self) -> str:
        """What the ledger keeps beside the head: in which journal the newest rows may be; "" for in none."""
        return self._journal.mark if self._journal is not None and self._route.journaling else ""

    @property
    def journal_depth(self) -> int:
        """How many rows of this host wait to be carried over.

        A journal that can't be read is as that of another host that is away: the database goes on without it.
        """
        if self._journal is None or not self._journal.exists:
            return 0
        try:
            return self._journal.waiting()
        except AuditUnavailable as error:
            if self.journaling or is_busy(error):
                raise
            log.error("journal.unreadable", reason=str(error))  # noqa: TRY400
            return 0

    @property
    def held(self) -> bool:
        """Whether rows can be stored nowhere, so that nothing is sent."""
        return self._route.held

    def come_back(self) -> None:
        """The database answers again: use it as soon as the rest of this chain is carried over. Waits for nothing."""
        self._coming_back.set()
        self._waiting.put(_Call((), monotonic() + PATIENCE, urgent=True))

    def submit(
        self, facts: Sequence[Fact], *, timeout: timedelta = PATIENCE, urgent: bool = False
    ) -> "Future[list[Stored]]":
        """Hand over facts without waiting; FactRejected is raised at once where the fault can be seen here.

        `urgent`: a POST waits for them, so they do not wait for company.
        """
        call = _Call(tuple(entry(fact) for fact in facts), monotonic() + timeout, urgent)
        if self._closed.is_set():
            raise AuditUnavailable("the audit writer is stopped")
        if call.entries:
            self._waiting.put(call)
        else:
            call.answer.set_result([])
        return call.answer

    def commit(self, facts: Sequence[Fact], *, timeout: timedelta = PATIENCE) -> list[Stored]:
        """Block until the facts are on disk, all in one transaction; one Stored per fact.

        AuditUnavailable: not committed within the bound. Only when it says "may have been stored" (the database
        vanished inside COMMIT and stayed away) is the fate open; repeating the same facts is safe, and tells.
        """
        return self.wait(self.submit(facts, timeout=timeout), timeout=timeout)

    def wait(self, answer: "Future[list[Stored]]", *, timeout: timedelta) -> list[Stored]:
        """Block until what `submit` took is on disk; raises as `commit` does."""
        try:
            return answer.result(self._at_most(timeout))
        except TimeoutError:
            if answer.cancel():
                raise AuditUnavailable(self._late("nothing was stored")) from None
        try:
            return answer.result(self._at_most(UNDER_WAY))
        except TimeoutError:
            raise AuditUnavailable(self._late("the facts may have been stored")) from None

    def _at_most(self, wait: timedelta) -> float:
        """Seconds to wait, no longer than this writer may live."""
        return max(min(wait, self._until - monotonic()), timedelta(0)).total_seconds()

    def _late(self, detail: str) -> str:
        return f"the database {self._address} did not commit in time: {detail}"

    def _run(self) -> None:
        try:
            while calls := self._gather():
                if self._coming_back.is_set():
                    self._coming_back.clear()
                    self._route.come_back()
                if any(call.entries for call in calls):
                    self._settle(_Batch(calls))
        finally:
            self._route.disconnect()

    def _gather(self) -> list[_Call]:
        """At least one call and all that come until an urgent one is met; empty when the writer was stopped."""
        calls: list[_Call] = []
        facts, hurry, until = 0, False, timedelta(0)
        while facts < MOST_FACTS:
            try:
                call = self._next(None if not calls else timedelta(0) if hurry else until - monotonic())
            except Empty:
                break
            if call is None:
                self._waiting.put(None)  # met again when nothing is left before it
                break
            if call.answer.set_running_or_notify_cancel():
                until = until if calls else monotonic() + GATHERING
                hurry = hurry or call.urgent
                calls.append(call)
                facts += len(call.entries)
        return calls

    def _next(self, bound: timedelta | None) -> _Call | None:
        """What waits by now or comes within `bound`, else Empty; None: whatever comes first."""
        if bound is None:
            return self._waiting.get()
        return self._waiting.get(block=bound > timedelta(0), timeout=max(bound, timedelta(0)).total_seconds())

    def _settle(self, batch: _Batch) -> None:
        """Bring every call to its answer; when the batch is refused, halve it until the guilty call stands alone."""
        try:
            self._commit(batch)
        except Exception as error:  # noqa: BLE001  # nothing that one call brings may end the thread
            calls = batch.calls
            if len(calls) == 1:
                calls[0].answer.set_exception(_rejection(calls[0], error))
                return
            middle = len(calls) // 2
            self._settle(_Batch(calls[:middle]))
            self._settle(_Batch(calls[middle:]))

    def _commit(self, batch: _Batch) -> None:
        """Try until the batch is committed or the time of its calls is up."""
        pause, trouble = FIRST_PAUSE, "it was not reached in time"
        while True:
            batch.drop_expired(self._late(trouble), until=self._until)
            if not batch.calls:
                return
            try:
                settled = self._route.attempt(batch.entries(), batch.doubt, since=batch.since)
            except RacedError as raced:
                _count_race(batch, raced)
                continue
            except InDoubtError as unknown:
                batch.doubt, batch.sent, trouble = unknown.plan, batch.calls, str(unknown)
            except NotCommittedError as error:
                trouble = str(error)
            else:
                batch.answer(settled.written, earlier=settled.earlier)
                return
            note = log.error if self._route.held else log.warning
            note("audit.unavailable", reason=trouble, calls=len(batch.calls))
            self._abandoned.wait(pause.total_seconds())
            pause = min(2 * pause, LONGEST_PAUSE)


def _count_race(batch: _Batch, raced: RacedError) -> None:
    batch.races += 1
    if batch.races > MOST_RACES:
        raise raced.__cause__ or raced


def _rejection(call: _Call, error: Exception) -> Exception:
    if isinstance(error, DBAPIError):
        tables = ", ".join(sorted({entry.table for entry in call.entries}))
        return FactRejected(f"{tables}: the database refuses the fact for good: {reason(error)}")
    return error
