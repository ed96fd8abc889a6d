"""Checks the audit's tamper evidence: recomputes every digest from the columns and follows every chain. Reads only.

What a chain alone cannot show is a tail that was cut off, or a whole chain written anew: for that the seals are
followed, and the heads that an outside witness saw (the ledger keeps them) are compared. Read those heads before
calling. Rows that wait in a host's journal are no hole: of this host's they are followed as if they were carried
over, others' are named.
"""

import heapq
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from migrations import VIEWS
from worker.audit.cells import CHAINED, rows
from worker.audit.chain import Head, canonical, digest
from worker.audit.conflicts import CONFLICTS, Contradiction, displaced, told_and_counted
from worker.audit.engine import is_undecodable, reading
from worker.audit.journal import Journal, Mark
from worker.audit.seal_check import NO_SEALS, Named, Seals, follow_seals
from worker.audit.seals import newest
from worker.audit.shapes import SHAPES, misfit
from worker.audit.view_check import compare_views

GONE = "(gone)"
# Behind the numbers of the tables: the database's, then the journal's.
SEALED = 2 * len(SHAPES)


@dataclass(frozen=True, slots=True)
class Fault:
    """The first row that is not what was written, or the view that does not show what was."""

    table: str
    writer: str
    seq: int
    what: str

    def __str__(self) -> str:
        if self.table == "seals":
            return f"seal {self.seq}: {self.what}"
        if self.table in VIEWS:
            return f"the view {self.table} {self.what}"
        return f"{self.table} row {self.seq} of {self.writer}: {self.what}"


@dataclass(frozen=True, slots=True)
class Outstanding:
    """Rows of a chain that are not in the database yet, but in a host's journal; looked at only if it is this one's."""

    writer: str
    host: str
    rows: int
    seen: bool

    def __str__(self) -> str:
        looked = "" if self.seen else ", not looked at"
        return f"{self.rows} rows of {self.writer} in the journal of {self.host}{looked}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check found; `rows` and `heads` reach as far as the first fault."""

    rows: int
    heads: Mapping[str, Head]
    fault: Fault | None
    outstanding: tuple[Outstanding, ...] = ()
    conflicts: int = 0  # rows of a journal that say something else than the rows in their place
    seals: Seals = NO_SEALS
    unsealed: Mapping[str, Head] = field(default_factory=dict)  # heads of the database that no seal covers
    newer: int = 0  # rows of the database that no seal covers
    contradictions: tuple[Contradiction, ...] = ()  # the first of them
    made: bool = True  # False: nobody looked, and `seals` has the newest one as it stands
    journal_trouble: str = ""  # why this host's journal was not looked at
    views_trouble: str = ""  # why the views were not compared

    @property
    def ok(self) -> bool:
        return self.fault is None

    @property
    def remarks(self) -> list[str]:
        """What is no fault and must be known all the same."""
        said = [f"outstanding: {chain}" for chain in self.outstanding]
        if self.journal_trouble:
            said.append(f"this host's journal was not looked at, it cannot be read: {self.journal_trouble}")
        if self.views_trouble:
            said.append(f"the views were not compared with what the migrations made: {self.views_trouble}")
        if self.conflicts:
            said.append(
                f"{self.conflicts} rows of journals contradict the rows in their place: see conflicts"
            )
            said += [f"contradicted: {one}" for one in self.contradictions]
        if self.newer:
            said.append(f"{self.newer} rows are newer than the newest seal")
        return said

    @property
    def digest(self) -> str:
        """The newest seal's: one text for all that was sealed; "" before the first."""
        return self.seals.newest.digest


def not_verified(engine: Engine) -> Verification:
    """What stands in the place of a check that nobody asked for."""
    with reading(engine) as connection:
        return Verification(0, {}, None, seals=Seals(newest(connection)), made=False)


