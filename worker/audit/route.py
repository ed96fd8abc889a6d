"""Which way a batch goes: to the database or, while that is away, into the journal; one chain through both.

It turns away from the database after a short patience, and back only when all of its rows were carried over.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog
from sqlalchemy import Connection, Engine

from worker.audit.carry import carry_over
from worker.audit.chain import Head
from worker.audit.committer import Committer, InDoubtError, NotCommittedError, Settled
from worker.audit.engine import reading
from worker.audit.journal import Journal
from worker.audit.shapes import Entry
from worker.audit.transaction import Plan, Stored, Transaction, Written, fate_of
from worker.clock import monotonic
from worker.errors import CancelqError

# For how long a batch tries a database that refuses, or that broke off. One statement of a frozen one takes a second.
PATIENCE = timedelta(seconds=0.5)

log = structlog.get_logger(__name__)


class Route:
    """One writer's way to a disk, used by its thread alone; `journaling` and `held` may be read by others."""

    def __init__(self, engine: Engine, journal: Journal | None, *, writer: str, environment: str) -> None:
        self._engine = engine
        self._remotely = Transaction(engine.dialect, writer=writer, environment=environment)
        self._database = Committer(engine, self._remotely)
        self._journal = journal
        if journal is not None:
            dialect = journal.engine.dialect
            self._locally = Transaction(dialect, writer=writer, environment=environment)
        self._writer = writer
        self._doubt: Plan | None = None  # of the last COMMIT whose fate the database has not told yet
        self._kept_in = ""  # the journal that the newest rows went into
        self._first = 1  # row of this chain that went into a journal
        self._lost: Head | None = None  # the newest row that went with one
        self.head = Head()
        self.journaling = False
        self.held = False  # neither way is open

    def attempt(self, entries: Sequence[Entry], doubt: Plan | None, *, since: timedelta) -> Settled:
        """Commit `entries` this way or that; `doubt` is an earlier COMMIT of them. Raises as Committer does.

        `since` (monotonic): when they were first tried.
        """
        try:
            settled = self._attempt(entries, doubt, since)
        except (InDoubtError, NotCommittedError):
            self.held = self.journaling or not _early(since)
            raise
        self.head, self.held = settled.written.head, False
        return settled

    def turn_away(self) -> None:
        """The database is known to be away: begin with the journal."""
        self.journaling = self._journal is not None

    def come_back(self) -> None:
        """Carry over the last rows of this chain; once its newest one is there the database is used again."""
        if self._journal is None or not self.journaling:
            return
        try:
            self._count_lost(self._journal)
            if not self._journal.id:
                self._journal.confirm()
            with self._journal.carrying() as our_turn:
                if not our_turn:
                    return
                for _chunk in carry_over(self._journal, self._engine, self._writer):
                    pass
            with reading(self._engine) as connection:
                nowhere = self.head in {Head(), self._lost}
                arrived = nowhere or self._remotely.holds(connection, self.head)
        except CancelqError as error:
            log.warning("audit.not_back", reason=str(error))
            return
        except Exception:  # the writer's thread must not end of it
            log.exception("audit.not_back")
            return
        if arrived:
            self._database.go_on_from(self.head)
            self.journaling, self._kept_in = False, ""
            log.info("audit.back")

    def disconnect(self) -> None:
        self._database.disconnect()

    def _attempt(self, entries: Sequence[Entry], doubt: Plan | None, since: timedelta) -> Settled:
        if self.journaling:
            return Settled(self._store(entries))
        try:
            settled = self._database.attempt(entries, doubt)
        except InDoubtError as unknown:
            self._doubt = unknown.plan
            if _early(since):
                raise
            return self._instead(entries, unknown, None)
        except NotCommittedError as error:
            if _early(since):
                raise
            return self._instead(entries, error, doubt)
        self._doubt = None
        return settled

    def _instead(
        self, entries: Sequence[Entry], error: InDoubtError | NotCommittedError, asked: Plan | None
    ) -> Settled:
        """Into the journal: first what an earlier COMMIT may have stored, as it was, then what is new.

        What the COMMIT in doubt carried is `entries`, or what was `asked` for with them, or of callers that gave up.
        """
        if self._journal is None:
            raise error
        try:
            doubt = self._doubt
            if doubt is not None:
                adopted, self._doubt = self._adopt(doubt), None
                if doubt is asked or isinstance(error, InDoubtError):
                    return Settled(adopted, earlier=doubt is asked)
            return Settled(self._store(entries))
        except NotCommittedError as failure:
            if isinstance(error, InDoubtError):
                raise InDoubtError(error.plan, f"{error}; {failure}") from error
            raise NotCommittedError(f"{error}; {failure}") from error

    def _count_lost(self, journal: Journal) -> None:
        """What went with a journal is gone: the chain goes on behind it, and `verify` shows the hole."""
        journal.notice_loss()
        if self._kept_in not in {"", journal.id}:
            log.error("audit.rows_lost", writer=self._writer, first=self._first, last=self.head.seq)
            self._lost, self._kept_in, self._first = self.head, "", self.head.seq + 1

    def _store(self, entries: Sequence[Entry]) -> Written:
        head, locally = self.head, self._locally
        return self._stored(
            lambda connection: locally.plan(head, entries, locally.standing(connection, entries))
        ).written

    def _adopt(self, doubt: Plan) -> Written:
        """The rows as they were chained; their fates as this host's journal knows them besides."""
        fates: list[Stored] = []

        def made(connection: Connection) -> Plan:
            standing = self._locally.standing(connection, doubt.entries)
            fates.extend(
                fate if fate is not Stored.NEW else fate_of(entry, standing)
                for fate, entry in zip(doubt.written.fates, doubt.entries, strict=True)
            )
            return doubt

        head = self._stored(made).written.head
        return Written(tuple(fates), head)

    def _stored(self, make: Callable[[Connection], Plan]) -> Plan:
        assert self._journal is not None  # noqa: S101
        try:
            self._count_lost(self._journal)
            plan = self._journal.store(self._locally, self.head, make)
        except CancelqError as error:
            raise NotCommittedError(str(error)) from error
        self._kept_in = self._journal.id
        began, self.journaling = not self.journaling, True
        self._first = self.head.seq + 1 if began else self._first
        self.head = plan.written.head
        if began:
            log.warning("audit.journaling", journal=str(self._journal.path))
        return plan


def _early(since: timedelta) -> bool:
    """Whether a database that broke off may be back at once, as after one lost connection: then it knows best."""
    return monotonic() - since < PATIENCE
