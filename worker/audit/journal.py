"""The journal of this host: audit rows on its own disk while the database is away, each as it will be carried over.

Its tables are the audit's, without their unique keys: a row that was chained once goes in as it is, and whether its
key is taken is asked when it is carried over. Never reads the database.
"""

import fcntl
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Self
from uuid import uuid4

import structlog
from sqlalchemy import URL, Connection, Index, MetaData, UniqueConstraint, event

from worker.audit.cells import CHAINED, rows
from worker.audit.chain import Head
from worker.audit.conflicts import AT_ONCE, CONFLICTS
from worker.audit.engine import answering, open_engine, reading
from worker.audit.shapes import SHAPES
from worker.audit.transaction import Plan, Row, Transaction
from worker.errors import AuditUnavailable
from worker.gaps import Gap, reached
from worker.job import JobId
from worker.settings import Settings

# A commit of another worker of this host takes milliseconds, and a word to the ledger at most a second.
BOUND = timedelta(seconds=2)
# A cancel of seven rows takes 2.9 KB: more than 150,000 of them, far beyond what an outage should last, and no disk is filled by it.
MOST_BYTES = 512 * 1024 * 1024
PAGE = 4096
# Rows that move in one transaction.
CHUNK = 1000
# What a job's part in the ledger follows from.
TELLING = ("jobs", "requests", "starts", "replies", "outcomes")
# Jobs whose attempts are looked at and closed at once.
LOOKED_AT = 500
# The jobs that were carried over, and of which nobody has looked at the attempts since: their rows are here no more.
CARRIED_JOBS = "CREATE TABLE IF NOT EXISTS carried_jobs (job_id TEXT PRIMARY KEY) WITHOUT ROWID"
OWN_TABLES = (
    "CREATE TABLE IF NOT EXISTS chains (writer TEXT PRIMARY KEY, seq INTEGER, digest TEXT, held INTEGER)",
    "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT)",
    CARRIED_JOBS,
)

log = structlog.get_logger(__name__)
# Tells the ledger of a chain's newest row (writer, seq, digest), and the journal's mark or "".
Tell = Callable[[str, int, str, str], None]


class Mark(NamedTuple):
    """What the ledger knows of a chain that goes on in a journal: in which one, where, and from which row on."""

    journal: str
    host: str
    seq: int

    def __str__(self) -> str:
        return f"{self.journal} {self.host} {self.seq}"

    @classmethod
    def parse(cls, text: str) -> "Mark":
        journal, host, seq = text.split(" ")
        return cls(journal, host, int(seq))


@dataclass(frozen=True, slots=True)
class Chunk:
    """The oldest rows of one chain, by table."""

    writer: str
    rows: Mapping[str, Sequence[Row]]

    @property
    def size(self) -> int:
        return sum(map(len, self.rows.values()))

    @property
    def jobs(self) -> set[str]:
        """Whose attempts or ends are among them."""
        return {str(row[CHAINED]) for table in ("starts", "outcomes") for row in self.rows.get(table, ())}

    @property
    def subjects(self) -> set[JobId]:
        """Whatever jobs its rows tell of."""
        return {JobId(str(row[CHAINED])) for table in TELLING for row in self.rows.get(table, ())}

    @property
    def last(self) -> int:
        return max(int(str(row[1])) for some in self.rows.values() for row in some)


