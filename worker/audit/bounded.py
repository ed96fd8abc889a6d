"""PostgreSQL connections whose every wait ends: a frozen server is given up, not waited for. Knows no SQL."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import errors

from worker.errors import ConfigError


class BoundedConnection(psycopg.Connection[Any]):
    """Gives up, and is closed for good, when the server does not answer a step in time."""

    bound: float = 6.0

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        limit = self.bound if timeout is None else timeout
        try:
            return super().wait(gen, interval, limit)
        except errors._WaitTimeout:  # noqa: SLF001  # the library's own, under no public name
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer within {limit:g} s") from None


def connect(bound: timedelta) -> Callable[..., BoundedConnection]:
    """A listener for SQLAlchemy's `do_connect` whose connections wait at most `bound` for one step."""

    def connected(_dialect: Any, _record: Any, arguments: Any, parameters: Any) -> BoundedConnection:
        try:
            connection = BoundedConnection.connect(*arguments, **parameters)
        except psycopg.ProgrammingError as error:  # raised before anything is connected
            raise ConfigError(f"CANCELQ_DATABASE_URL: {error}") from error
        _require_every_text(connection)
        connection.bound = bound.total_seconds()
        return connection

    return connected


def _require_every_text(connection: BoundedConnection) -> None:
    """Any other encoding lacks texts that an answer may hold, and SQL_ASCII knows none: its texts come as bytes."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in {"UTF8", None}:  # a pooler in between may not say
        connection.close()
        raise ConfigError(
            f"CANCELQ_DATABASE_URL: the database's encoding is {encoding}; the audit needs one that was made with"
            " ENCODING 'UTF8'"
        )
