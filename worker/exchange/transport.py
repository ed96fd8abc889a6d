"""A transport adapter of requests whose connections a wire can permit, time and cut. Knows no API.

The adapter that comes with requests bounds each byte, never the whole; it can't say whether anything was written; it
looks up names inside the attempt; and a request takes it more than twice the processor's time.
"""

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, NamedTuple
from urllib.parse import SplitResult, urlsplit

from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from worker.exchange.answer import Answer, BrokenAnswerError
from worker.exchange.names import NAMES, Address
from worker.exchange.trust import trusted
from worker.exchange.wire import HERE
from worker.gaps import Gap, reached

# Seconds of rest before the first question, between questions, and how many may stay without an answer.
KEPT_ALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class Bounds(NamedTuple):
    """Seconds for the connect, TLS included step by step, and for each read and write."""

    connect: float
    read: float


class Guarded:
    """A connection that asks its request's wire before the first byte, and that the wire can shut down."""

    default_port = 80

    def __init__(self, where: SplitResult, bounds: Bounds, idle: "list[Guarded]") -> None:
        self._host, self._port = where.hostname or "", where.port or self.default_port
        self._netloc = where.netloc.rpartition("@")[2]
        self._bounds = bounds
        self._idle = idle
        self._sock: socket.socket | None = None
        self._guard: socket.socket | None = None  # a second handle: it works even inside a TLS handshake
        self.is_new = True  # in its first request

    def ask(self, request: PreparedRequest) -> Answer:
        """Connect if need be (that may take long), ask for the permit, send in one write, read the answer's head."""
        text = _text_of(request, self._netloc)
        self.is_new = self._sock is None  # over TLS it may have received tickets already
        sock = self._sock or self._connect()
        if HERE.wire is not None:
            HERE.wire.on(self)
            HERE.wire.clear_to_write(lambda: self.is_new or self.is_silent())
        reached(Gap.REQUEST_DUE)
        sock.sendall(text)
        reached(Gap.REQUEST_SENT)
        return Answer(sock, rest=self._rest, close=self.close)

    def is_silent(self) -> bool:
        """Whether the other side has neither closed the idle connection nor said what nobody asked for."""
        try:
            if self._guard is not None:
                self._guard.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        self._let_guard_go()
        if self._sock is not None:
            self._sock.close()

    def shut_down(self) -> None:
        """Wake every read and write on the socket."""
        guard = self._guard
        if guard is not None:
            with suppress(OSError):  # already closed by the other side
                guard.shutdown(socket.SHUT_RDWR)

    def _rest(self) -> None:
        """Wait for the next request to the same place; as many do as were ever busy at once."""
        self._idle.append(self)

    def _connect(self) -> socket.socket:
        if HERE.wire is not None:
            HERE.wire.on(self)
        addresses = NAMES.addresses(self._host, self._port, self._bounds.connect)
        self._sock = self._reach(addresses)
        self._sock.settimeout(self._bounds.read)
        return self._sock

    def _reach(self, addresses: list[Address]) -> socket.socket:
        """The first of them that answers."""
        failed: OSError = OSError("no address")
        for family, host, port in addresses:
            if HERE.wire is not None and HERE.wire.is_cut:
                raise TimeoutError("the wire bound passed before a connection stood")
            try:
                return self._reach_one(family, host, port)
            except OSError as error:
                NAMES.set_aside((family, host, port))
                failed = error
        raise failed

    def _reach_one(self, family: int, host: str, port: int) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(sock)
            sock.settimeout(self._bounds.connect)
            self._guard = sock.dup()
            self._guard.settimeout(0)
            sock.connect((host, port))
            return self._secured(sock)
        except OSError:
            sock.close()
            self._let_guard_go()
            raise

    def _secured(self, sock: socket.socket) -> socket.socket:
        return sock

    def _let_guard_go(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None and HERE.wire is not None:
            HERE.wire.take(guard, self)
        elif guard is not None:
            guard.close()


class GuardedTLS(Guarded):
    """The same over TLS, to the exchange; plain HTTP goes to loopback only."""

    default_port = 443
    _sock: Any

    def is_silent(self) -> bool:
        return super().is_silent() and self._sock.pending() == 0

    def _secured(self, sock: socket.socket) -> socket.socket:
        """An end without TLS's own goodbye is an error: the body before it may be cut."""
        name = self._host.rstrip(".")  # certificates have no dot at the end
        return trusted().wrap_socket(sock, server_hostname=name, suppress_ragged_eofs=False)


class GuardedAdapter(BaseAdapter):
    """Sends over guarded connections, kept per origin; never retries, never follows, knows no proxy. Thread-safe."""

    KINDS: ClassVar[Mapping[str, type[Guarded]]] = {"http": Guarded, "https": GuardedTLS}

    def __init__(self, bounds: Bounds) -> None:
        super().__init__()
        self._bounds = bounds
        # The newest goes first: the other side closes what rests long, and may do so while a request is on its way.
        self._idle: dict[str, list[Guarded]] = {}

    def send(self, request: PreparedRequest, *_: Any, **__: Any) -> Response:
        """The answer's head; its body is still to be read from `raw`, an Answer, which is then released.

        The bounds are the adapter's own, whatever a session asks for; raises what a socket raises, and BrokenAnswerError.
        """
        connection = self._connection(request.url or "")
        try:
            answer = connection.ask(request)
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError | BrokenAnswerError) and not connection.is_new:
                self.close()  # a network that forgot this one while it rested has forgotten its neighbours
            raise
        response = Response()
        response.status_code = answer.status
        response.headers = CaseInsensitiveDict(answer.fields)
        response.request, response.url, response.raw = request, request.url or "", answer
        return response

    def close(self) -> None:
        for idle in list(self._idle.values()):
            while idle:
                idle.pop().close()

    def _connection(self, url: str) -> Guarded:
        where = urlsplit(url)
        idle = self._idle.setdefault(f"{where.scheme}://{where.netloc}", [])
        while idle:
            with suppress(IndexError):  # another thread took the last one
                connection = idle.pop()
                if connection.is_silent():
                    return connection
                connection.close()
        return self.KINDS[where.scheme](where, self._bounds, idle)


def _keep_alive(sock: socket.socket) -> None:
    """What rests is asked for now and then: a network forgets it later, and what it has forgotten is closed by the kernel."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEPT_ALIVE.items():
        if hasattr(socket, name):  # not every system has all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _text_of(request: PreparedRequest, netloc: str) -> bytes:
    """The request as it leaves. ValueError for a value that would make more lines of the head than there are headers."""
    fields = {"Host": netloc, **request.headers}
    lines = [f"{request.method} {request.path_url} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields)]
    head = "\r\n".join([*lines, "", ""])
    if head.count("\r") + head.count("\n") != 2 * (len(lines) + 1):
        raise ValueError("a header's value has a line break")
    body = request.body or b""
    return head.encode("latin-1") + (body.encode() if isinstance(body, str) else body)