class _FoundError(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class _UndecodableError(Exception):
    """Somebody wrote bytes into a text of SQLite."""


# writer, seq, number of the table (keeps comparisons away from the cells), table, row
Place = tuple[str, int, int, str, Sequence[Any]]


@dataclass(slots=True)
class _Walk:
    """The chains as far as they were followed, and what an outside witness saw of them."""

    witnessed: Mapping[str, tuple[int, str]]
    marks: Mapping[str, Mark]
    journal: Journal | None
    journal_trouble: str = ""
    rows: int = 0
    heads: dict[str, Head] = field(default_factory=dict)
    waiting: Counter[str] = field(default_factory=Counter)  # rows in this host's journal, by writer
    elsewhere: list[Outstanding] = field(default_factory=list)
    seals: Seals = NO_SEALS
    stored: dict[str, Head] = field(default_factory=dict)  # where the database ends and the journal goes on
    sealed: dict[str, int] = field(default_factory=dict)  # the newest row that a seal names, by writer

    def follow(self, places: Iterator[Place]) -> None:
        last = GONE
        for writer, seq, number, table, row in places:
            if number == SEALED:
                self._compare_with_seal(writer, seq, last, row)
                continue
            waits = number >= len(SHAPES)
            if waits and self.heads.get(writer) == Head(seq, row[3]):
                continue  # carried over, and not removed yet
            what = self._wrong(table, row)
            if what is not None:
                raise _FoundError(Fault(table, writer, seq, what))
            if waits and writer not in self.stored:
                self.stored[writer] = self.heads.get(writer, Head())
            self.heads[writer] = Head(seq, row[3])
            self.rows += 1
            self.waiting[writer] += waits
            last = table

    def compare_tails(self) -> None:
        for writer, (seq, _) in sorted(self.witnessed.items()):
            last, mark = self.heads.get(writer, Head()).seq, self.marks.get(writer)
            if last >= seq:
                continue
            if mark is None or mark.seq > last + 1:
                raise _FoundError(Fault(GONE, writer, last + 1, f"the tail was cut: row {seq} had been seen"))
            if self.journal is not None and mark.journal == self.journal.id:
                raise _FoundError(
                    Fault(GONE, writer, last + 1, f"this host's journal lost it: row {seq} had been seen")
                )
            self.elsewhere.append(Outstanding(writer, mark.host, seq - last, seen=False))

    def _compare_with_seal(self, writer: str, seq: int, table: str, row: Sequence[Any]) -> None:
        """A seal names this row: it is the one that was followed last, and of the database."""
        mark, number = row
        head = self.stored.get(writer, self.heads.get(writer, Head()))
        if head.seq < seq:
            raise _FoundError(
                Fault(GONE, writer, head.seq + 1, f"is missing: row {seq} is named by seal {number}")
            )
        if head.digest != mark:
            raise _FoundError(
                Fault(
                    table, writer, seq, f"the chain was written anew: seal {number} names another digest here"
                )
            )
        self.sealed[writer] = seq

    def compare_seals(self) -> None:
        if self.seals.fault is not None:
            number, what = self.seals.fault
            raise _FoundError(Fault("seals", "", number, what))

    def unsealed(self) -> dict[str, Head]:
        heads = {**self.heads, **self.stored}
        return {writer: head for writer, head in heads.items() if head.seq > self.sealed.get(writer, 0)}

    def verified(self, fault: Fault | None, conflicts: int = 0) -> Verification:
        unsealed = {} if fault is not None else self.unsealed()
        newer = sum(head.seq - self.sealed.get(writer, 0) for writer, head in unsealed.items())
        return Verification(
            self.rows,
            self.heads,
            fault,
            self.outstanding(),
            conflicts,
            self.seals,
            unsealed,
            newer,
            journal_trouble=self.journal_trouble,
        )

    def outstanding(self) -> tuple[Outstanding, ...]:
        host = self.journal.host if self.journal is not None else ""
        here = [
            Outstanding(writer, host, count, seen=True) for writer, count in self.waiting.items() if count
        ]
        return (*here, *self.elsewhere)

    def _wrong(self, table: str, row: Sequence[Any]) -> str | None:
        writer, seq, prev, mark, environment = row[:CHAINED]
        head = self.heads.get(writer, Head())
        if seq <= head.seq:
            return "another row has this place in the chain"
        if seq != head.seq + 1:
            raise _FoundError(
                Fault(GONE, writer, head.seq + 1, f"is missing: the chain goes from {head.seq} to {seq}")
            )
        try:
            fact, cells = _as_written(table, row[CHAINED:])
        except ValueError as error:
            return str(error)
        if digest(canonical(fact, writer, Head(seq, prev), environment, cells)) != mark:
            return "its columns are not what its digest was made of"
        if prev != head.digest:
            return f"it does not follow row {head.seq}"
        if self.witnessed.get(writer, (0, ""))[0] == seq and self.witnessed[writer][1] != mark:
            return "the chain was written anew: another digest had been seen here"
        return None


def _as_written(table: str, cells: Sequence[Any]) -> tuple[str, Sequence[Any]]:
    """What a row's digest was made of; of a conflict that is the row which found its place taken.

    ValueError says what nobody can have written so.
    """
    odd = misfit(table, cells)
    if odd is not None:
        raise ValueError(f"its {odd} holds what nobody writes there")
    if table != CONFLICTS:
        return table, cells
    row = displaced(*cells)
    if row is None:
        raise ValueError(f"what it says was displaced is no row of {cells[0]}")
    return cells[0], row


def verify(
    engine: Engine,
    heads: Mapping[str, tuple[int, str]] | None = None,
    *,
    marks: Mapping[str, str] | None = None,
    journal: Journal | None = None,
    expect: str | None = None,
) -> Verification:
    """Check everything in one unchanging view; stops at the first fault. `heads`: writer → (seq, digest).

    `expect`: a seal must have this digest; then all that was sealed up to it is as it was. A journal that cannot be
    read is told, and counts as that of a host that is away.
    """
    parsed = {writer: Mark.parse(text) for writer, text in (marks or {}).items()}
    trouble = journal.trouble() if journal is not None else ""
    walk = partial(_Walk, heads or {}, parsed, None if trouble else journal, trouble)
    try:
        found = _verify(engine, walk(), expect, lenient=False)
    except _UndecodableError:
        found = _verify(engine, walk(), expect, lenient=True)  # slower, but the row can be named
    return found if found.fault is not None else _with_views(engine, found)


def _with_views(engine: Engine, found: Verification) -> Verification:
    """What is read through a view is no better than the view."""
    views = compare_views(engine)
    if views.fault is not None:
        view, what = views.fault
        return replace(found, fault=Fault(view, "", 0, what))
    return replace(found, views_trouble=views.unchecked)


def _verify(engine: Engine, walk: _Walk, expect: str | None, *, lenient: bool) -> Verification:
    try:
        with ExitStack() as views:
            # The journal first: what is carried over in between is then seen twice, not missed.
            waiting = [] if walk.journal is None else _waiting(views.enter_context(walk.journal.view()))
            connection = views.enter_context(reading(engine))
            views.enter_context(_decoding(connection, lenient=lenient))
            sealed = views.enter_context(closing(Named()))
            walk.seals = follow_seals(connection, sealed, expect)
            stored = [_places(connection, table) for table in SHAPES]
            streams = [*stored, *waiting, _sealed_places(sealed)]
            walk.follow(heapq.merge(*map(views.enter_context, map(closing, streams))))
            walk.compare_tails()
            walk.compare_seals()
            if not (walk.outstanding() or walk.journal_trouble):  # else what is missing may be there
                _cross_check(connection)
            told, conflicts = told_and_counted(connection)
    except _FoundError as found:
        return walk.verified(found.fault)
    return replace(walk.verified(None, conflicts), contradictions=told)


@contextmanager
def _decoding(connection: Connection, *, lenient: bool) -> Iterator[None]:
    driver: Any = connection.connection.driver_connection
    if lenient:
        driver.text_factory = _text_or_bytes
    try:
        yield
    except OperationalError as error:
        if is_undecodable(error):
            raise _UndecodableError from error
        raise
    finally:
        if lenient:
            driver.text_factory = str


def _text_or_bytes(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _waiting(connection: Connection) -> list[Generator[Place, None, None]]:
    return [_places(connection, table, offset=len(SHAPES)) for table in SHAPES if table != CONFLICTS]


def _places(connection: Connection, table: str, *, offset: int = 0) -> Generator[Place, None, None]:
    number = offset + list(SHAPES).index(table)
    with closing(rows(connection, table)) as found:
        for row in found:
            writer, seq, prev, _, environment = row[:CHAINED]
            if not (type(writer) is type(prev) is type(environment) is str and type(seq) is int):
                raise _FoundError(Fault(table, str(writer), -1, f"its place is not a place: {seq!r}"))
            yield writer, seq, number, table, row


def _sealed_places(named: Named) -> Generator[Place, None, None]:
    """Each behind the row that it names."""
    for writer, seq, mark, number in named.rows():
        yield writer, seq, SEALED, "seals", (mark, number)


# Every row may be sound and yet one be missing or too many: what cannot be without something else.
ORPHANS = (
    ("requests", "its job is missing", "jobs p WHERE p.job_id = r.job_id"),
    ("starts", "its job is missing", "jobs p WHERE p.job_id = r.job_id"),
    ("outcomes", "its job is missing", "jobs p WHERE p.job_id = r.job_id"),
    ("replies", "its start is missing", "starts p WHERE p.job_id = r.job_id AND p.attempt = r.attempt"),
    ("verdicts", "its start is missing", "starts p WHERE p.job_id = r.job_id AND p.attempt = r.attempt"),
    ("late_replies", "its start is missing", "starts p WHERE p.job_id = r.job_id AND p.attempt = r.attempt"),
    ("findings", "its job is missing", "jobs p WHERE p.job_id = r.job_id"),
)
GAPS = (
    "SELECT r.writer, r.seq FROM starts r WHERE r.attempt > 1 AND NOT EXISTS "
    "(SELECT 1 FROM starts p WHERE p.job_id = r.job_id AND p.attempt = r.attempt - 1) "
    "ORDER BY r.writer, r.seq LIMIT 1"
)


def _cross_check(connection: Connection) -> None:
    for table, what, needed in ORPHANS:
        _refuse_any(
            connection,
            f"SELECT r.writer, r.seq FROM {table} r WHERE NOT EXISTS (SELECT 1 FROM {needed}) "  # noqa: S608
            "ORDER BY r.writer, r.seq LIMIT 1",
            (table, what),
        )
    _refuse_any(connection, GAPS, ("starts", "the attempt before it is missing"))


def _refuse_any(connection: Connection, statement: str, finding: tuple[str, str]) -> None:
    found = connection.exec_driver_sql(statement).first()
    if found is not None:
        table, what = finding
        raise _FoundError(Fault(table, found[0], found[1], what))
