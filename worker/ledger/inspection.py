"""Looks at a Redis without changing anything that counts: what it is, how it keeps data, what this user may."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from statistics import median
from types import TracebackType
from typing import Any, Self

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from worker.clock import Offset, monotonic, offset, utc_now
from worker.errors import LedgerUnavailable
from worker.ledger import library
from worker.ledger.access import probe_calls, probe_key
from worker.ledger.connection import address, is_error_reply, lacks_functions, open_client
from worker.ledger.encoding import Survey, prefix, survey_from

# Few enough to be quick on a slow disk, enough for a median.
ROUNDS = 5
# The probe's own key; it goes by itself.
PROBE_LIFE = timedelta(seconds=5)
CONFIGURED = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy")


class LedgerInspection:
    """One connection to one server. Errors: LedgerUnavailable, in one line without a password."""

    def __init__(self, redis_url: str, name: str, *, timeout: timedelta) -> None:
        self.address = address(redis_url)
        self.program_version = library.version_of(library.source())
        self._ledger = name
        self._redis = open_client(redis_url, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._redis.close()
        self._redis.connection_pool.disconnect()

    def round_trip(self) -> timedelta:
        """The median time of a PING; the first call of all, which connects."""
        with self._mapped_errors():
            self._redis.ping()
            return self._median(self._redis.ping)

    def info(self) -> Mapping[str, Any] | None:
        """INFO of all usual sections; None where it is forbidden."""
        with self._mapped_errors():
            try:
                return dict(self._redis.info())
            except NoPermissionError:
                return None

    def configuration(self) -> Mapping[str, str] | None:
        """How data is kept; None where CONFIG is forbidden or was renamed away."""
        with self._mapped_errors():
            try:
                return {str(k): str(v) for k, v in self._redis.config_get(*CONFIGURED).items()}
            except ResponseError:
                return None

    def functions_version(self) -> int:
        """The version of the loaded library; 0 when there is none."""
        with self._mapped_errors():
            return library.loaded_version(self._redis)

    def write_time(self) -> timedelta:
        """The median time of an acknowledged write, the server's fsync included where it has one."""
        with self._mapped_errors():
            key, life = probe_key(self._ledger), PROBE_LIFE
            return self._median(lambda: self._redis.set(key, "doctor", px=life))

    def survey(self) -> Survey | None:
        """How the ledger stands; None before its functions are loaded, or where they are older ones."""
        with self._mapped_errors():
            try:
                return survey_from(self._redis.fcall("cancelq_survey", 1, prefix(self._ledger)))
            except ResponseError as error:
                if lacks_functions(error):
                    return None
                raise

    def clock(self) -> Offset:
        with self._mapped_errors():
            before = utc_now()
            seconds, micros = self._redis.time()
            after = utc_now()
        return offset(datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros), before, after)

    def forbidden(self) -> list[str]:
        """The commands of a worker that this user may not call, asked inside a transaction that is thrown away."""
        calls = probe_calls(self._ledger)
        with self._mapped_errors():
            connection: Any = self._redis.connection_pool.get_connection()
            try:
                words = [("MULTI",), *(call for _, call in calls), ("DISCARD",)]
                connection.send_packed_command(connection.pack_commands(words))
                answers = [_answer(connection) for _ in words]
            finally:
                connection.disconnect()
                self._redis.connection_pool.release(connection)
        if isinstance(answers[0], NoPermissionError):
            return ["multi"]
        denied = [name for (name, _), answer in zip(calls, answers[1:-1], strict=True) if _is_denied(answer)]
        return list(dict.fromkeys(denied))

    def _median(self, call: Any) -> timedelta:
        took = []
        for _ in range(ROUNDS):
            began = monotonic()
            call()
            took.append((monotonic() - began).total_seconds())
        return timedelta(seconds=median(took))

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except RedisError as error:
            raise LedgerUnavailable(f"Redis at {self.address}: {error}") from error


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response(disconnect_on_error=False)
    except RedisError as error:
        if not is_error_reply(error):
            raise
        return error


def _is_denied(answer: Any) -> bool:
    """Any other error is about the arguments, which mean nothing here."""
    return isinstance(answer, NoPermissionError)
