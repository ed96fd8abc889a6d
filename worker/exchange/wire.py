"""One request on the wire: its permit, its total bound, and whether a byte has left. Knows no API.

`requests` bounds each byte, never the whole; it can't say whether anything was written; and it looks up
names inside the attempt. The connection classes here mend exactly these three.
"""

import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, ClassVar

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NameResolutionError, NewConnectionError

from worker.clock import monotonic, utc_now
from worker.exchange.trust import trusted
from worker.gaps import Gap, reached

# How often the watchdog looks; a bound may be overrun by this much.
WATCH_EVERY = timedelta(milliseconds=50)
# How long a looked-up address serves before it is refreshed in the background.
NAME_LIFE = timedelta(seconds=60)

Address = tuple[int, str, int]  # family, host, port


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
        self._connection: GuardedMixin | None = None
        self._kept: list[socket.socket] = []
        self._lock = threading.Lock()
        self._over = False

    def on(self, connection: "GuardedMixin") -> None:
        """The request is about to use `connection`."""
        with self._lock:
            self._connection = connection

    def clear_to_write(self) -> None:
        """The last statement before the first byte: raises if the right to send is gone."""
        if not self.started:
            if monotonic() >= self.ends:
                raise TimeoutError("the wire bound passed before the first byte")
            self.permit()
            self.sent_at = utc_now()
            self.started = True

    def keep(self, guard: socket.socket) -> None:
        """The connection is closed, but an answer that ends with it may still be read from its socket."""
        with self._lock:
            self._kept.append(guard)

    def cut(self) -> None:
        """Shut the socket down under whoever waits on it."""
        with self._lock:
            if self._over:
                return
            self.is_cut = True
            if self._connection is not None:
                self._connection.shut_down()
            for guard in self._kept:
                _shut_down(guard)

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


class Names:
    """Host names → addresses, looked up beside the attempt and never waited for without a bound."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], tuple[timedelta, list[Address]]] = {}
        self._asking: dict[tuple[str, int], Future[list[Address]]] = {}

    def addresses(self, host: str, port: int, within: float) -> list[Address]:
        """Fresh or stale addresses at once; unknown ones within `within` seconds, else OSError."""
        key = (host, port)
        known = self._known.get(key)
        if known is not None and monotonic() - known[0] < NAME_LIFE:
            return known[1]
        answer = self._ask(key)
        if known is not None:
            return known[1]
        try:
            return answer.result(timeout=within)
        except FutureTimeout:
            raise OSError(f"no address for {host} within {within:g} s") from None

    def _ask(self, key: tuple[str, int]) -> Future[list[Address]]:
        with self._lock:
            asking = self._asking.get(key)
            if asking is None:
                asking = self._asking[key] = Future()
                looking = threading.Thread(target=self._look_up, args=(key, asking), daemon=True)
                try:
                    looking.start()
                except RuntimeError as error:  # the host gives no thread
                    del self._asking[key]
                    asking.set_exception(OSError(f"no look-up of {key[0]}: {error}"))
            return asking

    def _look_up(self, key: tuple[str, int], answer: "Future[list[Address]]") -> None:
        try:
            found = socket.getaddrinfo(*key, type=socket.SOCK_STREAM)
            addresses = [(int(family), str(where[0]), key[1]) for family, _, _, _, where in found]
            self._known[key] = (monotonic(), addresses)
            answer.set_result(addresses)
        except (OSError, UnicodeError) as error:  # UnicodeError: no host can have such a name
            answer.set_exception(error)
        finally:
            with self._lock:
                self._asking.pop(key, None)


class _Here(threading.local):
    """The wire of the request that this thread is sending."""

    wire: Wire | None = None


HERE = _Here()
NAMES = Names()


class GuardedMixin:
    """What a connection needs so that a wire can permit, time and cut it."""

    host: str
    port: int
    timeout: Any
    sock: Any
    socket_options: Any
    _buffer: list[bytes]  # http.client's: the lines of the head
    _guard: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        within = self.timeout if isinstance(self.timeout, int | float) else 5.0
        try:
            addresses = NAMES.addresses(self.host, self.port, within)
        except OSError as error:
            raise NameResolutionError(self.host, self, error) from error  # type: ignore[arg-type]
        return self._connect_any(addresses, within)

    def _connect_any(self, addresses: list[Address], within: float) -> socket.socket:
        failed: OSError = OSError("no address")
        for family, host, port in addresses:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(within)
                self._guard = sock.dup()
                sock.connect((host, port))
            except OSError as error:
                sock.close()
                self._drop_guard()
                failed = error
            else:
                return sock
        raise NewConnectionError(self, f"no connection to {self.host}: {failed}")  # type: ignore[arg-type]

    def connect(self) -> None:
        if HERE.wire is not None:
            HERE.wire.on(self)
        super().connect()  # type: ignore[misc]

    def send(self, data: Any) -> None:
        """Connect first (that may take long), then ask for the permit, then write."""
        wire = HERE.wire
        if self.sock is None:
            self.connect()
        if wire is not None:
            wire.on(self)
            if wire.started:
                reached(Gap.REQUEST_HALF_SENT)
            wire.clear_to_write()
        super().send(data)  # type: ignore[misc]

    def _send_output(self, message_body: Any = None, **_chunks: Any) -> None:
        """Head and body in one write: a small body in a second one costs a system call and a thread switch."""
        self._buffer.extend((b"", b""))
        head = b"\r\n".join(self._buffer)
        self._buffer.clear()
        self.send(head + message_body if isinstance(message_body, bytes) else head)

    def getresponse(self) -> Any:
        reached(Gap.REQUEST_SENT)
        return super().getresponse()  # type: ignore[misc]

    def close(self) -> None:
        """Also called by http.client before the body of an answer with `Connection: close` is read."""
        guard, self._guard = self._guard, None
        if guard is not None and HERE.wire is not None:
            HERE.wire.keep(guard)
        elif guard is not None:
            guard.close()
        super().close()  # type: ignore[misc]

    def shut_down(self) -> None:
        """Wake every read and write on the socket; a second handle works even inside a TLS handshake."""
        guard = self._guard
        if guard is not None:
            _shut_down(guard)

    def _drop_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.close()


def _shut_down(guard: socket.socket) -> None:
    with suppress(OSError):  # already closed by the other side
        guard.shutdown(socket.SHUT_RDWR)


class GuardedHTTP(GuardedMixin, HTTPConnection):
    """Plain HTTP, to loopback."""


class GuardedHTTPS(GuardedMixin, HTTPSConnection):
    """HTTPS, to the exchange."""

    def connect(self) -> None:
        self.ssl_context = trusted()
        super().connect()


class GuardedHTTPPool(HTTPConnectionPool):
    ConnectionCls = GuardedHTTP


class GuardedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = GuardedHTTPS


class GuardedAdapter(HTTPAdapter):
    """The requests adapter over guarded connections; never retries, never follows, knows no proxy."""

    POOLS: ClassVar[dict[str, Any]] = {"http": GuardedHTTPPool, "https": GuardedHTTPSPool}
    _pool: Any = None

    def get_connection_with_tls_context(self, *args: Any, **more: Any) -> Any:
        """The one pool of the one base URL: to find it anew takes a tenth of a request's time."""
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*args, **more)
        return self._pool

    def request_url(self, request: PreparedRequest, proxies: Mapping[str, str] | None) -> str:  # noqa: ARG002
        return request.path_url

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        self.poolmanager.pool_classes_by_scheme = self.POOLS

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ARG002
        """Whom to trust stands in each connection's context."""
        conn.cert_reqs = "CERT_REQUIRED"
