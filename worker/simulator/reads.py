"""The GET endpoints: the book as it was a lag ago, one entity at a time or many."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import wire
from .book import Command, Fill, Order, Report
from .moments import iso, now
from .steps import NATURAL, ReadKind, Step
from .wire import Answer
from .world import World

Query = Mapping[str, str]
Found = tuple[Answer, Step]


class BadQuery(Exception):
    """A parameter is missing or is not a number."""


def order_json(world: World, order: Order) -> dict[str, Any]:
    account_id = world.book.accounts[order.account]
    status = order.status(now() - world.book.lag(order))
    return {
        "id": order.id,
        "accountId": account_id,
        "timestamp": iso(order.placed_at),
        "ordStatus": status,
        **order.traits,
    }


def fill_json(order: Order, fill: Fill) -> dict[str, Any]:
    return {
        "id": fill.id,
        "orderId": order.id,
        "contractId": order.traits["contractId"],
        "timestamp": iso(max(fill.at, order.placed_at)),
        "action": order.traits["action"],
        "qty": fill.qty,
        "price": 100.25,
        "active": True,
    }


def command_json(order: Order, command: Command, moment: float) -> dict[str, Any]:
    entity = {"id": command.id, "orderId": order.id, "timestamp": iso(command.at), "commandType": "Cancel"}
    return {**entity, "commandStatus": command.status(moment), **command.labels}


def new_command_json(order: Order) -> dict[str, Any]:
    """The command that placed the order has the order's own id."""
    entity = {"id": order.id, "orderId": order.id, "timestamp": iso(order.placed_at)}
    return {**entity, "commandType": "New", "commandStatus": "AtExecution"}


def report_json(command_id: int, report: Report) -> dict[str, Any]:
    entity = {"id": report.id, "commandId": command_id, "timestamp": iso(report.at)}
    entity |= {"commandStatus": report.status, "ordStatus": report.ord_status}
    if report.reason is not None:
        entity |= {"rejectReason": report.reason, "text": report.text}
    return entity


def order_item(world: World, query: Query) -> Found:
    order = world.book.placed(_id(query, "id"))
    if order is None:
        return wire.plain_answer(404), NATURAL
    step = world.read_step(order, "order")
    return _said(step, lambda: _one(_shown(order_json(world, order), step)))


def order_items(world: World, query: Query) -> Found:
    """May return fewer rows than asked; one order's bad step spoils the whole answer."""
    rows, bad = [], NATURAL
    for order_id in _ids(query, "ids"):
        order = world.book.placed(order_id)
        step = world.read_step(order, "order") if order is not None else NATURAL
        bad = bad if step is NATURAL or step.not_found or step.shows else step
        if order is not None and not step.not_found:
            rows += _shown(order_json(world, order), step)
    return _said(bad, lambda: rows)


def order_list(world: World, query: Query) -> Found:
    """All orders of the accounts that the caller sees, ended ones included."""
    return _listed(world, _seen(world, query))


def order_deps(world: World, query: Query) -> Found:
    """All orders of an account; none of one that the caller does not see."""
    names = {number: name for name, number in world.book.accounts.items()}
    return _listed(world, {names.get(_id(query, "masterid"), "")} & _seen(world, query))


def _listed(world: World, accounts: set[str]) -> Found:
    """The orders of these accounts, or what the script has in store for the next list."""
    step = world.lists.take()
    shown = (order for order in world.book.all_placed() if order.account in accounts)
    return _said(step, lambda: [order_json(world, order) for order in shown])


def contract_find(world: World, query: Query) -> Found:
    """One contract by its name."""
    number = world.contracts.get(query.get("name", ""))
    if number is None:
        return wire.plain_answer(404), NATURAL
    return wire.json_answer({"id": number, "name": query["name"]}), NATURAL


def command_item(world: World, query: Query) -> Found:
    command_id = _id(query, "id")
    placed = world.book.placed(command_id)
    if placed is not None:
        return wire.json_answer(new_command_json(placed)), NATURAL
    order, command = world.book.commands.get(command_id, (None, None))
    if order is None or command is None:
        return wire.plain_answer(404), NATURAL
    step = world.read_step(order, "command")
    moment = now() - world.book.lag(order)
    if command.at > moment:
        return wire.plain_answer(404), step
    return _said(step, lambda: command_json(order, command, moment))


def command_deps(world: World, query: Query) -> Found:
    return _commands(world, [_id(query, "masterid")])


def command_ldeps(world: World, query: Query) -> Found:
    return _commands(world, _ids(query, "masterids"))


def report_deps(world: World, query: Query) -> Found:
    return _reports(world, [_id(query, "masterid")])


def report_ldeps(world: World, query: Query) -> Found:
    return _reports(world, _ids(query, "masterids"))


