"""A transport adapter of requests whose connections a wire can permit, time and cut. Knows no API.

The adapter that comes with requests bounds each byte, never the whole; it can't say whether anything was written; it
looks up names inside the attempt; and a request takes it more than twice the processor's time.
"""

import http.client
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, NamedTuple, cast
from urllib.parse import SplitResult, urlsplit

from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from worker.exchange.names import NAMES, Address
from worker.exchange.trust import trusted
from worker.exchange.wire import HERE, shut_down
from worker.gaps import Gap, reached

# A head as nearly every answer has it: a final status, and each header one line.
PLAIN_HEAD = re.compile(
    rb"HTTP/1\.1 ([2-9][0-9]{2})(?: [^\r\n]*)?\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n]*\r\n)*)\r\n"
)
# What may say that an answer's end is not where its one Content-Length puts it, or that no other answer follows.
FRAMING = frozenset({"transfer-encoding", "connection"})
WITHOUT_BODY = frozenset({204, 304})


class Bounds(NamedTuple):
    """Seconds for the connect, TLS included step by step, and for each read and write."""

    connect: float
    read: float


class Answer(http.client.HTTPResponse):
    """An answer of which a plain head is read at once; any other head is the standard library's to read."""

    connection: "Guarded"
    fields: Mapping[str, str]  # the headers; names in lower case

    def begin(self) -> None:
        head = PLAIN_HEAD.match(self.fp.peek())
        if head is not None and self._is_plain(int(head[1]), head[2]):
            self.fp.read(head.end())
        else:
            super().begin()
            self._require_one_length()
            pairs = reversed(
                self.headers.items()
            )  # of two with one name the first counts, as for http.client
            self.fields = {name.lower(): value.strip(" \t") for name, value in pairs}

    def read_up_to(self, room: int) -> bytes:
        """At most `room` bytes of the body; IncompleteRead if it ends before its length."""
        parts = []
        while room > 0 and (part := self.read(room)):
            parts.append(part)
            room -= len(part)
        if room > 0 and self.length:
            raise http.client.IncompleteRead(b"", self.length)
        return b"".join(parts)

    def release_conn(self) -> None:
        """As requests calls it: the connection may serve another request, if this answer has ended and does not forbid it."""
        if self.isclosed() and not self.will_close:
            self.connection.rest()
        else:
            self.close()
            self.connection.close()

    def _is_plain(self, status: int, lines: bytes) -> bool:
        """Whether the head needs no second look; then it is taken."""
        pairs = [line.partition(":") for line in lines.decode("iso-8859-1").split("\r\n")[:-1]]
        fields = {name.lower(): value.strip(" \t") for name, _, value in pairs}
        length = fields.get("content-length", "")
        if len(fields) < len(pairs) or not FRAMING.isdisjoint(fields) or status in WITHOUT_BODY:
            return False
        if not _is_length(length):
            return False
        self.fields = fields
        self.code = self.status = status
        self.version, self.reason = 11, ""
        self.chunked = self.will_close = False
        self.length = int(length)
        return True

    def _require_one_length(self) -> None:
        """Two lengths, or one that is none, are a body of unknown size."""
        lengths = {length.strip() for length in self.headers.get_all("content-length", ())}
        if len(lengths) > 1 or not all(map(_is_length, lengths)):
            raise http.client.HTTPException(f"no such Content-Length: {sorted(lengths)}")


