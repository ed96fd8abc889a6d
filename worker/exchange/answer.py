"""An HTTP/1.1 answer, read strictly: what is not certainly whole, and certainly one answer, is none. Knows no API.

http.client forgives more than a record for auditors may: a head that was cut, a length that is not one number, a chunk's
size in Python's own notation. Here each of these is a BrokenAnswerError (RFC 9112, sections 2 to 7).
"""

import re
from collections.abc import Callable, Mapping
from socket import socket

# One answer's lines together; the exchange's are some 500 bytes.
HEAD_CAP = 64 * 1024
MOST_LINES = 100
RECV = 64 * 1024

_TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
HEAD = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: " + _TEXT + rb")?((?:\r\n" + _NAME + rb":" + _TEXT + rb")*)"
)
FIELD = re.compile(_NAME + rb":" + _TEXT)
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[\t ]*(?:;" + _TEXT + rb")?")
LENGTH = re.compile(r"[0-9]{1,18}")
WITHOUT_BODY = frozenset({204, 304})


class BrokenAnswerError(Exception):
    """What came is not one whole answer."""


class Answer:
    """The head is read when it is made; then `read` gives the body, piece by piece. Raises what the socket raises."""

    def __init__(self, sock: socket, *, rest: Callable[[], None], close: Callable[[], None]) -> None:
        """`rest` is called for a connection that may serve another request, `close` for any other."""
        self._sock = sock
        self._rest, self._close = rest, close
        self._ahead = b""  # what was received and not read yet
        version, self.status, self.fields = self._final_head()
        self.is_whole = False  # the body was read to its end
        self.is_chunked = "transfer-encoding" in self.fields
        self._left = (
            0 if self.is_chunked else _length(self.status, self.fields)
        )  # of the body, or of this chunk
        if self.is_chunked and (version == b"0" or not _is_plainly_chunked(self.fields)):
            raise BrokenAnswerError("its length is said in no one way")
        words = self.fields.get("connection", "").lower().replace(" ", "").split(",")
        self._keeps = version == b"1" and "close" not in words and self._left is not None
        self._note_end()

    @property
    def ends_with_connection(self) -> bool:
        """Whether nothing but the connection's end tells where the body ends: a cut one would look whole."""
        return self._left is None

    def read(self, room: int) -> bytes:
        """At most `room` bytes of the body, none at its end; BrokenAnswerError if it is cut."""
        if self.is_whole:
            return b""
        if self.is_chunked and not self._left:
            self._left = self._next_chunk()
            if not self._left:
                return b""
        part = self._some(room if self._left is None else min(room, self._left))
        if self._left is None:
            self.is_whole = not part
            return part
        if not part:
            raise BrokenAnswerError(f"its body ended {self._left} bytes early")
        self._left -= len(part)
        if self.is_chunked and not self._left and self._line():
            raise BrokenAnswerError("a chunk is longer than it said")
        self._note_end()
        return part

    def read_up_to(self, room: int) -> bytes:
        """At most `room` bytes of what is left of the body."""
        parts = []
        while room > 0 and (part := self.read(room)):
            parts.append(part)
            room -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Nobody wants the rest of it."""
        self._keeps = False

    def release_conn(self) -> None:
        """As requests calls it: the connection may serve another request only after one whole answer and not a byte more."""
        if self.is_whole and self._keeps and not self._ahead:
            self._rest()
        else:
            self._close()

    def _note_end(self) -> None:
        self.is_whole = self.is_whole or (self._left == 0 and not self.is_chunked)

    def _final_head(self) -> tuple[bytes, int, Mapping[str, str]]:
        """The minor version, the status and the headers, names in lower case; what is only on the way (1xx) is passed over."""
        while True:
            head = HEAD.fullmatch(self._until(b"\r\n\r\n"))
            if head is None or head[3].count(b"\n") > MOST_LINES:
                raise BrokenAnswerError("its head is none")
            status = int(head[2])
            if status >= 200:
                return head[1], status, _fields(head[3].decode("iso-8859-1"))

    def _next_chunk(self) -> int:
        """The next chunk's size; after the last one the trailers are passed over, and the body has ended."""
        size = CHUNK.fullmatch(self._line())
        if size is None:
            raise BrokenAnswerError("a chunk's size is none")
        if int(size[1], 16) == 0:
            for _ in range(MOST_LINES):
                line = self._line()
                if not line:
                    self.is_whole = True
                    return 0
                if FIELD.fullmatch(line) is None:
                    break
            raise BrokenAnswerError("its trailers are none")
        return int(size[1], 16)

    def _line(self) -> bytes:
        return self._until(b"\r\n")

    def _until(self, end: bytes) -> bytes:
        """All bytes before `end`, which is passed over."""
        looked = 0
        while (at := self._ahead.find(end, looked)) < 0 and len(self._ahead) <= HEAD_CAP:
            looked = max(len(self._ahead) - len(end), 0)
            part = self._sock.recv(RECV)
            if not part:
                raise BrokenAnswerError(
                    "the connection ended in the middle of it" if self._ahead else "there was none"
                )
            self._ahead += part
        if not 0 <= at <= HEAD_CAP:
            raise BrokenAnswerError(f"more than {HEAD_CAP} bytes without an end")
        found, self._ahead = self._ahead[:at], self._ahead[at + len(end) :]
        return found

    def _some(self, room: int) -> bytes:
        if not self._ahead:
            return self._sock.recv(min(room, RECV))
        part, self._ahead = self._ahead[:room], self._ahead[room:]
        return part


def _fields(lines: str) -> Mapping[str, str]:
    """Of two with one name the values come together, as the standard has it."""
    fields: dict[str, str] = {}
    for line in lines.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def _length(status: int, fields: Mapping[str, str]) -> int | None:
    """The body's; None where it ends with the connection."""
    if status in WITHOUT_BODY:
        return 0
    if "content-length" not in fields:
        return None
    said = set(fields["content-length"].split(", "))
    if len(said) > 1 or not LENGTH.fullmatch(length := said.pop()):
        raise BrokenAnswerError(f"its length is {fields['content-length']!r:.60}")
    return int(length)


def _is_plainly_chunked(fields: Mapping[str, str]) -> bool:
    return fields["transfer-encoding"].lower() == "chunked" and "content-length" not in fields
