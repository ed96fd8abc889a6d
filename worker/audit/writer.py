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
from worker.audit.committer import Committer, InDoubtError, NotCommittedError, RacedError
from worker.audit.engine import address, reason
from worker.audit.facts import Fact
from worker.audit.shapes import Entry, entry
from worker.audit.transaction import Stored, Transaction, Written
from worker.clock import monotonic
from worker.errors import AuditUnavailable, FactRejected

__all__ = ["AuditWriter", "Stored"]

# A batch stays short enough to be committed in a few tens of milliseconds.
MOST_FACTS = 1000
PATIENCE = timedelta(seconds=10)
# The database bounds each statement; a call whose transaction is under way may wait this much longer than it asked.
UNDER_WAY = timedelta(seconds=30)
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
    answer: "Future[list[Stored]]" = field(default_factory=Future)


@dataclass(slots=True)
class _Batch:
    """Calls on their way to the disk, and what is not known of an earlier COMMIT of theirs."""

    calls: list[_Call]
    sent: list[_Call] = field(default_factory=list)  # whose facts the COMMIT in doubt carried
    doubt: Written | None = None
    races: int = 0

    def entries(self) -> list[Entry]:
        return [entry for call in self.calls for entry in call.entries]

    def drop_expired(self, message: str, *, all_of_them: bool) -> None:
        """Tell those whose time is up; the others go on."""
        now = monotonic()
        left = []
        for call in self.calls:
            if all_of_them or call.deadline <= now:
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
    """The one thread of this process that writes facts; `writer` must be unique to the process."""

    def __init__(self, engine: Engine, *, writer: str, environment: str) -> None:
        self._address = address(engine)
        transaction = Transaction(engine.dialect, writer=writer, environment=environment)
        self._committer = Committer(engine, transaction)
        self._waiting: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="audit-writer", daemon=True)
        self._closed = threading.Event()
        self._abandoned = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: timedelta = PATIENCE) -> None:
        """Commit what is queued, then end; after `timeout` the rest fails with AuditUnavailable."""
        self._closed.set()
        self._waiting.put(None)
        self._thread.join(timeout.total_seconds())
        self._abandoned.set()
        self._thread.join(UNDER_WAY.total_seconds())

    def head(self) -> Head:
        """(seq, digest) of the newest row that this writer has committed; (0, "") before the first."""
        return self._committer.committed

    def submit(self, facts: Sequence[Fact], *, timeout: timedelta = PATIENCE) -> "Future[list[Stored]]":
        """Hand over facts without waiting; FactRejected is raised at once where the fault can be seen here."""
        call = _Call(tuple(entry(fact) for fact in facts), monotonic() + timeout)
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
        answer = self.submit(facts, timeout=timeout)
        try:
            return answer.result(timeout.total_seconds())
        except TimeoutError:
            if answer.cancel():
                raise AuditUnavailable(self._late("nothing was stored")) from None
        try:
            return answer.result(UNDER_WAY.total_seconds())
        except TimeoutError:
            raise AuditUnavailable(self._late("the facts may have been stored")) from None

    def _late(self, detail: str) -> str:
        return f"the database {self._address} did not commit in time: {detail}"

    def _run(self) -> None:
        try:
            while calls := self._gather():
                self._settle(_Batch(calls))
        finally:
            self._committer.disconnect()

    def _gather(self) -> list[_Call]:
        """Everything that waits by now, at least one call; empty when the writer was stopped."""
        calls: list[_Call] = []
        facts = 0
        while facts < MOST_FACTS:
            try:
                call = self._waiting.get(block=not calls)
            except Empty:
                break
            if call is None:
                self._waiting.put(None)  # met again when nothing is left before it
                break
            if call.answer.set_running_or_notify_cancel():
                calls.append(call)
                facts += len(call.entries)
        return calls

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
            batch.drop_expired(self._late(trouble), all_of_them=self._abandoned.is_set())
            if not batch.calls:
                return
            try:
                settled = self._committer.attempt(batch.entries(), batch.doubt)
            except RacedError as raced:
                _count_race(batch, raced)
                continue
            except InDoubtError as unknown:
                batch.doubt, batch.sent, trouble = unknown.written, batch.calls, str(unknown)
            except NotCommittedError as error:
                trouble = str(error)
            else:
                batch.answer(settled.written, earlier=settled.earlier)
                return
            log.warning("audit.unavailable", reason=trouble, calls=len(batch.calls))
            self._abandoned.wait(pause.total_seconds())
            pause = min(2 * pause, LONGEST_PAUSE)


def _count_race(batch: _Batch, raced: RacedError) -> None:
    batch.races += 1
    if batch.races > MOST_RACES and raced.__cause__ is not None:
        raise raced.__cause__


def _rejection(call: _Call, error: Exception) -> Exception:
    if isinstance(error, DBAPIError):
        tables = ", ".join(sorted({entry.table for entry in call.entries}))
        return FactRejected(f"{tables}: the database refuses the fact for good: {reason(error)}")
    return error
