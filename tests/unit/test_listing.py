"""What a list of orders says, and when it says nothing."""

from typing import Any

import pytest

from worker.exchange.listing import order_list
from worker.job import OrderId

ONE, MINE = OrderId(1), 1001


def a_row(**facts: Any) -> dict[str, Any]:
    return {"id": 1, "accountId": MINE, "ordStatus": "Working", **facts}


@pytest.mark.parametrize(
    "status", ["Working", "Suspended", "PendingNew", "PendingCancel", "Unknown", "Never heard of"]
)
def test_whatever_is_not_certainly_ended_is_open(status: str) -> None:
    found = order_list([a_row(ordStatus=status)], MINE)
    assert found is not None
    assert found.orders[ONE].is_open


@pytest.mark.parametrize("status", ["Canceled", "Filled", "Completed", "Expired", "Rejected"])
def test_an_end_is_an_end(status: str) -> None:
    found = order_list([a_row(ordStatus=status)], MINE)
    assert found is not None
    assert not found.orders[ONE].is_open


@pytest.mark.parametrize(
    "rows",
    [None, {}, "[]", [1], [a_row(id="1")], [a_row(id=True)], [a_row(ordStatus=None)], [a_row(accountId=0)]],
)
def test_one_row_that_is_no_order_makes_the_list_say_nothing(rows: Any) -> None:
    assert order_list(rows if not isinstance(rows, list) else [a_row(id=2), *rows], MINE) is None


@pytest.mark.parametrize("statuses", [("Working", "Canceled"), ("Canceled", "Working")])
def test_an_order_at_odds_with_itself_is_open(statuses: tuple[str, str]) -> None:
    found = order_list([a_row(ordStatus=status) for status in statuses], MINE)
    assert found is not None
    assert found.orders[ONE].is_open


def test_rows_of_other_accounts_are_counted_and_not_listed() -> None:
    found = order_list([a_row(accountId=1002)], MINE)
    assert found is not None
    assert (found.orders, found.foreign) == ({}, 1)


def test_a_link_to_itself_is_none() -> None:
    found = order_list([a_row(parentId=1, ocoId=7, linkedId="8")], MINE)
    assert found is not None
    assert found.orders[ONE].links == {"oco": 7}
