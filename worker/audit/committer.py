"""Commits one batch at a time, exactly once, on one connection: the chain's head, and a COMMIT without an answer.

Knows no callers and no queue; every failure is one of three: it did not happen, nobody knows yet, look again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from worker.audit.chain import Head
from worker.audit.engine import reason
from worker.audit.shapes import Entry
from worker.audit.transaction import Plan, Transaction, Written
from worker.gaps import Gap, reached

UNIQUE_VIOLATION = "23505"  # SQLSTATE
# How SQLite says it: its own words, and our trigger's.
SQLITE_VIOLATIONS = ("UNIQUE constraint failed", "append-only")


class NotCommittedError(Exception):
    """The transaction certainly did not happen; the database is to blame, not the facts."""


class InDoubtError(Exception):
    """COMMIT was sent, its answer never came; `plan` is what it would have stored."""

    def __init__(self, plan: Plan, error: str) -> None:
        super().__init__(error)
        self.plan = plan


class RacedError(Exception):
    """One of the rows stands there by now; the next attempt looks first, and will see it."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A committed batch; `earlier` says that the batch in doubt turned out to be on disk, and nothing was done."""

    written: Written
    earlier: bool = False


class Committer:
    """One writer's only connection, and the head of its chain."""

    def __init__(self, engine: Engine, transaction: Transaction) -> None:
        self._engine = engine
        self._transaction = transaction
        self._commits_itself = engine.dialect.name == "postgresql"  # its one INSERT is the whole transaction
        self._connection: Connection | None = None
        self._head: Head | None = None  # None: the database knows better
        self._looks = not self._commits_itself  # first, instead of finding out by the INSERT
        self.committed = Head()

    def attempt(self, entries: Sequence[Entry], doubt: Plan | None) -> Settled:
        """Commit `entries` in one transaction, unless `doubt` (an earlier COMMIT of them) is found on disk."""
        try:
            plan = self._plan(entries, doubt)
            if plan is not None and not self._commits_itself:
                self._transaction.insert(self._on_line(), plan.rows)
        except (IntegrityError, DataError) as error:
            self._refuse(error)
        except SQLAlchemyError as error:
            self.disconnect()
            raise NotCommittedError(reason(error)) from error
        except Exception:
            self.disconnect()
            raise
        return self._commit(plan, doubt)

    def go_on_from(self, head: Head) -> None:
        """The chain grew elsewhere up to here meanwhile, and all of it is in the database."""
        self.disconnect()
        self.committed = head

    def disconnect(self) -> None:
        """Forget the connection and what we believe of the chain; the next attempt asks the database."""
        self._head = None
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.invalidate()
            connection.close()
        except SQLAlchemyError:
            return  # it is gone already

    def _on_line(self) -> Connection:
        if self._connection is None:
            connection = self._engine.connect()
            if self._commits_itself:
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            self._connection = connection
        return self._connection

    def _plan(self, entries: Sequence[Entry], doubt: Plan | None) -> Plan | None:
        """What to insert; None when the batch in doubt turns out to be on disk."""
        connection = self._on_line()
        connection.begin()
        if doubt is not None and self._transaction.holds(connection, doubt.written.head):
            return None
        if self._head is None:
            # A restored copy may be behind: the chain goes on from what was committed, and the hole shows.
            self._head = max(self._transaction.head(connection), self.committed)
        looks = self._looks or doubt is not None
        standing = self._transaction.standing(connection, entries) if looks else ()
        return self._transaction.plan(self._head, entries, standing)

    def _commit(self, plan: Plan | None, doubt: Plan | None) -> Settled:
        """The chain moves on only when the database has answered."""
        settled = plan or doubt
        assert settled is not None  # noqa: S101
        reached(Gap.BATCH_DUE)
        free = True
        try:
            if plan is not None and self._commits_itself:
                free = self._transaction.insert_if_free(self._on_line(), plan.rows)
            self._on_line().commit()
        except (IntegrityError, DataError) as error:
            self._refuse(error)
        except Exception as error:  # whatever it is: the database may have heard us
            self.disconnect()
            raise InDoubtError(settled, reason(error)) from error
        self._looks = not self._commits_itself or not free
        if not free:
            raise RacedError
        reached(Gap.BATCH_ON_DISK)
        self._head = self.committed = settled.written.head
        return Settled(settled.written, earlier=plan is None)

    def _refuse(self, error: IntegrityError | DataError) -> NoReturn:
        """The database said no, so nothing is stored: for now, when another writer was quicker, or for good."""
        self._roll_back()
        self._looks = True
        if _is_race(error):
            raise RacedError from error
        raise error

    def _roll_back(self) -> None:
        self._head = None
        try:
            if self._connection is not None:
                self._connection.rollback()
        except SQLAlchemyError:
            self.disconnect()


def _is_race(error: IntegrityError | DataError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    said = str(error.orig)
    return state == UNIQUE_VIOLATION or any(words in said for words in SQLITE_VIOLATIONS)
