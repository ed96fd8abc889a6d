"""Runs migrations in one transaction, one runner at a time, on a given connection or on the configured database."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic import context
from sqlalchemy import Connection, Engine, text

from models import Base
from worker.gaps import Gap, reached

# Any fixed number; every runner on one PostgreSQL database queues at it (SQLite queues at BEGIN IMMEDIATE).
ADVISORY_LOCK = 0x63616E63656C71


@contextmanager
def _connection() -> Iterator[Connection]:
    given = context.config.attributes.get("connection")
    if isinstance(given, Connection):
        yield given
    elif isinstance(given, Engine):
        with given.connect() as connection:
            yield connection
    else:
        with _configured_engine().connect() as connection:
            yield connection


def _configured_engine() -> Engine:
    from worker.audit.engine import MIGRATION_BOUND, audit_url, open_engine  # noqa: PLC0415
    from worker.settings import load_settings  # noqa: PLC0415

    return open_engine(audit_url(load_settings()), statement_bound=MIGRATION_BOUND)


def _online() -> None:
    with _connection() as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            transactional_ddl=True,
            render_as_batch=True,
            on_version_apply=_step_done,
        )
        context.run_migrations()


def _step_done(*_: Any, **_what: Any) -> None:
    reached(Gap.SCHEMA_STEP_DONE)


def _offline() -> None:
    """`alembic upgrade --sql`: the statements for a database administrator to run."""
    context.configure(dialect_name=context.get_x_argument(as_dictionary=True).get("dialect", "postgresql"))
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    _offline()
else:
    _online()
