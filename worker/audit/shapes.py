"""What each audit table's rows look like: columns, kinds, unique keys; and a fact's way into a row's cells. No I/O."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Integer, Table, Text, UniqueConstraint

from models import Base, Chained, UtcDateTime
from worker.audit.chain import Cell
from worker.audit.facts import Fact, storable
from worker.clock import iso
from worker.errors import FactRejected

CHAIN_COLUMNS = ("writer", "seq", "prev", "digest", "environment")
A_TIME = len("2026-11-28T16:08:04.260765Z")
Key = tuple[str, ...]  # table, then the texts of the unique columns


Rule = tuple[str, bool, Callable[[object], Cell]]  # a column's name, whether it may be null, and its check


@dataclass(frozen=True, slots=True)
class Shape:
    """A table's own columns, in order, and the one unique key beside its place in the chain."""

    table: Table
    columns: tuple[Column[object], ...]
    key: tuple[int, ...]  # positions among `columns`; empty: no key of its own
    rules: tuple[Rule, ...]  # one a column: made once, because every fact passes them
    names: frozenset[str]
    kinds: tuple[frozenset[type], ...]  # what the digest may see in each column
    times: tuple[int, ...]  # positions among `columns`
    met: set[tuple[type, ...]]  # kinds of whole rows that were found to fit: there are few, and rows many


@dataclass(frozen=True, slots=True)
class Entry:
    """A fact that is fit to be stored: its cells are what the digest covers and what the database gets."""

    table: str
    cells: tuple[Cell, ...]
    key: Key | None

    @property
    def job_id(self) -> str:
        return str(self.cells[0])


def entry(fact: Fact) -> Entry:
    """Check a fact against its table; FactRejected names table and field."""
    shape = SHAPES.get(fact.table)
    if shape is None:
        raise FactRejected(f"{fact.table}: there is no such table of facts")
    if unknown := fact.values.keys() - shape.names:
        raise FactRejected(f"{fact.table}.{min(unknown)}: there is no such field")
    cells = tuple(_cells(fact, shape.rules))
    key = (fact.table, *(str(cells[position]) for position in shape.key)) if shape.key else None
    return Entry(fact.table, cells, key)


def _cells(fact: Fact, rules: Sequence[Rule]) -> list[Cell]:
    """In one loop without a call for each: some seventy cells make up the rows of one cancel."""
    cells: list[Cell] = []
    values, name = fact.values, ""
    try:
        for name, nullable, check in rules:
            value = values.get(name)
            if value is not None:
                cells.append(check(value))
            elif nullable:
                cells.append(None)
            else:
                raise FactRejected(f"{fact.table}.{name}: is missing")
    except (TypeError, ValueError) as error:
        raise FactRejected(f"{fact.table}.{name}: {error}") from None
    return cells


def misfit(table: str, cells: Sequence[object]) -> str | None:
    """The first column whose cell is nothing that a fact leaves there; cells as their digest sees them."""
    shape = SHAPES[table]
    kinds = tuple(map(type, cells))
    if kinds not in shape.met:
        for column, kind, known in zip(shape.columns, kinds, shape.kinds, strict=True):
            if kind not in known:
                return column.name
        shape.met.add(kinds)
    for position in shape.times:
        text: Any = cells[position]
        if text is not None and not (len(text) == A_TIME and text[-1] == "Z" and _is_time(text)):
            return shape.columns[position].name
    return None


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"must be text, got {type(value).__name__}")
    return storable(str(value))


def _integer(bits: int) -> Callable[[object], int]:
    limit = 2 ** (bits - 1)

    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"must be an integer, got {type(value).__name__}")
        if not -limit <= value < limit:
            raise ValueError(f"does not fit {bits} bits")
        return int(value)

    return check


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"must be true or false, got {type(value).__name__}")
    return value


def _time(value: object) -> str:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("must be a time with a zone")
    return iso(value)


def _check(column: Column[object]) -> Callable[[object], Cell]:
    kind = column.type
    for known, check in (
        (UtcDateTime, _time),
        (Boolean, _boolean),
        (BigInteger, _integer(64)),
        (Integer, _integer(32)),
        (Text, _text),
    ):
        if isinstance(kind, known):
            return check
    raise TypeError(f"{column}: no rule for {kind!r}")


def _kinds(column: Column[object]) -> frozenset[type]:
    kind: type = str
    if isinstance(column.type, Boolean | Integer):
        kind = bool if isinstance(column.type, Boolean) else int
    return frozenset({kind, type(None)} if column.nullable else {kind})


def _shape(table: Table) -> Shape:
    columns = tuple(column for column in table.columns if column.name not in CHAIN_COLUMNS)
    unique = [list(rule.columns) for rule in table.constraints if isinstance(rule, UniqueConstraint)]
    key = tuple(columns.index(column) for column in unique[0]) if unique else ()
    rules = tuple((column.name, bool(column.nullable), _check(column)) for column in columns)
    return Shape(
        table,
        columns,
        key,
        rules,
        names=frozenset(name for name, _, _ in rules),
        kinds=tuple(map(_kinds, columns)),
        times=tuple(i for i, column in enumerate(columns) if isinstance(column.type, UtcDateTime)),
        met=set(),
    )


SHAPES = {
    mapper.local_table.name: _shape(mapper.local_table)  # type: ignore[attr-defined,arg-type]
    for mapper in sorted(Base.registry.mappers, key=lambda mapper: str(mapper.local_table))
    if issubclass(mapper.class_, Chained)
}
