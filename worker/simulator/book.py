"""The orders of the exchange and what becomes of them, moment by moment. Knows no HTTP and no faults.

A change is written down with its moment, which may lie ahead: no timers. The first end in time wins.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal

from .moments import Span, chance, now, within

ENDS = frozenset({"Canceled", "Completed", "Expired", "Filled", "Rejected"})
OPEN = frozenset({"PendingCancel", "PendingNew", "PendingReplace", "Suspended", "Unknown", "Working"})
STATUSES = ENDS | OPEN
IN_FLIGHT = frozenset({"PendingCancel", "PendingNew", "PendingReplace"})
# Far from the ids that scripts give their orders.
FIRST_COMMAND = 5_000_000_001

Change = tuple[float, str]
Ending = Literal["Canceled", "Filled", "rejected"]
Witness = Callable[[str, Mapping[str, Any]], None]


@dataclass(slots=True)
class Rules:
    """What holds for every order that has no value of its own; spans are seconds, drawn per order.

    `token` is the one bearer token that is let in; None lets any in.
    """

    seed: int = 1
    token: str | None = None
    latency: Span = (0.02, 0.02)
    read_latency: Span = (0.005, 0.005)
    read_lag: Span = (0.0, 2.0)
    settle: Span = (0.05, 0.3)


@dataclass(frozen=True, slots=True)
class Fill:
    id: int
    at: float
    qty: int


@dataclass(frozen=True, slots=True)
class Report:
    id: int
    at: float
    status: str
    ord_status: str
    reason: str | None = None
    text: str | None = None


@dataclass(slots=True)
class Command:
    """A cancel that was accepted for handling; `reason` is set when it came to nothing."""

    id: int
    at: float
    ends_at: float
    labels: Mapping[str, Any]
    reports: list[Report] = field(default_factory=list)
    reason: str | None = None

    def took_effect(self, moment: float) -> bool:
        return self.reason is None and self.ends_at <= moment

    def status(self, moment: float) -> str:
        seen = [report.status for report in self.reports if report.at <= moment]
        return seen[-1] if seen else "Pending"


@dataclass(slots=True)
class Order:
    id: int
    account: str
    placed_at: float
    qty: int
    traits: Mapping[str, Any]
    changes: Sequence[Change]
    lag: float | None = None
    settle: float | None = None
    fills: Sequence[Fill] = ()
    commands: Sequence[Command] = ()

    def status(self, moment: float) -> str:
        at = bisect_right(self.changes, moment, key=_moment_of)
        return self.changes[max(at, 1) - 1][1]

    def filled(self, moment: float) -> int:
        return sum(fill.qty for fill in self.fills if fill.at <= moment)

    def ends_at(self) -> float:
        """The moment of its end, planned ones included; infinity when none is known."""
        at, status = self.changes[-1]
        return at if status in ENDS else math.inf

    def settled(self, moment: float) -> bool:
        """Nothing that is already known lies ahead."""
        return self.changes[-1][0] <= moment and all(c.ends_at <= moment for c in self.commands)


@dataclass(frozen=True, slots=True)
class Wish:
    """How a cancel is to go once it is taken up."""

    ending: Ending = "Canceled"
    settle: float = 0.0
    starts_in: float = 0.0
    reason: str = "OtherExecutionRelated"
    quiet: bool = False
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the exchange says to a cancel: a command's id, or a reason with its text."""

    command_id: int | None = None
    reason: str | None = None
    text: str | None = None

    def as_json(self) -> dict[str, Any]:
        body = {"failureReason": self.reason, "failureText": self.text, "commandId": self.command_id}
        return {name: value for name, value in body.items() if value is not None}


