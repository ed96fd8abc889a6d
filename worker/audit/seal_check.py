"""Follows the chain of seals and keeps what they name, in the order of the rows, for whoever follows those. Reads only."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from sqlalchemy import Connection

from worker.audit.chain import Head, digest, sealed
from worker.audit.seals import named_by, stored


class Seals(NamedTuple):
    """The seals as far as they were followed."""

    newest: Head = Head()
    fault: tuple[int, str] | None = None  # the first bad one, and what is wrong with it


NO_SEALS = Seals()


class Named:
    """The rows that seals name: a year of them is more than memory should hold, so they go into a file without a name."""

    def __init__(self) -> None:
        self._store = sqlite3.connect("", isolation_level=None)
        self._store.execute("CREATE TABLE named (writer TEXT, seq INTEGER, digest TEXT, number INTEGER)")
        self._store.execute("BEGIN")

    def add(self, number: int, rows: Sequence[tuple[str, int, str]]) -> None:
        """ValueError if one of them cannot be a row's."""
        self._store.executemany(f"INSERT INTO named VALUES (?, ?, ?, {number:d})", rows)  # noqa: S608

    def rows(self) -> Iterator[tuple[str, int, str, int]]:
        """(writer, seq, digest, the seal's number) in the order in which chains are followed."""
        yield from self._store.execute("SELECT * FROM named ORDER BY writer, seq, number")

    def close(self) -> None:
        self._store.close()


def follow_seals(connection: Connection, named: Named, expect: str | None) -> Seals:
    """Check each seal against the one before it, up to the first bad one; one of them must be `expect`, if given."""
    newest, met = Head(), expect is None
    with closing(stored(connection)) as found:
        for seal in found:
            fault = _wrong(newest, seal) or _keep(named, seal)
            if fault is not None:
                return Seals(newest, fault)
            newest = Head(seal[0], seal[2])
            met = met or newest.digest == expect
    return Seals(newest, None if met else (newest.seq, f"no seal up to here has the digest {expect}"))


def _wrong(newest: Head, seal: Sequence[Any]) -> tuple[int, str] | None:
    number, prev, mark, environment, *cells = seal
    due = newest.seq + 1
    if type(number) is not int or number < due:
        return due, f"its number cannot be: {number!r}"
    if number != due:
        return due, f"is missing: the seals go from {newest.seq} to {number}"
    if {*map(type, seal[1:])} != {str} or digest(sealed(Head(number, prev), environment, cells)) != mark:
        return number, "its columns are not what its digest was made of"
    if prev != newest.digest:
        return number, f"it does not follow seal {newest.seq}"
    return None


def _keep(named: Named, seal: Sequence[Any]) -> tuple[int, str] | None:
    number, heads = seal[0], seal[-1]
    try:
        named.add(number, named_by(heads))
    except ValueError:
        return number, "what it names are no rows"
    return None