class Journal:
    """One file a ledger and exchange, shared by all workers of a host through CANCELQ_HOME."""

    def __init__(self, home: Path, ledger: str, exchange: str, tell: Tell) -> None:
        name = f"{ledger}-{sha256(exchange.encode()).hexdigest()[:8]}"
        self.path = (home / "journal" / f"{name}.sqlite3").absolute()
        self.host = socket.gethostname()
        self.id = ""  # until it was prepared or opened
        self.mark = ""  # what the ledger was told last
        self.on_arrival: Callable[[Chunk], None] = lambda _chunk: None
        self.engine = open_engine(
            URL.create("sqlite", database=str(self.path)).render_as_string(), statement_bound=BOUND
        )
        event.listen(self.engine, "connect", _cap)
        self._tell = tell
        self._lock = self.path.with_suffix(".lock")
        self._file: tuple[int, int] | None = None  # in use
        self.lost: set[str] = set()  # ids of journals that vanished from this path while they were in use
        self._looking = threading.Lock()
        self._carried: dict[
            str, int
        ] = {}  # by chain, the newest row that is in the database and could not go

    @property
    def exists(self) -> bool:
        return self.path.exists()

    def prepare(self) -> None:
        """Make file and tables, if they are not there; AuditUnavailable if that cannot be."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._writing() as connection:
                for statement in OWN_TABLES:
                    connection.exec_driver_sql(statement)
                _tables().create_all(connection)
                connection.exec_driver_sql("INSERT OR IGNORE INTO about VALUES ('id', ?)", (uuid4().hex,))
        except OSError as error:
            raise AuditUnavailable(f"the journal {self.path} cannot be made: {error.strerror}") from error
        self.opened()

    def opened(self) -> Self:
        """Learn the id of a journal that is there."""
        with reading(self.engine) as connection:
            self.id = str(_about(connection, "id"))
            self._file = _which(self.path)
        return self

    def trouble(self) -> str:
        """Why its rows cannot be read, "" if they can: looks at each page of the file."""
        try:
            self.opened()
            with reading(self.engine) as connection:
                found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
        except AuditUnavailable as error:
            return str(error)
        return "" if found == "ok" else found.replace("\n", " ")

    def notice_loss(self) -> None:
        """Somebody may have deleted or replaced the file under us: what is written to it then would never be found."""
        with self._looking:
            if self._file is None or self._file == _which(self.path):
                return
            log.error("journal.gone", journal=str(self.path), id=self.id)
            self.lost.add(self.id)
            self.id, self.mark, self._file = "", "", None
            self._carried.clear()
            self.engine.dispose()

    def confirm(self) -> None:
        """The database is this exchange's: rows may go into its journal from now on, also of workers yet to start."""
        self.prepare()
        with self._writing() as connection:
            connection.exec_driver_sql("INSERT OR IGNORE INTO about VALUES ('confirmed', 'yes')")

    @property
    def confirmed(self) -> bool:
        """Whether there is such a journal, and it can be used."""
        try:
            self.opened()
            with reading(self.engine) as connection:
                return _about(connection, "confirmed") is not None
        except AuditUnavailable:
            return False

    # --- rows in

    def store(self, transaction: Transaction, head: Head, make: Callable[[Connection], Plan]) -> Plan:
        """Commit what `make` plans behind `head`. The ledger hears of the first row of a chain before it is there."""
        writer = transaction.writer
        if not self.id:
            self.confirm()  # nobody gets here whose database was not found to be the right one
        with self._writing() as connection:
            plan = make(connection)
            count = sum(map(len, plan.rows.values()))
            if count and _newest(connection, writer) != head.seq:
                self.mark = str(Mark(self.id, self.host, head.seq + 1))
                self._tell(writer, *head, self.mark)
                reached(Gap.JOURNAL_TOLD)
            transaction.insert(connection, plan.rows)
            if count:
                connection.exec_driver_sql(
                    "INSERT INTO chains VALUES (?, ?, ?, ?) ON CONFLICT (writer) DO UPDATE "
                    "SET seq = excluded.seq, digest = excluded.digest, held = held + excluded.held",
                    (writer, *plan.written.head, count),
                )
            reached(Gap.JOURNAL_DUE)
        reached(Gap.JOURNAL_ON_DISK)
        return plan

    # --- rows out

    @contextmanager
    def view(self) -> Iterator[Connection]:
        """One unchanging view of the rows as of now."""
        with reading(self.engine) as connection:
            _held(connection, None)  # the view begins with the first look
            yield connection

    def writers(self) -> list[str]:
        """The chains that have rows here."""
        with reading(self.engine) as connection:
            return list(connection.exec_driver_sql("SELECT writer FROM chains").scalars())

    def depth(self, writer: str | None = None) -> int:
        """How many rows wait here, of one chain or of all."""
        with reading(self.engine) as connection:
            return _held(connection, writer)

    def waiting(self) -> int:
        """How many rows here are not in the database, as far as this process knows."""
        with reading(self.engine) as connection:
            chains = connection.exec_driver_sql("SELECT writer, seq, held FROM chains").all()
        return sum(min(held, seq - self._carried.get(writer, 0)) for writer, seq, held in chains)

    def could_not_remove(self, chunk: Chunk) -> None:
        """These rows are in the database, and stay here until the disk takes a write."""
        self._carried[chunk.writer] = chunk.last

    def oldest(self, writer: str, *, after: int = 0) -> Chunk | None:
        """The first rows of a chain behind row `after`; None when there are none."""
        with reading(self.engine) as connection:
            first = _first_behind(connection, writer, after)
            if first is None:
                return None
            where = "WHERE writer = ? AND seq >= ? AND seq < ?"
            found = {
                table: [tuple(row) for row in rows(connection, table, where, (writer, first, first + CHUNK))]
                for table in _tables().tables
            }
        return (
            Chunk(writer, {table: some for table, some in found.items() if some})
            if any(found.values())
            else None
        )

    def told_whole(self, chunk: Chunk) -> set[JobId]:
        """The jobs of a chunk of which nothing else waits here that says how far they came."""
        subjects = sorted(chunk.subjects)
        more: set[JobId] = set()
        with reading(self.engine) as connection:
            for start in range(0, len(subjects), AT_ONCE):
                some = subjects[start : start + AT_ONCE]
                for table in ("starts", "replies", "outcomes"):
                    more.update(
                        connection.exec_driver_sql(
                            f"SELECT job_id FROM {table} WHERE job_id IN ({', '.join('?' * len(some))}) "  # noqa: S608
                            "AND NOT (writer = ? AND seq <= ?)",
                            (*some, chunk.writer, chunk.last),
                        ).scalars()
                    )
        return chunk.subjects - more

    def remove(self, chunk: Chunk) -> None:
        """Forget rows that are in the database, but not their jobs; the ledger hears when that was the last of a chain."""
        with self._writing() as connection:
            gone = sum(
                connection.exec_driver_sql(
                    f"DELETE FROM {table} WHERE writer = ? AND seq <= ?",  # noqa: S608
                    (chunk.writer, chunk.last),
                ).rowcount
                for table in _tables().tables
            )
            # In the room that they leave: the file may have reached its cap.
            _note_carried(connection, chunk.jobs)
            connection.exec_driver_sql(
                "UPDATE chains SET held = held - ? WHERE writer = ?", (gone, chunk.writer)
            )
            if gone and _held(connection, chunk.writer) == 0:
                self._forget(connection, chunk.writer)
        reached(Gap.JOURNAL_CLEARED)

    def carried_jobs(self, *, after: str = "") -> list[str]:
        """Some of the jobs that were carried over and not looked at since, in their order behind job `after`."""
        with reading(self.engine) as connection:
            if not _has_carried_jobs(connection):
                return []
            found = connection.exec_driver_sql(
                "SELECT job_id FROM carried_jobs WHERE job_id > ? ORDER BY job_id LIMIT ?", (after, LOOKED_AT)
            )
            return list(found.scalars())

    def forget_jobs(self, jobs: Iterable[str]) -> None:
        """Their attempts have all their rows."""
        with self._writing() as connection:
            for job_id in jobs:
                connection.exec_driver_sql("DELETE FROM carried_jobs WHERE job_id = ?", (job_id,))

    def withdraw(self, marks: Mapping[str, str], heads: Mapping[str, tuple[int, str]]) -> None:
        """Take back what the ledger was told of chains that have nothing here.

        Their writers died before they wrote, or what they wrote was lost with its journal.
        """
        lost = frozenset(self.lost)
        with self._writing() as connection:
            for writer, mark in marks.items():
                if Mark.parse(mark).journal in {self.id, *lost} and _held(connection, writer) == 0:
                    self._tell(writer, *heads[writer], "")
        self.lost -= lost

    def _forget(self, connection: Connection, writer: str) -> None:
        (seq, digest), *_ = connection.exec_driver_sql(
            "SELECT seq, digest FROM chains WHERE writer = ?", (writer,)
        )
        connection.exec_driver_sql("DELETE FROM chains WHERE writer = ?", (writer,))
        self._tell(writer, seq, digest, "")

    @contextmanager
    def carrying(self) -> Iterator[bool]:
        """Whether it is this process's turn to carry over; the lock goes with the process."""
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield _locked(lock)
        finally:
            os.close(lock)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with answering(self.engine), self.engine.begin() as connection:
            yield connection