class Guarded(http.client.HTTPConnection):
    """A connection that asks its request's wire before the first byte, and that the wire can shut down."""

    response_class = Answer
    sock: Any
    _buffer: list[bytes]  # http.client's: the lines of the head
    _guard: socket.socket | None = None

    def __init__(self, where: SplitResult, bounds: Bounds, idle: "list[Guarded]") -> None:
        super().__init__(where.hostname or "", where.port or self.default_port)
        self._netloc = where.netloc.rpartition("@")[2]
        self._bounds = bounds
        self._idle = idle

    def ask(self, request: PreparedRequest) -> Answer:
        """Send the request, connecting first if need be, and read the answer's head."""
        self.putrequest(request.method or "", request.path_url, skip_host=True, skip_accept_encoding=True)
        self._buffer.append(_lines({"Host": self._netloc, **request.headers}))
        body = request.body
        self.endheaders(body.encode() if isinstance(body, str) else body)
        reached(Gap.REQUEST_SENT)
        answer = cast("Answer", self.getresponse())
        answer.connection = self
        return answer

    def rest(self) -> None:
        """Wait for the next request to the same place; as many do as were ever busy at once."""
        self._idle.append(self)

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

    def connect(self) -> None:
        if HERE.wire is not None:
            HERE.wire.on(self)
        sock = self._connected(NAMES.addresses(self.host, self.port, self._bounds.connect))
        self.sock = self._secured(sock)
        self.sock.settimeout(self._bounds.read)

    def send(self, data: Any) -> None:
        """Connect first (that may take long), then ask for the permit, then write."""
        if self.sock is None:
            self.connect()
        wire = HERE.wire
        if wire is not None:
            wire.on(self)
            wire.clear_to_write()
        reached(Gap.REQUEST_DUE)
        super().send(data)

    def close(self) -> None:
        """Also called by http.client before the body of an answer with `Connection: close` is read."""
        guard, self._guard = self._guard, None
        if guard is not None and HERE.wire is not None:
            HERE.wire.keep(guard)
        elif guard is not None:
            guard.close()
        super().close()

    def shut_down(self) -> None:
        """Wake every read and write on the socket; a second handle works even inside a TLS handshake."""
        guard = self._guard
        if guard is not None:
            shut_down(guard)

    def _send_output(self, message_body: Any = None, **_chunks: Any) -> None:
        """Head and body in one write: a body in a second one costs a system call and a thread switch."""
        head = b"\r\n".join((*self._buffer, b"", b""))
        self._buffer.clear()
        self.send(head + message_body if message_body else head)

    def _connected(self, addresses: list[Address]) -> socket.socket:
        failed: OSError = OSError("no address")
        for family, host, port in addresses:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(self._bounds.connect)
                self._guard = sock.dup()
                self._guard.settimeout(0)
                sock.connect((host, port))
            except OSError as error:
                sock.close()
                self._drop_guard()
                failed = error
            else:
                return sock
        raise failed

    def _secured(self, sock: socket.socket) -> socket.socket:
        return sock

    def _drop_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.close()


class GuardedTLS(Guarded):
    """The same over TLS, to the exchange; plain HTTP goes to loopback only."""

    default_port = http.client.HTTPS_PORT

    def _secured(self, sock: socket.socket) -> socket.socket:
        return trusted().wrap_socket(sock, server_hostname=self.host)


class GuardedAdapter(BaseAdapter):
    """Sends over guarded connections, kept per origin; never retries, never follows, knows no proxy. Thread-safe."""

    KINDS: ClassVar[Mapping[str, type[Guarded]]] = {"http": Guarded, "https": GuardedTLS}

    def __init__(self, bounds: Bounds) -> None:
        super().__init__()
        self._bounds = bounds
        self._idle: dict[str, list[Guarded]] = {}

    def send(self, request: PreparedRequest, *_: Any, **__: Any) -> Response:
        """The answer's head; its body is still to be read from `raw`, an Answer, which is then released.

        The bounds are the adapter's own, whatever a session asks for; raises what the socket and http.client raise.
        """
        connection = self._connection(request.url or "")
        try:
            answer = connection.ask(request)
        except BaseException:
            connection.close()
            raise
        response = Response()
        response.status_code = answer.status
        response.headers = CaseInsensitiveDict(answer.fields)
        response.request, response.url, response.raw = request, request.url or "", answer
        return response

    def close(self) -> None:
        for idle in self._idle.values():
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


def _is_length(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _lines(headers: Mapping[str, str]) -> bytes:
    """The head's lines after the first. ValueError for what would be more lines than that."""
    text = "\r\n".join([f"{name}: {value}" for name, value in headers.items()])
    if text.count("\r") + text.count("\n") != 2 * (len(headers) - 1):
        raise ValueError("a header's value has a line break")
    return text.encode("latin-1")
