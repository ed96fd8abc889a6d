"""The exchange client on real sockets: bounded in every stall, honest about what left, never a byte twice."""

import contextlib
import http.client
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import requests.exceptions
import urllib3.exceptions

from tests.parts.exchange import TOKEN, eventually
from tests.parts.exchange import Exchange as Simulator
from tests.parts.rogue import ACCEPTED, closing, rogue
from worker.errors import LeaseLapsed
from worker.exchange.client import CANCEL_BODY_CAP, Exchange, no_permit
from worker.exchange.line import Timeouts
from worker.exchange.token import Bearer
from worker.exchange.wire import HERE
from worker.job import OrderId
from worker.reply import Answered, NotSent, Reply, Unanswered
from worker.secret import SecretStr

TOTAL = 0.6
SLACK = 0.3  # the requirement: total_timeout + 0.3 s
BODY = b'{"orderId":7}'


@pytest.fixture
def connect() -> Iterator[Callable[[str], Exchange]]:
    """Makes clients with short bounds."""
    with contextlib.ExitStack() as stack:

        def make(url: str, **wider: float) -> Exchange:
            bounds = {"connect": 0.4, "read": 0.5, "total": TOTAL} | wider
            timeouts = Timeouts(**{name: timedelta(seconds=bound) for name, bound in bounds.items()})
            client = Exchange(url, Bearer.fixed(SecretStr(TOKEN)), timeouts=timeouts)
            stack.callback(client.close)
            return client

        yield make


def bounded(client: Exchange, permit: Callable[[], None] = no_permit) -> Reply:
    """One cancel, which must be back in time."""
    began = time.monotonic()
    reply = client.cancel(BODY, permit)
    assert time.monotonic() - began < TOTAL + SLACK
    return reply


# --- the total bound


@pytest.mark.parametrize("part", ["headers", "body"])
def test_an_answer_that_drips_is_given_up_at_the_total_bound(
    exchange: Simulator, connect: Any, part: str
) -> None:
    exchange.script(7, {"drip": {"bytes_per_second": 10, "part": part}})
    exchange.add_orders(8)
    client = connect(exchange.url)
    assert isinstance(bounded(client), Unanswered)
    after = client.cancel(b'{"orderId":8}', no_permit)
    assert isinstance(after, Answered)
    assert after.status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 500\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length:",  # the blanks belong to the head
    ],
    ids=["until_the_end", "one_request_a_connection", "length_cut_off"],
)
def test_a_dripping_body_on_a_closing_connection_is_given_up_too(connect: Any, head: bytes) -> None:
    with rogue() as server:

        def answer(connection: socket.socket) -> None:
            connection.sendall(head)
            server.drip(connection, b" " * 500)

        server.answer = answer
        assert isinstance(bounded(connect(server.url())), Unanswered)


def test_a_server_that_says_nothing_is_given_up_at_the_total_bound(connect: Any) -> None:
    with rogue() as server:
        client = connect(server.url())
        assert isinstance(bounded(client), Unanswered)
        server.answer = lambda connection: connection.sendall(ACCEPTED)
        assert isinstance(bounded(client), Answered)


def test_a_tls_handshake_that_never_begins_is_not_sent(connect: Any) -> None:
    with rogue() as server:
        assert isinstance(bounded(connect(server.url("https"))), NotSent)
        assert not any(BODY in got for got in server.requests)


