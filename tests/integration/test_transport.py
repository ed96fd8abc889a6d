"""The transport adapter: one write for a request that no header can break, and connections kept only for their like."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from requests import PreparedRequest, Request

from tests.parts.exchange import TOKEN, Exchange
from tests.parts.rogue import ACCEPTED, rogue
from worker.exchange.names import NAMES
from worker.exchange.transport import Bounds, GuardedAdapter

BOUNDS = Bounds(connect=5, read=5)


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


def test_a_network_that_forgot_one_resting_connection_is_not_asked_by_its_neighbours() -> None:
    """As a firewall does it: what leaves on them goes nowhere, and nobody says so."""
    forgotten: set[socket.socket] = set()
    all_there, over = threading.Barrier(3), threading.Event()

    def answer(connection: socket.socket) -> None:
        if connection in forgotten:
            over.wait()
        elif len(forgotten) < all_there.parties:
            all_there.wait(10)
            forgotten.add(connection)
        connection.sendall(ACCEPTED)

    with rogue(answer) as server, requests.Session() as session:
        session.mount("http://", GuardedAdapter(Bounds(connect=5, read=0.5)))

        def get(_nth: int = 0) -> int:
            with session.get(server.url()) as found:
                return int(found.status_code)

        with ThreadPoolExecutor(all_there.parties) as pool:
            assert [*pool.map(get, range(all_there.parties))] == [200] * all_there.parties
        try:
            with pytest.raises(TimeoutError):
                get()
            assert get() == 200
        finally:
            over.set()
    assert len(server.requests) == all_there.parties + 2


def test_an_address_that_nobody_answers_is_tried_last_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with rogue(lambda connection: connection.sendall(ACCEPTED)) as server:
        dead, alive = ("127.0.0.9", server.port), ("127.0.0.1", server.port)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where) for where in (dead, alive)]
        monkeypatch.setattr("worker.exchange.names.socket.getaddrinfo", lambda *_asked, **_more: found)
        adapter = GuardedAdapter(BOUNDS)
        request = Request("GET", f"http://many.invalid:{server.port}/v1").prepare()
        adapter.send(request).raw.release_conn()
        adapter.close()
    known = NAMES.addresses("many.invalid", server.port, 1)
    assert [where[1] for where in known] == [alive[0], dead[0]]
