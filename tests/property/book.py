"""The exchange as a model: a book of orders with their past, commands that act now, later or never, and what it saw.

It is asked through the methods of worker.exchange.client.Exchange.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from tests.property.strands import Luck, Stage, Strand, judging
from worker.errors import LeaseLapsed, LedgerUnavailable, Withheld
from worker.exchange.accounts import Accounts
from worker.exchange.client import CommandsRead, OrdersRead, ReportsRead
from worker.exchange.governor import Governor
from worker.exchange.token import Bearer
from worker.job import DEFAULT_LOGIN, OrderId
from worker.reply import Answered, NotSent, Reply, Unanswered
from worker.secret import SecretStr

ENDS = ("Canceled", "Filled", "Expired", "Rejected")
LAGS = {Luck.LATE_VIEW: timedelta(seconds=0.5), Luck.OLD_VIEW: timedelta(seconds=1.9)}


class Effect(StrEnum):
    """What a POST that arrived does to the order."""

    NOW = "now"
    LATER = "later"  # or never: when the machine says so
    REJECTED = "rejected"  # accepted, then rejected by a report
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Fate:
    """What one POST meets."""

    effect: Effect
    status: int
    body: Mapping[str, object]
    carries_command: bool = False


def _taken(effect: Effect, **more: object) -> Fate:
    return Fate(effect, 200, more, carries_command=True)


def _reason(reason: str, effect: Effect = Effect.NONE) -> Fate:
    return Fate(effect, 200, {"failureReason": reason})


NOT_SENT = "not sent"
FATES: dict[str, Fate] = {
    "taken": _taken(Effect.NOW),
    "taken, acts later": _taken(Effect.LATER),
    "taken, then denied by a report": _taken(Effect.REJECTED, rejectReason="TradingLocked"),
    "taken, then too late by a report": _taken(Effect.REJECTED, rejectReason="TooLate"),
    "taken, then shut out by a report": _taken(Effect.REJECTED, rejectReason="SessionClosed"),
    "taken with a reason": _taken(Effect.NOW, failureReason="UnknownReason"),
    "busy": _reason("AnotherCommandPending"),
    "risk check": _reason("RiskCheckTimeout"),
    "route down": _reason("ExecutionProviderUnavailable"),
    "session closed": _reason("SessionClosed"),
    "too late": _reason("TooLate"),
    "denied": _reason("TradingLocked"),
    "nothing said, done": Fate(Effect.NOW, 200, {}),
    "nothing said, acts later": Fate(Effect.LATER, 200, {}),
    "error 500": Fate(Effect.NONE, 500, {"errorText": "oops"}),
    "error 500, done": Fate(Effect.NOW, 500, {}),
    "ticket": Fate(Effect.NONE, 200, {"p-ticket": "t1", "p-time": 5}),
    "locked out": Fate(Effect.NONE, 429, {}),
    "unauthorized": Fate(Effect.NONE, 401, {}),
}


@dataclass(slots=True)
class Order:
    """An order and all that it ever was; before its first state the exchange does not know it."""

    past: list[tuple[datetime, str]] = field(default_factory=list)

    def at(self, moment: datetime) -> str | None:
        return next((status for since, status in reversed(self.past) if since <= moment), None)

    @property
    def now(self) -> str | None:
        return self.past[-1][1] if self.past else None

    @property
    def ended_at(self) -> datetime | None:
        return self.past[-1][0] if self.now in ENDS else None


@dataclass(slots=True)
class Command:
    """A cancel that the exchange took and that has not acted yet."""

    id: int
    order: int
    not_before: datetime | None
    rejected: str | None = None
    label: str = ""


@dataclass(slots=True, eq=False)
class Post:
    """One POST whose bytes arrived. `reply` is what its sender got, None while (or if never) it got nothing."""

    order: int
    request_id: str
    sender: str
    arrived_at: datetime
    held: Callable[[], bool]
    strand: Strand
    fate: str
    attempt: int = 0
    command: int | None = None  # what its answer carries
    reply: Reply | None = None
    cut_off: bool = False  # its sender died before it had done with the answer

    @property
    def in_flight(self) -> bool:
        """A lapsed lease cuts the connection."""
        return self.reply is None and not self.cut_off and self.held()


@dataclass(slots=True)
class Book:
    """All orders, commands, POSTs and reads; `on_post` judges a POST as it arrives."""

    clock: Callable[[], datetime]
    orders: dict[int, Order] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    reads: list[tuple[datetime, int, str | None]] = field(default_factory=list)
    on_post: Callable[[Post], None] = lambda _post: None

    def place(self, order: int, status: str = "Working") -> None:
        self.orders[order] = Order([(self.clock(), status)])

    def move(self, order: int, status: str) -> None:
        """An end is final."""
        if self.status(order) not in {None, *ENDS}:
            self.orders[order].past.append((self.clock(), status))

    def status(self, order: int) -> str | None:
        return self.orders[order].now if order in self.orders else None

    def act(self, command: Command) -> None:
        self.commands.remove(command)
        self.move(command.order, "Canceled")

    def actable(self) -> list[Command]:
        """Commands that may act now: taken, not rejected, and their time has come."""
        now = self.clock()
        return [
            c for c in self.commands if c.rejected is None and (c.not_before is None or c.not_before <= now)
        ]

    def arrive(self, post: Post, body: Mapping[str, Any]) -> tuple[int, Mapping[str, object]]:
        """Judge it, let it act; gives the answer (status, body) that goes back."""
        self.on_post(post)
        self.posts.append(post)
        fate = FATES[post.fate]
        said = dict(fate.body)
        rejected = said.pop("rejectReason", None)
        if self.status(post.order) in {None, *ENDS} and fate.status == 200 and "p-ticket" not in said:
            return 200, {"failureReason": "TooLate"}
        armed = body.get("activationTime")
        command = Command(
            id=1000 + len(self.posts),
            order=post.order,
            not_before=datetime.fromisoformat(armed) if armed is not None else None,
            rejected=str(rejected) if rejected else None,
            label=body["clOrdId"],
        )
        if fate.effect is not Effect.NONE:
            self.commands.append(command)
        if fate.effect is Effect.NOW and command in self.actable():
            self.act(command)
        if fate.carries_command:
            post.command = command.id
            said["commandId"] = command.id
        return fate.status, said


class ModelExchange:
    """One worker process's line to the book; stops before every request and before its answer."""

    def __init__(self, book: Book, stage: Stage, sender: str, governor: Governor) -> None:
        self._governor = governor
        self._book = book
        self._stage = stage
        self._sender = sender
        self.bearer = Bearer.fixed(SecretStr("any"))
        self.accounts = Accounts(list)  # orders say nothing of their account

    def cancel(self, body: bytes, permit: Callable[[], None], held: Callable[[], bool]) -> Reply:
        fate = self._stage.stand("post")
        if fate == NOT_SENT:
            return NotSent(error="refused")
        try:
            self._governor.require_post(DEFAULT_LOGIN)
            permit()
        except (LeaseLapsed, Withheld, LedgerUnavailable) as error:
            return NotSent(error=str(error))
        asked = json.loads(body)
        post = Post(
            order=asked["orderId"],
            request_id=asked["clOrdId"],
            sender=self._sender,
            arrived_at=self._book.clock(),
            held=held,
            strand=self._stage.running,
            fate=fate if fate in FATES else "taken",
        )
        with judging():
            status, said = self._book.arrive(post, asked)
        luck = self._stage.stand("answer")
        post.reply = self._answer(post, status, said) if luck == Luck.GOOD else self._lost(post)
        self._governor.notice(DEFAULT_LOGIN, post.reply)
        return post.reply

    def orders(self, ids: Sequence[OrderId]) -> OrdersRead:
        luck = self._stage.stand("read")
        now = self._book.clock()
        if luck in {Luck.NOTHING_DONE, Luck.ANSWER_LOST}:
            return OrdersRead(reply=self._nothing(), found={}, conclusive=False)
        shown = {i: self._shown(i, now - LAGS.get(Luck(luck), timedelta(0))) for i in ids}
        self._book.reads.extend((now, order, status) for order, status in shown.items())
        rows = {i: {"id": i, "ordStatus": status} for i, status in shown.items() if status is not None}
        reply = self._answered(200, list(rows.values()))
        return OrdersRead(reply=reply, found={order: [row] for order, row in rows.items()}, conclusive=True)

    def commands(self, ids: Sequence[OrderId]) -> CommandsRead:
        if self._stage.stand("commands") != Luck.GOOD:
            return CommandsRead(reply=self._nothing(), found={})
        rows = [
            {
                "id": c.id,
                "orderId": c.order,
                "clOrdId": c.label,
                "commandType": "Cancel",
                "commandStatus": "Pending",
            }
            for c in self._book.commands
            if c.order in ids
        ]
        found = {i: [row for row in rows if row["orderId"] == i] for i in ids}
        return CommandsRead(reply=self._answered(200, rows), found=found)

    def command_reports(self, ids: Sequence[int]) -> ReportsRead:
        if self._stage.stand("reports") != Luck.GOOD:
            return ReportsRead(reply=self._nothing(), found={})
        found = {
            c.id: [{"commandId": c.id, "commandStatus": "ExecutionRejected", "rejectReason": c.rejected}]
            for c in self._book.commands
            if c.id in ids and c.rejected
        }
        return ReportsRead(
            reply=self._answered(200, [row for rows in found.values() for row in rows]), found=found
        )

    def fills(self, ids: Sequence[OrderId]) -> Mapping[OrderId, int]:
        if self._stage.stand("fills") != Luck.GOOD:
            return {}
        return {i: int(self._book.status(i) == "Filled") for i in ids}

    def _shown(self, order: int, moment: datetime) -> str | None:
        return self._book.orders[order].at(moment) if order in self._book.orders else None

    def _answer(self, post: Post, status: int, said: Mapping[str, object]) -> Reply:
        return replace(self._answered(status, said), sent_at=post.arrived_at)

    def _answered(self, status: int, said: object) -> Answered:
        now = self._book.clock()
        return Answered(status=status, body=json.dumps(said).encode(), sent_at=now, answered_at=now)

    def _lost(self, post: Post) -> Reply:
        return Unanswered(error="reset", sent_at=post.arrived_at, ended_at=self._book.clock())

    def _nothing(self) -> Reply:
        return Unanswered(error="reset", sent_at=self._book.clock(), ended_at=self._book.clock())