class Book:
    """All orders and commands. `witness` is told of each change when it is written down, be it past or planned."""

    def __init__(self, rules: Rules, *, witness: Witness | None = None) -> None:
        self.rules = rules
        self.orders: dict[int, Order] = {}
        self.commands: dict[int, tuple[Order, Command]] = {}
        self.accounts: dict[str, int] = {}
        self._witness = witness or _unseen
        self._command_ids = count(FIRST_COMMAND)
        self._ids = count(1)

    def add(self, order: Order) -> None:
        if order.id in self.orders:
            raise ValueError(f"order {order.id} is in the book already")
        self.orders[order.id] = order
        self.accounts.setdefault(order.account, 1001 + len(self.accounts))

    def placed(self, order_id: int) -> Order | None:
        """The order, once its time has come."""
        order = self.orders.get(order_id)
        return order if order is not None and order.placed_at <= now() else None

    def all_placed(self) -> list[Order]:
        moment = now()
        return [order for order in self.orders.values() if order.placed_at <= moment]

    def lag(self, order: Order) -> float:
        """How many seconds behind the truth this order's reads are."""
        if order.lag is not None:
            return order.lag
        return within(self.rules.read_lag, chance(self.rules.seed, order.id, "lag"))

    def settle(self, order: Order) -> float:
        """Seconds from a cancel's acceptance to its end."""
        if order.settle is not None:
            return order.settle
        return within(self.rules.settle, chance(self.rules.seed, order.id, "settle"))

    def cancel(self, order: Order, wish: Wish) -> Ruling:
        """Takes up a cancel now, or says why not."""
        moment = now()
        status = order.status(moment)
        refusal = refusal_of(status)
        if refusal is not None:
            return refusal
        starts = moment + wish.starts_in
        command = Command(next(self._command_ids), moment, starts + wish.settle, wish.labels)
        for older in order.commands:
            _tell_by(older, moment)
        order.commands = [*order.commands, command]
        self.commands[command.id] = (order, command)
        self._witness("command", {"id": order.id, "command_id": command.id})
        self._run(order, command, wish, starts)
        return Ruling(command_id=command.id)

    def change(self, order: Order, status: str, *, at: float) -> None:
        """Writes down a change, unless the order has ended by then."""
        if at >= order.ends_at():
            return
        keep = [c for c in self._recent(order) if c[0] <= at or status not in ENDS]
        keep.insert(bisect_right(keep, at, key=_moment_of), (at, status))
        order.changes = keep
        self._witness("status", {"id": order.id, "ordStatus": status, "moment": at})
        if status in ENDS:
            order.fills = [fill for fill in order.fills if fill.at <= at]
            self._close_commands(order, at, status)

    def fill(self, order: Order, *, at: float, qty: int | None = None) -> None:
        """Fills some of the order, or all that is left, which ends it."""
        if at >= order.ends_at():
            return
        left = order.qty - order.filled(math.inf)
        part = left if qty is None else min(qty, left)
        if part > 0:
            order.fills = [*order.fills, Fill(next(self._ids), at, part)]
            self._witness("fill", {"id": order.id, "qty": part, "moment": at})
        if qty is None or part == left:
            self.change(order, "Filled", at=at)

    def place_fill(self, order: Order, qty: int) -> None:
        """A fill from before the book began: every read shows it."""
        order.fills = [*order.fills, Fill(next(self._ids), -math.inf, qty)]

    def continue_commands(self, before: "Book") -> None:
        """Goes on with the ids of another book, so that none is given out twice."""
        self._command_ids = before._command_ids  # noqa: SLF001  the same class

    def _run(self, order: Order, command: Command, wish: Wish, starts: float) -> None:
        before = order.status(starts)
        if wish.quiet:
            self._come_to_nothing(command, wish, before)
            return
        self._report(command, starts, "RiskPassed", "PendingCancel")
        self.change(order, "PendingCancel", at=starts)
        if order.ends_at() <= command.ends_at:
            self._lose(command, order.ends_at(), order.status(order.ends_at()))
        elif wish.ending == "Filled":
            self.fill(order, at=command.ends_at)
        elif wish.ending == "rejected":
            command.reason = wish.reason
            self.change(order, before, at=command.ends_at)
            self._report(command, command.ends_at, "ExecutionRejected", before, reason=wish.reason)
        else:
            self._report(command, command.ends_at, "AtExecution", "Canceled")
            self.change(order, "Canceled", at=command.ends_at)

    def _come_to_nothing(self, command: Command, wish: Wish, status: str) -> None:
        """The order goes on as if nothing had been asked; only the command's report says why."""
        command.reason = wish.reason
        self._report(command, command.ends_at, "ExecutionRejected", status, reason=wish.reason)

    def _close_commands(self, order: Order, at: float, status: str) -> None:
        for command in order.commands:
            lost_now = command.ends_at == at and command.reason is None and status != "Canceled"
            if command.ends_at > at or lost_now:
                self._lose(command, at, status)

    def _lose(self, command: Command, at: float, status: str) -> None:
        command.reports = [report for report in command.reports if report.at <= at]
        command.ends_at, command.reason = at, "TooLate"
        self._report(command, at, "ExecutionRejected", status, reason="TooLate")

    def _report(
        self, command: Command, at: float, status: str, ord_status: str, *, reason: str | None = None
    ) -> None:
        text = None if reason is None else f"the cancel failed: {reason}"
        command.reports.append(Report(next(self._ids), at, status, ord_status, reason, text))

    def _recent(self, order: Order) -> list[Change]:
        """The changes that a read can still show: the lag's length and the one before."""
        first = bisect_right(order.changes, now() - self.lag(order), key=_moment_of)
        return list(order.changes[max(first, 1) - 1 :])


def refusal_of(status: str) -> Ruling | None:
    """Why an order in this state takes no cancel; None when it does."""
    if status in ENDS:
        return Ruling(reason="TooLate", text=f"Order is already {status.lower()}")
    if status in IN_FLIGHT:
        return Ruling(reason="AnotherCommandPending", text="Another command is pending for this order")
    if status == "Unknown":
        return Ruling(reason="UnknownReason", text="The state of the order is not known")
    return None


def _tell_by(command: Command, moment: float) -> None:
    """What came to nothing unseen is told at the latest when the order's next command is taken up."""
    if command.reason is not None and command.ends_at > moment:
        command.ends_at = moment
        command.reports = [replace(report, at=min(report.at, moment)) for report in command.reports]


def _moment_of(change: Change) -> float:
    return change[0]


def _unseen(_event: str, _facts: Mapping[str, Any]) -> None:
    """Nobody keeps a truth file."""