def test_a_tls_handshake_that_drips_is_not_sent(connect: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        over = threading.Event()

        def serve() -> None:
            connection = stack.enter_context(listener.accept()[0])
            record = b"\x16\x03\x03\x0f\x00" + b"\x00" * 500
            with contextlib.suppress(OSError):
                for position in range(len(record)):
                    if over.wait(0.1):
                        return
                    connection.sendall(record[position : position + 1])

        server = threading.Thread(target=serve)
        server.start()
        stack.callback(server.join)
        stack.callback(over.set)
        client = connect(f"https://127.0.0.1:{listener.getsockname()[1]}/v1")
        assert isinstance(bounded(client), NotSent)


@pytest.fixture
def full_queue() -> Iterator[int]:
    """A port whose next SYN is dropped."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_connect_that_takes_too_long_is_not_sent(connect: Any, full_queue: int) -> None:
    assert isinstance(bounded(connect(f"http://127.0.0.1:{full_queue}/v1")), NotSent)


def test_many_addresses_of_which_none_answers_take_no_longer(
    connect: Any, full_queue: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", full_queue))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [address] * 20)
    assert isinstance(bounded(connect(f"http://many.invalid:{full_queue}/v1")), NotSent)


def test_an_address_of_a_family_that_this_host_lacks_is_passed_over(
    connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rogue(lambda connection: connection.sendall(ACCEPTED)) as server:
        lacking = (socket.AF_APPLETALK + 250, socket.SOCK_STREAM, 0, "", ("::1", server.port))
        good = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", server.port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [lacking, good])
        assert isinstance(bounded(connect(server.url(host="both.invalid"))), Answered)


# --- what never left


def test_a_refused_connection_is_not_sent(connect: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert isinstance(bounded(connect(f"http://127.0.0.1:{port}/v1")), NotSent)


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".invalid"])
def test_a_name_that_does_not_resolve_is_not_sent(connect: Any, host: str) -> None:
    assert isinstance(bounded(connect(f"https://{host}/v1")), NotSent)


def test_a_resolver_that_never_answers_is_not_waited_for(
    connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    real = socket.getaddrinfo

    def silent(host: str, *rest: Any, **more: Any) -> Any:
        if host == "silent.invalid":
            over.wait(10)
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    try:
        assert isinstance(bounded(connect("https://silent.invalid/v1")), NotSent)
    finally:
        over.set()


def lapsed() -> None:
    raise LeaseLapsed("too late")


def test_without_the_permit_no_byte_leaves(connect: Any) -> None:
    with rogue(lambda connection: connection.sendall(ACCEPTED)) as server:
        client = connect(server.url())
        assert isinstance(bounded(client, lapsed), NotSent)
        assert isinstance(bounded(client), Answered)
        assert isinstance(bounded(client, lapsed), NotSent)  # on a kept connection too
        assert isinstance(bounded(client), Answered)
        assert [BODY in got for got in server.requests] == [True, True]


def test_the_permit_is_asked_after_the_connect(connect: Any) -> None:
    asked: list[bool] = []
    with rogue(lambda connection: connection.sendall(ACCEPTED)) as server:
        reply = bounded(connect(server.url()), lambda: asked.append(server.connected.wait(0.4)))
    assert isinstance(reply, Answered)
    assert asked == [True]  # once, and the connection stood already


def test_a_permit_that_takes_its_time_is_not_overtaken_by_a_byte(connect: Any) -> None:
    seen_before: list[int] = []
    with rogue(lambda connection: connection.sendall(ACCEPTED)) as server:

        def slow() -> None:
            server.over.wait(0.2)
            seen_before.append(len(server.requests))

        reply = bounded(connect(server.url()), slow)
    assert isinstance(reply, Answered)
    assert seen_before == [0]


def test_a_permit_that_came_too_late_sends_nothing(connect: Any) -> None:
    with rogue(lambda connection: connection.sendall(ACCEPTED)) as server:
        client = connect(server.url())
        assert isinstance(client.cancel(BODY, lambda: server.over.wait(TOTAL + 0.02) and None), NotSent)
        assert server.requests == []


# --- bytes left, no whole answer came


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n" + b'{"command',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"com\r\n',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\n{}",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 2xx OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: 1\r\n" * 101 + b"\r\n{}",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n{}",
    ],
    ids=[
        "eof",
        "cut_body",
        "cut_chunk",
        "odd_chunk",
        "two_lengths",
        "ssh",
        "odd_status",
        "many",
        "long",
    ],
)
def test_a_broken_answer_is_unanswered_and_never_asked_for_again(connect: Any, text: bytes) -> None:
    with rogue(closing(text)) as server:
        client = connect(server.url())
        assert isinstance(bounded(client), Unanswered)
        assert len(server.requests) == 1
        server.answer = lambda connection: connection.sendall(ACCEPTED)
        assert isinstance(bounded(client), Answered)


@pytest.mark.parametrize(
    "step", [{"reset": "after"}, {"drop": "before"}, {"cut_body": 3}, {"content_length": 5000}]
)
def test_a_torn_connection_is_unanswered(exchange: Simulator, connect: Any, step: dict[str, Any]) -> None:
    exchange.script(7, step)
    reply = bounded(connect(exchange.url))
    assert isinstance(reply, Unanswered)
    assert reply.sent_at is not None
    assert len(exchange.requests(7)) == 1


# --- what an answer may not do


def test_no_redirect_is_followed(exchange: Simulator, connect: Any) -> None:
    exchange.script(7, {"status": 307, "location": f"{exchange.url}/order/cancelorder"})
    reply = bounded(connect(exchange.url))
    assert isinstance(reply, Answered)
    assert (reply.status, len(exchange.requests())) == (307, 1)


def test_a_huge_answer_is_cut_off_and_costs_no_memory(exchange: Simulator, connect: Any) -> None:
    exchange.script(7, {"body_bytes": 50_000_000})
    exchange.add_orders(8)
    client = connect(exchange.url, read=10, total=10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reply = client.cancel(BODY, no_permit)
    assert isinstance(reply, Answered)
    assert (reply.truncated, len(reply.body)) == (True, CANCEL_BODY_CAP)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
    assert isinstance(client.cancel(b'{"orderId":8}', no_permit), Answered)


def test_a_compressed_answer_is_kept_as_it_came(exchange: Simulator, connect: Any) -> None:
    exchange.script(7, {"gzip": True})
    reply = bounded(connect(exchange.url))
    assert isinstance(reply, Answered)
    assert reply.headers["content-encoding"] == "gzip"
    assert reply.body.startswith(b'{"commandId"')


# --- kept connections


def test_a_kept_connection_is_used_again(connect: Any) -> None:
    with rogue(lambda connection: connection.sendall(ACCEPTED)) as server:
        client = connect(server.url())
        assert [type(bounded(client)) for _ in range(3)] == [Answered] * 3
        assert len(server._connections) == 1


def test_a_kept_connection_that_the_server_closed_is_no_error(connect: Any) -> None:
    with rogue(closing(ACCEPTED)) as server:
        client = connect(server.url())
        assert isinstance(bounded(client), Answered)
        eventually(lambda: server.answered == 1, what="the server's close")
        assert isinstance(bounded(client), Answered)
        assert len(server.requests) == 2


@pytest.mark.parametrize("meanwhile", ["an answer", "an end"])
def test_what_comes_while_the_permit_is_asked_is_not_taken_for_the_answer(
    connect: Any, meanwhile: str
) -> None:
    with rogue(lambda connection: connection.sendall(ACCEPTED)) as server:
        client = connect(server.url())
        assert isinstance(bounded(client), Answered)
        (kept,) = server._connections

        def slow() -> None:
            if meanwhile == "an answer":
                kept.sendall(ACCEPTED)
            else:
                kept.shutdown(socket.SHUT_WR)

        assert isinstance(bounded(client, slow), NotSent)
        assert len(server.requests) == 1
        assert isinstance(bounded(client), Answered)
        assert len(server.requests) == 2


def test_a_kept_connection_that_dies_under_the_request_is_no_reason_to_send_again(connect: Any) -> None:
    with rogue(lambda connection: connection.sendall(ACCEPTED)) as server:
        client = connect(server.url())
        assert isinstance(bounded(client), Answered)
        server.answer = closing(b"")
        assert isinstance(bounded(client), Unanswered)
        assert len(server.requests) == 2


# --- whatever the driver raises


def upstream() -> Iterator[type[Exception]]:
    """Every exception class that requests, urllib3 and the standard library's wire may raise."""
    yield from (OSError, ConnectionResetError, BrokenPipeError, ValueError, RuntimeError, RecursionError)
    for module in (requests.exceptions, urllib3.exceptions, http.client, ssl, socket):
        for found in vars(module).values():
            if isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, Warning):
                yield found


