"""The digest that ties each audit row, and each seal, to the one before it. Pure: no I/O, no clock.

A row's text is the JSON list [table, writer, seq, prev, environment, every further column in the table's order]:
UTF-8, no spaces, times as `2026-11-23T20:00:00.000000Z`, nulls at the end left off (so that a column which a later
schema appends leaves the digests of old rows as they are). `prev` is the digest of the same writer's row seq-1.
A seal has no writer: ["seals", number, prev, environment, sealed_at, heads]. docs/audit-format.md says all of it.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

import orjson

Cell = str | int | bool | None

GENESIS = ""


class Head(NamedTuple):
    """The newest row of one writer's chain."""

    seq: int = 0
    digest: str = GENESIS


def canonical(table: str, writer: str, place: Head, environment: str, cells: Sequence[object]) -> str:
    """The text of the row that follows `place`'s digest at `place.seq`; TypeError for what no database takes."""
    values = [table, writer, place.seq, place.digest, environment, *cells]
    while values[-1] is None:
        values.pop()
    return _encode(values)


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _encode(values: Sequence[object]) -> str:
    """As `json` would write it, only quicker."""
    return orjson.dumps(values).decode()


def sealed(place: Head, environment: str, cells: Sequence[object]) -> str:
    """The text of the seal that follows `place`'s digest as number `place.seq`."""
    return _encode(["seals", place.seq, place.digest, environment, *cells])


def named(heads: Mapping[str, Head]) -> str:
    """The heads of chains as a seal names them: [[writer, seq, digest], …] by writer."""
    return _encode([[writer, *head] for writer, head in sorted(heads.items())])