def journal_of(settings: Settings, tell: Tell) -> Journal:
    return Journal(settings.home, settings.ledger, settings.exchange_url, tell)


def _which(path: Path) -> tuple[int, int] | None:
    """Which file is at this path."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held(connection: Connection, writer: str | None) -> int:
    which, values = ("", ()) if writer is None else ("WHERE writer = ?", (writer,))
    found = connection.exec_driver_sql(f"SELECT coalesce(sum(held), 0) FROM chains {which}", values)  # noqa: S608
    return int(found.scalar_one())


def _newest(connection: Connection, writer: str) -> int | None:
    """The newest row of a chain that went in here; None when nothing of it is left."""
    found = connection.exec_driver_sql("SELECT seq FROM chains WHERE writer = ?", (writer,)).scalar()
    return None if found is None else int(found)


def _first_behind(connection: Connection, writer: str, after: int) -> int | None:
    """The oldest row of a chain behind row `after`: what could not go in one outage lies far from the rows of the next."""
    each = " UNION ALL ".join(
        f"SELECT min(seq) AS first FROM {table} WHERE writer = ?1 AND seq > ?2"  # noqa: S608
        for table in _tables().tables
    )
    found = connection.exec_driver_sql(f"SELECT min(first) FROM ({each})", (writer, after)).scalar()  # noqa: S608
    return None if found is None else int(found)


def _note_carried(connection: Connection, jobs: Iterable[str]) -> None:
    connection.exec_driver_sql(CARRIED_JOBS)
    for job_id in jobs:
        connection.exec_driver_sql("INSERT OR IGNORE INTO carried_jobs VALUES (?)", (job_id,))


def _has_carried_jobs(connection: Connection) -> bool:
    """A journal of an earlier version gets the table with the first rows that leave it."""
    named = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'carried_jobs'")
    return named.first() is not None


def _about(connection: Connection, name: str) -> Any:
    return connection.exec_driver_sql("SELECT value FROM about WHERE name = ?", (name,)).scalar()


def _cap(connection: Any, _record: object) -> None:
    connection.execute(f"PRAGMA max_page_count = {MOST_BYTES // PAGE}")


@cache
def _tables() -> MetaData:
    """The audit's tables of facts without their unique keys, which become indexes."""
    found = MetaData()
    for name, shape in SHAPES.items():
        if name == CONFLICTS:
            continue
        table = shape.table.to_metadata(found)
        for rule in [rule for rule in table.constraints if isinstance(rule, UniqueConstraint)]:
            table.constraints.discard(rule)
        if shape.key:
            names = [shape.columns[position].name for position in shape.key]
            Index(f"ix_{name}_key", *(table.c[column] for column in names))
    return found
