"""The transport adapter: heads read as the standard library reads them, requests that no header can break."""

import http.client
import io
from email.message import Message
from typing import Any

import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st
from requests import PreparedRequest, Request

from tests.parts.exchange import TOKEN, Exchange
from tests.parts.rogue import ACCEPTED, rogue
from worker.exchange.transport import Answer, Bounds, GuardedAdapter

BOUNDS = Bounds(connect=5, read=5)

NAMES = st.sampled_from(
    [
        "Content-Length",
        "content-length",
        "Transfer-Encoding",
        "Connection",
        "Date",
        "X-Own",
        "Bad Name",
        " folded",
        "",
    ]
)
VALUES = st.sampled_from(
    ["", "0", "2", "5", " 5\t", "+2", "-1", "2, 3", "²", "x", "chunked", "close", "keep-alive", "a:b"]
)
COLONS = st.sampled_from([":", ": ", ":\t", " : ", ""])
LINES = st.builds(lambda *parts: "".join(parts), NAMES, COLONS, VALUES)
FIRST = st.builds(
    lambda version, status, reason: f"{version} {status}{reason}",
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "SSH-2.0"]),
    st.sampled_from(["100", "200", "204", "304", "307", "404", "503", "999", "20", "2xx"]),
    st.sampled_from([" OK", " ", "", " Ödd reason"]),
)
HEADS = st.builds(
    lambda lines, newline: newline.join([*lines, "", ""]).encode("latin-1"),
    st.builds(lambda first, lines: [first, *lines], FIRST, st.lists(LINES, max_size=6)),
    st.sampled_from(["\r\n", "\r\n", "\n"]),
)


class Reading:
    """A socket of which only `text` can be read, then its end."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._text))  # type: ignore[arg-type]


def read_with(kind: type[http.client.HTTPResponse], text: bytes) -> http.client.HTTPResponse | None:
    """The answer whose head was read; None if it cannot be one."""
    answer = kind(Reading(text), method="POST")  # type: ignore[arg-type]
    try:
        answer.begin()
    except (http.client.HTTPException, ValueError):
        return None
    return answer


def one_length(headers: Message) -> bool:
    """The one rule that the standard library does not have."""
    lengths = {length.strip() for length in headers.get_all("content-length", ())}
    return len(lengths) < 2 and all(length.isascii() and length.isdigit() for length in lengths)


@given(HEADS, st.sampled_from([b"", b"{}", b"{}HTTP/1.1 200 OK\r\n"]))
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: x\r\n\r\n", b"{}")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 5\r\n\r\n", b"{}")
def test_a_head_says_what_the_standard_library_reads(head: bytes, body: bytes) -> None:
    expected = read_with(http.client.HTTPResponse, head + body)
    got = read_with(Answer, head + body)
    if expected is None or not one_length(expected.headers):
        assert got is None
        return
    assert isinstance(got, Answer)
    for name in ("status", "length", "chunked", "will_close", "version"):
        assert getattr(got, name) == getattr(expected, name), name
    assert got.fields == {k.lower(): v.strip(" \t") for k, v in reversed(expected.headers.items())}
    assert got.fp.read() == expected.fp.read()


def test_a_body_that_ends_before_its_length_is_no_body() -> None:
    answer = read_with(Answer, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}")
    assert isinstance(answer, Answer)
    with pytest.raises(http.client.IncompleteRead):
        answer.read_up_to(100)


def sent(request: PreparedRequest) -> bytes:
    """What a server got of it."""
    with rogue(lambda connection: connection.sendall(ACCEPTED)) as server:
        request.url = f"{server.url()}/order/cancelorder"
        adapter = GuardedAdapter(BOUNDS)
        try:
            adapter.send(request).raw.release_conn()
        finally:
            adapter.close()
        return b"".join(server.requests)


def prepared(**headers: str) -> PreparedRequest:
    request = Request("POST", "http://127.0.0.1/v1", data=b"{}").prepare()
    request.headers.update(headers)
    return request


@pytest.mark.parametrize("value", ["a\r\nX-Own: 1", "a\nb", "a\rb", "a\r\n\r\n"])
def test_no_header_makes_another_line(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        sent(prepared(Authorization=value))


def test_a_request_leaves_as_one_head_and_its_body() -> None:
    head, _, body = sent(prepared(Authorization="Bearer x")).partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    assert (first, body) == (b"POST /v1/order/cancelorder HTTP/1.1", b"{}")
    assert [line.partition(b":")[0] for line in lines] == [b"Host", b"Content-Length", b"Authorization"]


def test_a_password_in_the_address_is_no_part_of_the_host() -> None:
    with rogue(lambda connection: connection.sendall(ACCEPTED)) as server:
        url = server.url().replace("://", "://user:secret@")
        adapter = GuardedAdapter(BOUNDS)
        adapter.send(Request("GET", url).prepare()).raw.release_conn()
        adapter.close()
        (got,) = server.requests
    assert b"secret" not in got
    assert b"Authorization: Basic " in got


def test_it_serves_a_session_of_requests(exchange: Exchange) -> None:
    exchange.add_orders(7)
    with requests.Session() as session:
        session.mount("http://", GuardedAdapter(BOUNDS))
        answer: Any = session.post(
            f"{exchange.url}/order/cancelorder",
            json={"orderId": 7},
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        assert answer.json()["commandId"] > 0
        answer.close()
