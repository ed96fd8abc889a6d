"""Answers as they may come over a socket: whole ones are read exactly, whatever else comes is none."""

import http.client
import io
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.exchange.answer import HEAD_CAP, Answer, BrokenAnswerError

CAP = 1000


class Segments:
    """A socket that gives these bytes in these pieces, then its end."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = [piece for piece in pieces if piece]

    def recv(self, room: int) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if len(piece) > room:
            self._pieces.insert(0, piece[room:])
        return piece[:room]

    @property
    def is_empty(self) -> bool:
        return not self._pieces

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(b"".join(self._pieces))


class Read:
    """An answer read to its end, and what its connection was told."""

    def __init__(self, *pieces: bytes) -> None:
        self.told: list[str] = []
        self.sock: Any = Segments(*pieces)
        answer = Answer(
            self.sock,
            rest=lambda: self.told.append("rest"),
            close=lambda: self.told.append("close"),
        )
        try:
            self.body = answer.read_up_to(CAP)
        finally:
            answer.release_conn()
        self.status, self.fields = answer.status, answer.fields


def cut(text: bytes, *places: int) -> Iterator[bytes]:
    """The text in pieces."""
    before = 0
    for place in sorted({place % (len(text) + 1) for place in places}):
        yield text[before:place]
        before = place
    yield text[before:]


def chunked(body: bytes, sizes: list[int], extension: bytes, trailers: bytes) -> bytes:
    parts = []
    for size in [*sizes, len(body)]:
        part, body = body[:size], body[size:]
        parts += [b"%X%s\r\n%s\r\n" % (len(part), extension, part)] if part else []
    return b"".join([*parts, b"0\r\n", trailers, b"\r\n"])


BODIES = st.binary(max_size=40)
EARLY = st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n"])
FIRST = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 404", b"HTTP/1.1 429 ", b"HTTP/1.1 503 \xdcbel", b"HTTP/1.1 999 x"]
)
OTHERS = st.lists(
    st.sampled_from([b"Date: x", b"X-Empty:", b"connection: keep-alive", b"Set-Cookie: a=b", b"x-y:\t z \t"]),
    max_size=4,
)
PLACES = st.lists(st.integers(0, 400), max_size=6)


@st.composite
def whole_answers(draw: Any) -> tuple[bytes, bytes]:
    """An answer whose end it says itself, and its body."""
    body, lines = draw(BODIES), draw(OTHERS)
    if draw(st.booleans()):
        lines.append(draw(st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked\t"])))
        sizes = draw(st.lists(st.integers(1, 20), max_size=4))
        sent = chunked(
            body, sizes, draw(st.sampled_from([b"", b" ;a=b"])), draw(st.sampled_from([b"", b"T: 1\r\n"]))
        )
    else:
        lines.append(b"Content-Length: %d" % len(body))
        sent = body
    head = b"\r\n".join([draw(FIRST), *draw(st.permutations(lines)), b"", b""])
    return draw(EARLY) + head + sent, body


@given(whole_answers(), PLACES)
def test_a_whole_answer_is_read_exactly_however_it_is_cut_into_segments(
    answer: tuple[bytes, bytes], places: list[int]
) -> None:
    text, body = answer
    read = Read(*cut(text, *places))
    assert (read.body, read.told) == (body, ["rest"])


@given(whole_answers(), st.integers(0, 1000), PLACES)
def test_no_part_of_an_answer_is_an_answer(answer: tuple[bytes, bytes], end: int, places: list[int]) -> None:
    part = answer[0][: end % len(answer[0])]
    with pytest.raises(BrokenAnswerError):
        Read(*cut(part, *places))


@given(whole_answers(), st.binary(min_size=1, max_size=9), PLACES)
def test_bytes_that_nobody_asked_for_are_never_taken_for_the_next_answer(
    answer: tuple[bytes, bytes], more: bytes, places: list[int]
) -> None:
    text, body = answer
    read = Read(*cut(text + more, *places))
    assert read.body == body
    assert (
        read.told == ["close"] or not read.sock.is_empty
    )  # what is still in the socket is seen before the next request


LINES = st.lists(
    st.builds(
        bytes.__add__,
        st.sampled_from(
            [
                b"Content-Length",
                b"content-length ",
                b"Transfer-Encoding",
                b"Connection",
                b"Bad Name",
                b" a",
                b"",
            ]
        ),
        st.sampled_from(
            [
                b":0",
                b": 2",
                b":5",
                b": +2",
                b": 2, 3",
                b":chunked",
                b": close",
                b": x\rA: b",
                b"",
                b": \x00",
                b":\xb2",
            ]
        ),
    ),
    max_size=4,
)
ODD_FIRST = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.2 200", b"SSH-2.0", b"HTTP/1.1 2_0 x", b"HTTP/1.1 204"]
)


@given(
    ODD_FIRST,
    LINES,
    st.sampled_from([b"\r\n", b"\n"]),
    st.sampled_from([b"", b"{}", b"2\r\n{}\r\n0\r\n\r\n", b"+2\r\n{}\r\n0\r\n\r\n"]),
)
def test_what_is_taken_is_what_the_standard_library_reads(
    first: bytes, lines: list[bytes], newline: bytes, body: bytes
) -> None:
    """It takes much more; what is taken here it reads in the same way."""
    text = newline.join([first, *lines, b"", b""]) + body
    try:
        read = Read(text)
    except BrokenAnswerError:
        return
    lax = http.client.HTTPResponse(Segments(text), method="POST")  # type: ignore[arg-type]
    lax.begin()
    assert (read.status, read.body) == (lax.status, lax.read())


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"HTTP/1.1 200 OK\n\n",
        OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        OK + b"Content-Length: 2, 3\r\n\r\n{}",
        OK + b"Content-Length:\r\n\r\n{}",
        OK + b"Content-Length: 0x2\r\n\r\n{}",
        OK + b"Content-Length: " + b"9" * 19 + b"\r\n\r\n{}",
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: xchunked\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nno trailer\r\n\r\n",
        OK + b"Content-Length : 2\r\n\r\n{}",
        OK + b"Bad Line\r\nContent-Length: 2\r\n\r\n{}",
        OK + b"Location: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
        OK + b"X: a\rContent-Length: 2\r\n\r\n{}",
        OK + b"X: \x00\r\nContent-Length: 2\r\n\r\n{}",
        OK + b"X-Many: 1\r\n" * 101 + b"Content-Length: 2\r\n\r\n{}",
        OK + b"X-Long: " + b"x" * HEAD_CAP + b"\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 099 x\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 +200 x\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/2 200\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n{}",
    ],
)
def test_what_might_be_read_in_two_ways_is_no_answer(text: bytes) -> None:
    with pytest.raises(BrokenAnswerError):
        Read(text)


@pytest.mark.parametrize(
    ("head", "body", "told"),
    [
        (OK + b"\r\n", b"{}", "close"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n", b"{}", "close"),
        (OK + b"Connection: Keep-Alive, Close\r\nContent-Length: 2\r\n\r\n", b"{}", "close"),
        (OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n", b"{}", "rest"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", "rest"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", "rest"),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", b"", "rest"),
        (OK + b"Content-Length: 0\r\n\r\n", b"", "rest"),
        (OK + b"Content-Length: 2000\r\n\r\n", b"x" * CAP, "close"),  # more than anybody wants
    ],
)
def test_where_an_answer_ends_and_whether_another_may_follow(head: bytes, body: bytes, told: str) -> None:
    read = Read(head, body, b"x" * 1000 if len(body) == CAP else b"")
    assert (read.body, read.told) == (body, [told])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "there was none"),
        (b"HTTP/1.1 2", "in the middle"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", "in the middle"),
        (OK + b"Content-Length: SECRET\r\n\r\n", "not one number$"),  # a server may say the token back
    ],
)
def test_an_error_says_what_was_missing_and_quotes_nothing(text: bytes, said: str) -> None:
    with pytest.raises(BrokenAnswerError, match=said):
        Read(text)


def test_values_with_one_name_come_together() -> None:
    read = Read(OK + b"Retry-After: 1\r\nContent-Length: 0\r\nretry-after: \t2 \r\n\r\n")
    assert read.fields == {"retry-after": "1, 2", "content-length": "0"}
