"""The transport adapter: one write for a request that no header can break, and connections kept only for their like."""

from typing import Any

import pytest
import requests
from requests import PreparedRequest, Request

from tests.parts.exchange import TOKEN, Exchange
from tests.parts.rogue import ACCEPTED, rogue
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
