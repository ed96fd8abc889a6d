"""An account's orders as the exchange lists them. Pure: whoever asks decides what to do about a list that says nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from worker.job import OrderId
from worker.verdict import ENDS, MAX_ID, state_of

# How an order names another one, and what we call that.
RELATIONS = {"parentId": "parent", "ocoId": "oco", "linkedId": "linked"}
# The longest known status has 14 characters; a longer one is no status.
LONGEST_STATUS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One order of the list. Open is whatever is not certainly ended, a status that nobody knows included."""

    order_id: OrderId
    status: str
    is_open: bool
    contract_id: int | None = None
    action: str | None = None
    links: Mapping[str, int]  # other orders, by relation


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderList:
    """A whole list; `foreign` counts rows of other accounts, which nobody asked for and nobody may touch."""

    orders: Mapping[OrderId, Listed]
    foreign: int


def order_list(rows: Any, account_id: int) -> OrderList | None:
    """The list of this account; None where a single row is no order: then it says nothing about what is missing."""
    if not isinstance(rows, list):
        return None
    orders: dict[OrderId, Listed] = {}
    foreign = 0
    for row in rows:
        order_id, owner = _id(row, "id"), _id(row, "accountId")
        if order_id is None or owner is None or not isinstance(row.get("ordStatus"), str):
            return None
        if owner != account_id:
            foreign += 1
            continue
        seen = _listed(OrderId(order_id), row)
        orders[seen.order_id] = _worse(orders.get(seen.order_id), seen)
    return OrderList(orders=orders, foreign=foreign)


def _listed(order_id: OrderId, row: Mapping[str, Any]) -> Listed:
    status = row["ordStatus"][:LONGEST_STATUS]
    action = row.get("action")
    return Listed(
        order_id=order_id,
        status=status,
        is_open=state_of([status]) not in ENDS,
        contract_id=_id(row, "contractId"),
        action=action[:LONGEST_STATUS] if isinstance(action, str) else None,
        links=dict(_links(row, order_id)),
    )


def _worse(one: Listed | None, other: Listed) -> Listed:
    """Of two rows of one order the open one: nothing may be taken for ended because the list is at odds with itself."""
    return one if one is not None and one.is_open else other


def _links(row: Mapping[str, Any], own: OrderId) -> Iterator[tuple[str, int]]:
    for key, relation in RELATIONS.items():
        other = _id(row, key)
        if other is not None and other != own:
            yield relation, other


def _id(row: Any, key: str) -> int | None:
    value = row.get(key) if isinstance(row, dict) else None
    known = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_ID
    return value if known and isinstance(value, int) else None
