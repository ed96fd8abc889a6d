"""Seals: each binds the heads of the writers' chains together, in a chain of its own. Decides not when.

A seal names only rows that are in the database, so that what is in a host's journal is never taken for a cut tail.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Table, bindparam, func, insert, select, union_all
from sqlalchemy.exc import DBAPIError, IntegrityError

from models import Sealed
from worker.audit.cells import ROWS_AT_ONCE, as_text
from worker.audit.chain import Head, digest, named, sealed
from worker.audit.engine import address, answering, reading, reason
from worker.audit.shapes import SHAPES
from worker.clock import iso, monotonic, utc_now
from worker.errors import AuditUnavailable

SEALS: Table = Sealed.__table__  # type: ignore[assignment]
# One place at a time: asked for many at once, SQLite reads whole tables.
PLACE = union_all(
    *(
        select(shape.table.c.digest).where(
            shape.table.c.writer == bindparam("writer"), shape.table.c.seq == bindparam("seq")
        )
        for shape in SHAPES.values()
    )
)
# Who loses more often in a row has enough others who seal.
MOST_RACES = 3
# A week of them. A chain that only older ones name is named once more, which does no harm.
MOST_REMEMBERED = 10_000
LARGEST = 2**63 - 1


def stored(connection: Connection, *, since: int | None = None) -> Generator[Sequence[Any], None, None]:
    """The seals as they were written, by number: (number, prev, digest, environment, sealed_at, heads)."""
    on_sqlite = connection.dialect.name == "sqlite"
    names = ", ".join(as_text(column, on_sqlite=on_sqlite) for column in SEALS.columns)
    where = "" if since is None else f"WHERE number >= {since:d} "
    found = connection.exec_driver_sql(
        f"SELECT {names} FROM seals {where}ORDER BY number",  # noqa: S608  # our own names
        execution_options={"stream_results": True, "yield_per": ROWS_AT_ONCE},
    )
    with closing(found):
        yield from found


def newest(connection: Connection) -> Head:
    """The newest seal as it stands, not followed; Head() before the first."""
    seals = SEALS.c
    found = connection.execute(
        select(seals.number, seals.digest).order_by(seals.number.desc()).limit(1)
    ).first()
    return Head(*found) if found is not None else Head()


def named_by(heads: object) -> list[tuple[str, int, str]]:
    """(writer, seq, digest) of the rows that a seal's `heads` name; ValueError if it is no such list."""
    found = orjson.loads(heads)  # type: ignore[arg-type]
    if not isinstance(found, list) or not all(map(_is_a_head, found)):
        raise ValueError("not a list of [writer, seq, digest]")
    return [(writer, seq, mark) for writer, seq, mark in found]


def _is_a_head(value: object) -> bool:
    match value:
        case [str(), int() as seq, str()] if type(seq) is int and 0 < seq <= LARGEST:
            return True
    return False


def add(engine: Engine, last: Head, heads: Mapping[str, Head], environment: str) -> Head | None:
    """Bind `heads` together behind the seal `last`; the new seal, or None if another was quicker.

    AuditUnavailable: the database is away, or takes no seal from this user.
    """
    at, names, place = utc_now(), named(heads), Head(last.seq + 1, last.digest)
    mark = digest(sealed(place, environment, (iso(at), names)))
    values = {"number": place.seq, "prev": place.digest, "digest": mark}
    try:
        with answering(engine), engine.begin() as connection:
            connection.execute(
                insert(SEALS), {**values, "environment": environment, "sealed_at": at, "heads": names}
            )
    except IntegrityError:
        return None
    except DBAPIError as error:
        raise AuditUnavailable(f"the database {address(engine)} takes no seal: {reason(error)}") from error
    return Head(place.seq, mark)


def present(connection: Connection, heads: Mapping[str, Head]) -> dict[str, Head]:
    """Those of `heads` that are rows of the database, with that very digest."""
    return {
        writer: head
        for writer, head in heads.items()
        if head.digest in connection.execute(PLACE, {"writer": writer, "seq": head.seq}).scalars()
    }


class Sealer:
    """Adds seals for one process, whose single thread uses it; remembers what the newest ones name."""

    def __init__(self, engine: Engine, environment: str) -> None:
        self._engine = engine
        self._environment = environment
        self._last = Head()
        self._named: dict[str, int] = {}  # the newest row that a seal names, by writer
        self._since = monotonic()  # when the newest seal was met, or there was nothing to seal

    def rested(self) -> timedelta:
        """How long nobody has sealed anything, as far as this process knows: no two clocks are compared."""
        with reading(self._engine) as connection:
            self._catch_up(connection)
        return monotonic() - self._since

    def seal(self, heads: Mapping[str, Head]) -> Head | None:
        """Seal those of `heads` that no seal names yet; None if there are none, or others sealed meanwhile."""
        for _ in range(MOST_RACES):
            with reading(self._engine) as connection:
                self._catch_up(connection)
                if len(self._named) > MOST_REMEMBERED:
                    self._named = {writer: seq for writer, seq in self._named.items() if writer in heads}
                new = present(connection, self._unnamed(heads))
            if not new:
                self._since = monotonic()
                return None
            if (made := add(self._engine, self._last, new, self._environment)) is not None:
                self._remember(made, {writer: head.seq for writer, head in new.items()})
                return made
        return None

    def _unnamed(self, heads: Mapping[str, Head]) -> dict[str, Head]:
        return {writer: head for writer, head in heads.items() if head.seq > self._named.get(writer, 0)}

    def _catch_up(self, connection: Connection) -> None:
        """Read the seals that others have added; all over again where the database is another copy by now."""
        newest = connection.execute(select(func.max(SEALS.c.number))).scalar() or 0
        if self._last.seq > 0 and self._digest_of(connection, self._last.seq) != self._last.digest:
            self._last, self._named = Head(), {}
        if newest == self._last.seq:
            return
        since = max(self._last.seq, newest - MOST_REMEMBERED) + 1
        with closing(stored(connection, since=since)) as seals:
            for number, _prev, mark, _environment, _at, heads in seals:
                rows: dict[str, int] = {}
                # `cancelq verify` will name one that cannot be read; the next seal goes behind it all the same.
                with suppress(ValueError):
                    rows = {writer: seq for writer, seq, _ in named_by(heads)}
                self._remember(Head(number, mark), rows)

    @staticmethod
    def _digest_of(connection: Connection, number: int) -> str | None:
        return connection.execute(select(SEALS.c.digest).where(SEALS.c.number == number)).scalar()

    def _remember(self, seal: Head, rows: Mapping[str, int]) -> None:
        self._last, self._since = seal, monotonic()
        for writer, seq in rows.items():
            self._named[writer] = max(seq, self._named.get(writer, 0))
