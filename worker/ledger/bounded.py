"""Connections on which nothing waits for longer than is left of the call: redis-py's own bounds begin anew with every byte."""

from collections.abc import Iterable
from functools import partial
from threading import local
from typing import Any

from redis._parsers import _HiredisParser
from redis.connection import AbstractConnection, ConnectionPool
from redis.exceptions import TimeoutError as TimeIsUp

from worker.clock import monotonic

# Of what is left of the call, for each address: one that swallows packets leaves time for the next, and for an answer.
CONNECT_SHARE = 0.4
# TLS sends so much at once, and begins to wait anew for each.
AT_ONCE = 16384
# Where time is up while a connection is being made: redis-py then closes what it has begun.
HARDLY = 0.001


class Call(local):
    """The call that a thread is in."""

    give_up = monotonic()

    def left(self) -> float:
        """How many seconds are left of it; raises when there are none."""
        seconds = (self.give_up - monotonic()).total_seconds()
        if seconds <= 0:
            raise TimeIsUp("no answer in time")
        return seconds


class _Parser(_HiredisParser):
    """All that a connection reads, its greeting included, comes through here."""

    def __init__(self, call: Call, socket_read_size: int) -> None:
        super().__init__(socket_read_size)  # type: ignore[no-untyped-call]
        self._call = call

    def read_from_socket(self, timeout: Any = None, raise_on_timeout: bool = True) -> bool:  # noqa: FBT001, FBT002
        left = self._call.left()
        least = min(timeout, left) if isinstance(timeout, float) else left
        return bool(super().read_from_socket(least, raise_on_timeout))  # type: ignore[no-untyped-call]


class _Bounded(AbstractConnection):
    """Comes before a class of redis-py's own, TCP, TLS or a unix socket, and asks the call for each time-out."""

    call: Call

    @property
    def socket_timeout(self) -> float:
        try:
            return self.call.left()
        except TimeIsUp:
            return HARDLY

    @socket_timeout.setter
    def socket_timeout(self, _seconds: float | None) -> None:
        """What redis-py's classes set of their own accord does not count."""

    @property
    def socket_connect_timeout(self) -> float:
        return self.socket_timeout * CONNECT_SHARE

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, _seconds: float | None) -> None:
        """The same."""

    def send_packed_command(self, command: Iterable[bytes], check_health: bool = True) -> None:  # noqa: FBT001, FBT002
        whole = b"".join(command)
        for start in range(0, len(whole), AT_ONCE):
            if self._sock is not None:
                self._sock.settimeout(self.call.left())
            piece = whole[start : start + AT_ONCE]
            super().send_packed_command([piece], check_health)  # type: ignore[no-untyped-call]


def bounded(pool: ConnectionPool) -> Call:
    """Have a pool's connections keep to the call of whoever uses them; gives that call, whose end is to be set."""
    call = Call()
    kind = pool.connection_class
    pool.connection_class = type(kind.__name__, (_Bounded, kind), {"call": call})
    pool.connection_kwargs["parser_class"] = partial(_Parser, call)
    return call
