"""Compares the published views with what the migrations made: whoever puts another in place makes reports lie.

The rows below are as they were then, and no digest tells. Changes nothing that stays.
"""

from typing import NamedTuple

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from migrations import VIEWS
from worker.audit.engine import answering, reading, reason

MISSING = "is missing"
CHANGED = "is not the one that the migrations made"
# What PostgreSQL says to whom may make no temporary view: no right to, or a server that only reads.
MAY_NOT = {"42501", "25006", "0A000"}


class Views(NamedTuple):
    """The first view that is not as it was made, and what is wrong with it."""

    fault: tuple[str, str] | None = None
    unchecked: str = ""  # why they were not compared


def compare_views(engine: Engine) -> Views:
    if engine.dialect.name == "sqlite":
        with reading(engine) as connection:
            return Views(_sqlite_fault(connection))
    try:
        with answering(engine), engine.connect() as connection:
            # For views of this session's own, which go with the transaction: an auditor's default may be to read only.
            connection.exec_driver_sql("SET TRANSACTION READ WRITE")
            return Views(_postgresql_fault(connection))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in MAY_NOT:
            raise
        return Views(unchecked=reason(error))


def _sqlite_fault(connection: Connection) -> tuple[str, str] | None:
    """SQLite keeps the text of a view as it was given."""
    found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'view'")
    stands = {name: sql.split() for name, sql in found}
    for name, made in VIEWS.items():
        if stands.get(name) != made.split():
            return name, CHANGED if name in stands else MISSING
    return None


def _postgresql_fault(connection: Connection) -> tuple[str, str] | None:
    """PostgreSQL keeps what it understood: the migration's text must come to the same in its own words."""
    for name, made in VIEWS.items():
        stands = _in_its_words(connection, name)
        if stands is None:
            return name, MISSING
        expected = f"expected_{name}"
        connection.exec_driver_sql(
            made.replace(f"CREATE VIEW {name}", f"CREATE TEMPORARY VIEW {expected}", 1)
        )
        if stands != _in_its_words(connection, f"pg_temp.{expected}"):
            return name, CHANGED
    return None


def _in_its_words(connection: Connection, name: str) -> str | None:
    found: str | None = connection.exec_driver_sql(
        "SELECT pg_get_viewdef(oid) FROM pg_class WHERE oid = to_regclass(%s) AND relkind = 'v'", (name,)
    ).scalar()
    return found