def fill_deps(world: World, query: Query) -> Found:
    return _fills(world, [_id(query, "masterid")])


def fill_ldeps(world: World, query: Query) -> Found:
    return _fills(world, _ids(query, "masterids"))


def _fills(world: World, order_ids: Iterable[int]) -> Found:
    def rows(order: Order, step: Step, moment: float) -> Iterable[dict[str, Any]]:
        seen = [fill_json(order, fill) for fill in order.fills if fill.at <= moment]
        return [changed for row in seen for changed in _shown(row, step)]

    return _of_orders(world, order_ids, "fill", rows)


def account_list(world: World, query: Query) -> Found:
    """Those that the caller sees: the door says which."""
    shown = _seen(world, query)
    kind = {"userId": 1, "accountType": "Customer", "active": True, "legalStatus": "Individual"}
    known = world.book.accounts.items()
    return _rows({"id": number, "name": name, **kind} for name, number in known if name in shown)


def _seen(world: World, query: Query) -> set[str]:
    """The names of the accounts that the caller sees."""
    return set(query["seen"].split(",")) if "seen" in query else set(world.book.accounts)


def _commands(world: World, order_ids: Iterable[int]) -> Found:
    def rows(order: Order, _step: Step, moment: float) -> Iterable[dict[str, Any]]:
        done = [command_json(order, c, moment) for c in order.commands if c.at <= moment]
        return [new_command_json(order), *done]

    return _of_orders(world, order_ids, "command", rows)


def _of_orders(
    world: World,
    order_ids: Iterable[int],
    kind: ReadKind,
    rows_of: Callable[[Order, Step, float], Iterable[dict[str, Any]]],
) -> Found:
    """What these orders have that the lag already shows; one order's bad step spoils the whole answer."""
    rows: list[dict[str, Any]] = []
    bad = NATURAL
    for order_id in order_ids:
        order = world.book.placed(order_id)
        if order is not None:
            step = world.read_step(order, kind)
            bad = bad if step is NATURAL or step.shows else step
            rows += rows_of(order, step, now() - world.book.lag(order))
    return _said(bad, lambda: rows)


def _reports(world: World, command_ids: Iterable[int]) -> Found:
    rows, bad = [], NATURAL
    for command_id in command_ids:
        order, command = world.book.commands.get(command_id, (None, None))
        if order is None or command is None:
            continue
        step = world.read_step(order, "report")
        bad = bad if step is NATURAL or step.shows else step
        moment = now() - world.book.lag(order)
        if not step.not_found:
            seen = [report_json(command_id, r) for r in command.reports if r.at <= moment]
            rows += [changed for row in seen for changed in _shown(row, step)]
    return _said(NATURAL if bad.not_found else bad, lambda: rows)


def _shown(row: Mapping[str, Any], step: Step) -> list[dict[str, Any]]:
    """The row as the step wants it seen, once for each of its changes."""
    return [
        {name: value for name, value in {**row, **change}.items() if value is not None}
        for change in step.shows or ({},)
    ]


def _one(rows: list[dict[str, Any]]) -> Any:
    """The row; all of them where a script has one order be two."""
    return rows[0] if len(rows) == 1 else rows


def _said(step: Step, usual: Callable[[], Any]) -> Found:
    status = step.status or (302 if step.location is not None else 200)
    if step.not_found:
        return wire.plain_answer(404), step
    if step.reply is not None:
        return wire.json_answer(step.reply, status=status), step
    if step.text is not None:
        return wire.text_answer(status, step.text), step
    return (wire.json_answer(usual()) if status == 200 else wire.plain_answer(status)), step


def _rows(rows: Iterable[dict[str, Any]]) -> Found:
    return wire.json_answer(list(rows)), NATURAL


def _id(query: Query, name: str) -> int:
    return _ids(query, name, most=1)[0]


def _ids(query: Query, name: str, *, most: int = 10_000) -> list[int]:
    parts = query.get(name, "").split(",")
    if len(parts) > most or not all(part.isdecimal() and part.isascii() for part in parts):
        raise BadQuery(f"{name}: right would be a number")
    return [int(part) for part in parts]


ENDPOINTS: Mapping[str, Callable[[World, Query], Found]] = {
    "/order/item": order_item,
    "/order/items": order_items,
    "/order/list": order_list,
    "/order/deps": order_deps,
    "/command/item": command_item,
    "/command/deps": command_deps,
    "/command/ldeps": command_ldeps,
    "/commandreport/deps": report_deps,
    "/commandreport/ldeps": report_ldeps,
    "/fill/deps": fill_deps,
    "/fill/ldeps": fill_ldeps,
    "/account/list": account_list,
    "/contract/find": contract_find,
}
