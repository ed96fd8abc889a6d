"""An HTTP/1.1 answer, read strictly: what is not certainly whole, and certainly one answer, is none. Knows no API.

http.client forgives more than a record for auditors may: a head that was cut, a length that is not one number, a chunk's
size in Python's own notation. Here each of these is a BrokenAnswerError (RFC 9112, sections 2 to 7).
"""

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from socket import socket

# One answer's lines together; the exchange's are some 500 bytes.
HEAD_CAP = 64 * 1024
MOST_LINES = 100
# A buffer of this size is made for each call, whatever comes: sixty-four threads with large ones tear the heap to pieces.
HEAD_RECV = 4 * 1024
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
SWITCHED = 101
CHUNKED = -1


class BrokenAnswerError(Exception):
    """What came is not one whole answer."""


class Answer:
    """The head is read when it is made; then `read` gives the body, piece by piece. Raises what the socket raises."""

    def __init__(self, sock: socket, *, rest: Callable[[], None], close: Callable[[], None]) -> None:
        """`rest` is called for a connection that may serve another request, `close` for any other."""
        self._sock = sock
        self._rest, self._close = rest, close
        self._ahead = b""  # what was received and not read yet
        self.status = 0
        version, self.status, self.fields = self._final_head()
        length = _length(version, self.status, self.fields)
        words = self.fields.get("connection", "").lower().replace(" ", "").split(",")
        self._keeps = version == b"1" and "close" not in words and length is not None
        self._pieces = self._body(length)
        self._piece = b""
        self.is_whole = False  # the body was read to its end
        # Nothing but the connection's end tells where the body ends: a cut one would look whole.
        self.ends_with_connection = length is None

    def read(self, room: int) -> bytes:
        """At most `room` bytes of the body, none at its end; BrokenAnswerError if it is cut."""
        piece = self._piece or next(self._pieces, b"")
        part, self._piece = piece[:room], piece[room:]
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
        """As requests calls it: the connection may serve another request only after one whole answer and not a byte more.

        HTTP/1.1 says of no answer which request it is for: of what comes unasked only what is there before the next request
        leaves can be told from an answer.
        """
        if self.is_whole and self._keeps and not self._ahead:
            self._rest()
        else:
            self._pieces.close()
            self._close()

    def _final_head(self) -> tuple[bytes, int, Mapping[str, str]]:
        """The minor version, the status and the headers, names in lower case; what is only on the way (1xx) is passed over."""
        while True:
            head = HEAD.fullmatch(self._until(b"\r\n\r\n"))
            if head is None or head[3].count(b"\n") > MOST_LINES:
                raise BrokenAnswerError("its head is none")
            status = int(head[2])
            if status == SWITCHED:
                raise BrokenAnswerError("it goes on in another protocol, which nobody asked for")
            if status >= 200:
                return head[1], status, _fields(head[3].decode("iso-8859-1"))

    def _body(self, length: int | None) -> Generator[bytes, None, None]:
        if length is None:
            yield from iter(lambda: self._some(RECV), b"")
        elif length == CHUNKED:
            yield from self._chunks()
        else:
            yield from self._counted(length)
        self.is_whole = True

    def _chunks(self) -> Iterator[bytes]:
        while size := self._chunk_size():
            yield from self._counted(size)
            if self._until(b"\r\n"):
                raise BrokenAnswerError("a chunk is longer than it said")
        for _ in range(MOST_LINES):
            trailer = self._until(b"\r\n")
            if not trailer:
                return
            if FIELD.fullmatch(trailer) is None:
                break
        raise BrokenAnswerError("its trailers are none")

    def _chunk_size(self) -> int:
        size = CHUNK.fullmatch(self._until(b"\r\n"))
        if size is None:
            raise BrokenAnswerError("a chunk's size is none")
        return int(size[1], 16)

    def _counted(self, left: int) -> Iterator[bytes]:
        while left > 0:
            part = self._some(left)
            if not part:
                raise BrokenAnswerError(f"it ended {left} bytes early")
            left -= len(part)
            yield part

    def _until(self, end: bytes) -> bytes:
        """All bytes before `end`, which is passed over."""
        looked = 0
        while (at := self._ahead.find(end, looked)) < 0 and len(self._ahead) <= HEAD_CAP:
            looked = max(len(self._ahead) - len(end), 0)
            part = self._sock.recv(HEAD_RECV)
            if not part:
                begun = self._ahead or self.status
                raise BrokenAnswerError(
                    "the connection ended in the middle of it" if begun else "there was none"
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


def _length(version: bytes, status: int, fields: Mapping[str, str]) -> int | None:
    """The body's, or CHUNKED; None where it ends with the connection."""
    if status in WITHOUT_BODY:
        return 0
    encoding, length = fields.get("transfer-encoding"), fields.get("content-length")
    if encoding is not None:
        if encoding.lower() != "chunked" or length is not None or version == b"0":
            raise BrokenAnswerError("its length is said in no one way")
        return CHUNKED
    if length is None:
        return None
    said = set(length.split(", "))
    if len(said) > 1 or not LENGTH.fullmatch(said.pop()):
        raise BrokenAnswerError("its length is not one number")
    return int(length.partition(",")[0])
