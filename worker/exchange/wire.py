"""One request on the wire: its permit, its total bound, and whether a byte has left. Knows no API."""

import socket
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from worker.clock import monotonic, utc_now

# How often the watchdog looks; a bound may be overrun by this much.
WATCH_EVERY = timedelta(milliseconds=50)


class Cuttable(Protocol):
    """A connection that somebody else may shut down."""

    def shut_down(self) -> None: ...


class Wire:
    """One request's passage: made before it, asked afterwards."""

    __slots__ = (
        "_connection",
        "_kept",
        "_lock",
        "_over",
        "ends",
        "held",
        "is_cut",
        "permit",
        "sent_at",
        "started",
    )

    def __init__(
        self, permit: Callable[[], None], bound: timedelta, held: Callable[[], bool] = lambda: True
    ) -> None:
        self.permit = permit
        self.held = held  # asked while the request is under way
        self.ends = monotonic() + bound
        self.started = False  # a byte of the request may have left
        self.sent_at: datetime | None = None
        self.is_cut = False  # what was read may end where we cut it, and look whole
        self._connection: Cuttable | None = None
        self._kept: list[socket.socket] = []
        self._lock = threading.Lock()
        self._over = False

    def on(self, connection: Cuttable) -> None:
        """The request is about to use `connection`."""
        with self._lock:
            self._connection = connection

    def clear_to_write(self, is_ready: Callable[[], bool]) -> None:
        """The last statement before the first byte: raises if the right to send is gone, or the connection is not ready.

        The permit may take a round trip: what was true before it is looked at again.
        """
        self._be_in_time()
        self.permit()
        self._be_in_time()
        if not is_ready():
            raise ConnectionError("the kept connection was closed, or said what nobody asked for")
        self.sent_at = utc_now()
        self.started = True

    def _be_in_time(self) -> None:
        if self.is_cut or monotonic() >= self.ends:
            raise TimeoutError("the wire bound passed before the first byte")

    def take(self, guard: socket.socket, connection: Cuttable) -> None:
        """Close the handle of a closed connection: if a cut may just be under way, only with this request's end.

        Its number could be another socket's by then.
        """
        with self._lock:
            if self._connection is connection:
                self._kept.append(guard)
            else:
                guard.close()

    def cut(self) -> None:
        """Shut the socket down under whoever waits on it."""
        with self._lock:
            if self._over:
                return
            self.is_cut = True
            if self._connection is not None:
                self._connection.shut_down()

    def finish(self) -> None:
        """From here on the connection may belong to somebody else."""
        with self._lock:
            self._over = True
            self._connection = None
            for guard in self._kept:
                guard.close()


class Watchdog:
    """Cuts every wire that is past its total bound or whose claim is lost, whatever it is waiting for.

    Once the lease has lapsed another holder may send: ours must not be in flight beside that.
    """

    def __init__(self) -> None:
        self._wires: dict[int, Wire] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="wire-watchdog", daemon=True)
        self._thread.start()

    def guard(self, wire: Wire) -> None:
        self._wires[id(wire)] = wire

    def release(self, wire: Wire) -> None:
        wire.finish()
        self._wires.pop(id(wire), None)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(WATCH_EVERY.total_seconds()):
            now = monotonic()
            for wire in list(self._wires.values()):
                if now >= wire.ends or (wire.started and not wire.held()):
                    wire.cut()


class _Here(threading.local):
    """The wire of the request that this thread is sending."""

    wire: Wire | None = None


HERE = _Here()