def made(kind: type[Exception]) -> Exception:
    """One of them, whatever its constructor wants."""
    for arguments in (
        (),
        ("x",),
        ("x", "y"),
        ("x", "y", "z"),
        ("x", "y", 0),
        (3, 5),
        (SimpleNamespace(tell=int, length_remaining=1), b"5"),
    ):
        with contextlib.suppress(Exception):
            error = kind(*arguments)
            str(error)
            return error
    raise AssertionError(f"how is {kind} made?")


class Raising:
    """An adapter that raises `error`, before or after the first byte."""

    def __init__(self, error: Exception, *, late: bool) -> None:
        self.error, self.late = error, late

    def send(self, _request: Any, **_options: Any) -> None:
        if self.late and HERE.wire is not None:
            HERE.wire.clear_to_write(lambda: True)
        raise self.error

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(("late", "expected"), [(False, NotSent), (True, Unanswered)])
def test_whatever_the_driver_raises_the_first_byte_decides(
    connect: Any, *, late: bool, expected: type[Reply]
) -> None:
    client = connect("http://127.0.0.1:1/v1")
    client._line._adapter.close()
    for kind in set(upstream()):
        client._line._adapter = Raising(made(kind), late=late)
        assert isinstance(client.cancel(BODY, no_permit), expected), kind


def test_reads_are_bounded_like_posts(connect: Any) -> None:
    with rogue() as server:
        began = time.monotonic()
        read = connect(server.url()).orders([OrderId(7), OrderId(8)])
        assert time.monotonic() - began < TOTAL + SLACK
    assert isinstance(read.reply, Unanswered)
    assert (read.conclusive, dict(read.found)) == (False, {})


# --- a claim that is lost while the request is under way


def test_a_request_is_cut_once_its_claim_is_lost(exchange: Simulator, connect: Any) -> None:
    exchange.script(7, {"delay": 0.5})
    client = connect(exchange.url)
    reply = client.cancel(BODY, no_permit, lambda: False)
    assert isinstance(reply, Unanswered)
    eventually(lambda: exchange.requests(7)[0]["fate"] == "gone", what="a hang-up")
