"""What the exchange's reads prove, answer by answer, over real sockets: found, missing, or simply not read."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from tests.parts.exchange import TOKEN
from tests.parts.rogue import Rogue, rogue
from worker.exchange.client import READ_BODY_CAP, Exchange, Timeouts
from worker.exchange.token import Bearer
from worker.job import OrderId
from worker.reply import Answered
from worker.secret import SecretStr

SEVEN = '{"id":7,"ordStatus":"Working"}'
EIGHT = '{"id":8,"ordStatus":"Working"}'
TICKET = '{"p-ticket":"t","p-time":3}'
HTML = "<html><h1>Not Found</h1></html>"
ITEM, ITEMS, ACCOUNTS, FILLS, REPORTS = (
    "/order/item?",
    "/order/items?",
    "/account/list",
    "/fill/ldeps?",
    "/commandReport/ldeps?",
)
Says = Mapping[str, tuple[int, str]]


@dataclass
class Desk:
    """A client, and what it asked for."""

    client: Exchange
    server: Rogue
    said: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def asked(self) -> list[str]:
        return [line.split(b" ")[1].decode().removeprefix("/v1") for line in self.server.requests]


@pytest.fixture
def ask() -> Iterator[Callable[[Says], Desk]]:
    """A client of a server that answers each path with (status, body)."""
    with contextlib.ExitStack() as stack:

        def make(says: Says) -> Desk:
            server = stack.enter_context(rogue())
            bounds = Timeouts(**dict.fromkeys(("connect", "read", "total"), timedelta(seconds=5)))
            client = Exchange(server.url(), Bearer.fixed(SecretStr(TOKEN)), timeouts=bounds)
            stack.callback(client.close)
            desk = Desk(client, server, dict(says))

            def answer(connection: socket.socket) -> None:
                status, text = next(
                    said for path, said in desk.said.items() if desk.asked[-1].startswith(path)
                )
                body = text.encode()
                connection.sendall(
                    b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
                )

            server.answer = answer
            return desk

        yield make


FOUND, MISSING, UNREAD = "found", "missing", "unread"


@pytest.mark.parametrize(
    ("says", "expected", "calls"),
    [
        ({ITEM: (200, SEVEN)}, FOUND, 1),
        ({ITEM: (404, HTML), ITEMS: (200, "[]")}, MISSING, 2),
        ({ITEM: (404, HTML), ITEMS: (200, f"[{SEVEN}]")}, FOUND, 2),
        ({ITEM: (200, "null"), ITEMS: (200, "[]")}, MISSING, 2),
        ({ITEM: (204, ""), ITEMS: (200, "[]")}, MISSING, 2),
        ({ITEM: (200, EIGHT), ITEMS: (200, "[]")}, MISSING, 2),
        ({ITEM: (200, "[]"), ITEMS: (200, f"[{SEVEN}]")}, FOUND, 2),
        ({ITEM: (200, HTML), ITEMS: (200, HTML)}, UNREAD, 2),
        ({ITEM: (200, '{"id":"7"}'), ITEMS: (500, "")}, UNREAD, 2),
        ({ITEM: (404, ""), ITEMS: (200, f"[{EIGHT}]")}, UNREAD, 2),
        ({ITEM: (404, ""), ITEMS: (200, "[null]")}, UNREAD, 2),
        ({ITEM: (404, ""), ITEMS: (200, "null")}, UNREAD, 2),
        ({ITEM: (404, ""), ITEMS: (401, ""), ACCOUNTS: (200, "[]")}, UNREAD, 2),
        ({ITEM: (404, ""), ITEMS: (404, ""), ACCOUNTS: (200, "[]")}, MISSING, 3),
        ({ITEM: (404, ""), ITEMS: (404, ""), ACCOUNTS: (401, "Access is denied")}, UNREAD, 3),
        ({ITEM: (404, ""), ITEMS: (404, ""), ACCOUNTS: (404, "")}, UNREAD, 3),
        *(({ITEM: (status, "")}, UNREAD, 1) for status in (302, 400, 401, 403, 408, 423, 429, 500, 503)),
        ({ITEM: (500, SEVEN)}, UNREAD, 1),
        ({ITEM: (200, TICKET)}, UNREAD, 1),
        ({ITEM: (404, ""), ITEMS: (200, TICKET)}, UNREAD, 2),
        (
            {ITEM: (200, SEVEN + " " * READ_BODY_CAP), ITEMS: (200, "[" + " " * READ_BODY_CAP + "]")},
            UNREAD,
            2,
        ),
        ({ITEM: (200, "[" * 50_000), ITEMS: (200, "[" * 50_000)}, UNREAD, 2),
    ],
)
def test_one_order_is_found_missing_or_not_read(ask: Any, says: Says, expected: str, calls: int) -> None:
    """Missing needs a token that was taken: whatever else is no more than a read that failed."""
    desk = ask(says)
    read = desk.client.orders([OrderId(7)])
    shown = FOUND if read.found else MISSING if read.conclusive else UNREAD
    assert (shown, len(desk.asked)) == (expected, calls)


@pytest.mark.parametrize(
    ("rows", "found", "conclusive"),
    [
        (f"[{SEVEN}]", {7: 1}, True),
        ("[]", {}, True),
        (f"[{SEVEN},{EIGHT},{SEVEN}]", {7: 2, 8: 1}, True),
        (f'[{SEVEN},{{"id":9}}]', {7: 1}, False),
        (f"[{SEVEN},null]", {7: 1}, False),
        (f'[{SEVEN},{{"id":true}},{{"id":7.0}}]', {7: 1}, False),
        (SEVEN, {}, False),
        ("", {}, False),
        (f"[{SEVEN}", {}, False),
    ],
)
def test_a_list_is_whole_only_if_it_answers_what_was_asked(
    ask: Any,
    rows: str,
    found: dict[int, int],
    conclusive: bool,  # noqa: FBT001
) -> None:
    read = ask({ITEMS: (200, rows)}).client.orders([OrderId(7), OrderId(8)])
    assert {order: len(rows) for order, rows in read.found.items()} == found
    assert read.conclusive is conclusive


def test_a_row_that_says_its_state_twice_says_none(ask: Any) -> None:
    row = '{"id":7,"ordStatus":"Working","ordStatus":"Canceled","accountId":1}'
    read = ask({ITEM: (200, row)}).client.orders([OrderId(7)])
    assert read.found == {7: [{"id": 7, "accountId": 1}]}


# --- fills


@pytest.mark.parametrize("quantity", ["9223372036854775808", "-1", "1.5", '"3"', "null", "true"])
def test_an_order_with_an_odd_quantity_has_no_known_fills(ask: Any, quantity: str) -> None:
    rows = (
        f'[{{"orderId":7,"qty":{quantity}}},{{"orderId":7,"qty":2}},{{"orderId":8,"qty":3,"active":false}}]'
    )
    assert ask({FILLS: (200, rows)}).client.fills([OrderId(7), OrderId(8)]) == {8: 0}


def test_active_fills_are_added_up_by_order(ask: Any) -> None:
    rows = [{"orderId": 7, "qty": 2}, {"orderId": 7, "qty": 3, "active": True}, {"orderId": 9, "qty": 4}]
    assert ask({FILLS: (200, json.dumps(rows))}).client.fills([OrderId(7), OrderId(8)]) == {7: 5, 8: 0}


@pytest.mark.parametrize("said", [(500, ""), (200, "null"), (200, '{"orderId":7,"qty":2}'), (401, "")])
def test_fills_that_cannot_be_read_are_asked_for_once_more_and_stay_unknown(
    ask: Any, said: tuple[int, str]
) -> None:
    desk = ask({FILLS: said})
    assert (desk.client.fills([OrderId(7)]), len(desk.asked)) == ({}, 2)


@pytest.mark.parametrize("status", [423, 429])
def test_fills_are_not_asked_for_again_in_a_lock_out(ask: Any, status: int) -> None:
    desk = ask({FILLS: (status, "")})
    assert (desk.client.fills([OrderId(7)]), len(desk.asked)) == ({}, 1)


def test_a_list_of_fills_with_anything_odd_in_it_proves_nothing(ask: Any) -> None:
    assert ask({FILLS: (200, '[{"orderId":7,"qty":2},null]')}).client.fills([OrderId(7)]) == {}


# --- command reports


def test_the_reports_of_many_commands_are_one_request(ask: Any) -> None:
    rows = [
        {"id": 1, "commandId": 5},
        {"id": 2, "commandId": 6},
        {"id": 3, "commandId": 5},
        {"commandId": 9},
        None,
    ]
    desk = ask({REPORTS: (200, json.dumps(rows))})
    read = desk.client.command_reports([5, 6, 7])
    assert {command: [row["id"] for row in found] for command, found in read.found.items()} == {
        5: [1, 3],
        6: [2],
    }
    assert desk.asked == ["/commandReport/ldeps?masterids=5,6,7"]


@pytest.mark.parametrize("said", [(500, "[]"), (200, "null"), (200, HTML), (404, "")])
def test_reports_that_cannot_be_read_say_nothing(ask: Any, said: tuple[int, str]) -> None:
    read = ask({REPORTS: said}).client.command_reports([5])
    assert (dict(read.found), isinstance(read.reply, Answered)) == ({}, True)


# --- accounts

LISTED = [{"id": 1001, "name": "DEMO1"}, {"id": 1002, "name": "DEMO2"}]


@pytest.mark.parametrize(
    ("account", "owner", "why"),
    [
        ("DEMO1", 1001, None),
        ("DEMO1", 1002, "the order is of DEMO2, not of DEMO1"),
        ("DEMO1", 999, "the order is of 999, not of DEMO1"),
        ("mine", 1002, "the order is of DEMO2, not of mine"),
        ("mine", 999, None),
        ("1002", 1002, None),
        ("1002", 1001, "the order is of DEMO1, not of 1002"),
        ("999", 999, None),
        ("default", 1002, None),
        ("DEMO1", "1002", None),
        ("DEMO1", None, None),
        ("DEMO1", True, None),
        ("DEMO1", 1002.0, None),
    ],
)
def test_an_order_is_another_account_s_only_where_the_list_proves_it(
    ask: Any, account: str, owner: object, why: str | None
) -> None:
    desk = ask({ACCOUNTS: (200, json.dumps(LISTED))})
    assert desk.client.accounts.stranger(account, owner) == why


@pytest.mark.parametrize(
    "said",
    [
        (401, ""),
        (500, json.dumps(LISTED)),
        (200, "null"),
        (200, "[]"),
        (200, '[{"id":1002},{"name":"DEMO2"}]'),
    ],
)
def test_accounts_that_cannot_be_read_prove_nothing_and_are_not_asked_for_at_once(
    ask: Any, said: tuple[int, str]
) -> None:
    desk = ask({ACCOUNTS: said})
    assert [desk.client.accounts.stranger("DEMO1", 1002) for _ in range(3)] == [None] * 3
    assert desk.asked == ["/account/list"]


def test_the_accounts_are_read_once_and_kept(ask: Any) -> None:
    desk = ask({ACCOUNTS: (200, json.dumps(LISTED))})
    told = [desk.client.accounts.stranger("DEMO1", owner) is None for owner in (1001, 1002, 1001)]
    assert (told, desk.asked) == ([True, False, True], ["/account/list"])
