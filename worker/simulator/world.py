"""One exchange: its book, its rules, what its script still has in store. Made anew by a reset."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .book import Book, Order, Rules
from .mix import Mix
from .moments import micros, now
from .script import OrderSpec, Script, apply_defaults
from .sessions import Sessions
from .steps import NATURAL, ReadKind, Step
from .truth import Truth

# What an entity of the API always has; a script overrides each.
TRAITS = {"action": "Buy", "contractId": 3001, "executionProviderId": 2, "admin": False}


@dataclass(slots=True)
class Queue:
    """The steps of one order that are still to come."""

    steps: tuple[Step, ...]
    used: int = 0
    penalised: dict[str, float] = field(default_factory=dict)  # since when, by the body that met it

    def head(self) -> Step:
        return self.steps[0] if self.steps else NATURAL

    def take(self) -> Step:
        """The head; after its last repetition the next one becomes the head."""
        if not self.steps:
            return NATURAL
        step = self.steps[0]
        self.used += 1
        if self.used >= step.repeat:
            self.drop_head()
        return step

    def served(self, body: Mapping[str, Any]) -> bool:
        """Whether this body ends the head's penalty: the same one again with the ticket, not before its time.

        With a captcha no ticket helps; only the time does.
        """
        penalty, plain = (
            self.head().penalty,
            {name: part for name, part in body.items() if name != "p-ticket"},
        )
        if penalty is None:
            return True
        same = "any body" if penalty.captcha else json.dumps(plain, sort_keys=True)
        late_enough = same in self.penalised and now() >= self.penalised[same] + penalty.time
        if late_enough and (penalty.captcha or body.get("p-ticket") == penalty.ticket):
            return True
        self.penalised[same] = now()
        return False

    def drop_head(self) -> None:
        self.steps = self.steps[1:]
        self.used = 0
        self.penalised.clear()


NO_STEPS = Queue(())


@dataclass(slots=True)
class Desk:
    """Logins and renewals, and what a script has in store for them."""

    sessions: Sessions = field(default_factory=Sessions)
    evicted: tuple[int, ...] = (408, 500, 503)  # what an evicted session's calls meet, one after the other
    logins: Queue = field(default_factory=lambda: Queue(()))
    renewals: Queue = field(default_factory=lambda: Queue(()))
    met: int = 0

    def load(self, found: Mapping[str, Any]) -> None:
        """What a script says of it; what it leaves out stays."""
        if found.get("expire"):
            self.sessions.expire()
        for name in ("life", "most", "most_failed", "users"):
            if name in found:
                setattr(self.sessions, name, found[name])
        self.evicted = found.get("evicted", self.evicted)
        for name in ("logins", "renewals"):
            if name in found:
                setattr(self, name, Queue(found[name]))


class World:
    """The exchange's state; `truth` outlives it."""

    def __init__(self, rules: Rules, truth: Truth) -> None:
        self.rules = rules
        self.truth = truth
        self.mix = Mix()
        self.book = Book(rules, witness=truth.note)
        self.desk = Desk()
        self.contracts: Mapping[str, int] = {}  # ids by name
        self.lists = NO_STEPS  # what is in store for the next lists of orders
        self._posts: dict[int, Queue] = {}
        self._reads: dict[int, Queue] = {}
        self._read_counts: dict[int, int] = {}

    def load(self, script: Script) -> None:
        apply_defaults(self.rules, script.defaults)
        if script.mix is not None:
            self.mix = script.mix
        self.desk.load(script.auth)
        if script.lists is not None:
            self.lists = Queue(script.lists)
        self.contracts = {**self.contracts, **script.contracts}
        self.add(script.orders)

    def add(self, specs: Iterable[OrderSpec]) -> int:
        """Puts orders on the book; a known id is refused before any is added."""
        specs = list(specs)
        for spec in specs:
            known = next((order_id for order_id in spec.ids if order_id in self.book.orders), None)
            if known is not None:
                raise ValueError(f"order {known} is in the book already; /sim/script gives it new steps")
        return sum(self._add(spec) for spec in specs)

    def script(self, specs: Iterable[OrderSpec]) -> int:
        """Gives orders new steps and events; unknown ones are added first."""
        specs = list(specs)
        for spec in specs:
            self._refuse_rebirth(spec)
            missing = [order_id for order_id in spec.ids if order_id not in self.book.orders]
            for order_id in missing:
                self._add(replace(spec, ids=range(order_id, order_id + 1), events=()))
            for order_id in spec.ids:
                self._queue(order_id, spec)
                self._plan(self.book.orders[order_id], spec)
        return sum(len(spec.ids) for spec in specs)

    def _refuse_rebirth(self, spec: OrderSpec) -> None:
        only = OrderSpec(ids=spec.ids, posts=spec.posts, reads=spec.reads, events=spec.events)
        known = next((order_id for order_id in spec.ids if order_id in self.book.orders), None)
        if known is not None and spec != only:
            raise ValueError(
                f"order {known} is in the book already; right would be posts, reads, events only"
            )

    def post_queue(self, order: Order) -> Queue:
        """The order's steps: its own, else the seeded mix."""
        queue = self._posts.get(order.id)
        if queue is None:
            steps = self.mix.steps(self.rules.seed, order.id)
            queue = self._posts[order.id] = Queue(steps) if steps else NO_STEPS
        return queue

    def read_step(self, order: Order, kind: ReadKind) -> Step:
        """What happens to this read of the order."""
        queue = self._reads.get(order.id)
        if queue is not None and queue.steps and queue.head().of == kind:
            return queue.take()
        if queue is not None or kind != "order" or not (self.mix.read_error or self.mix.read_drop):
            return NATURAL
        ordinal = self._read_counts[order.id] = self._read_counts.get(order.id, 0) + 1
        return self.mix.read_step(self.rules.seed, order.id, ordinal) or NATURAL

    def _add(self, spec: OrderSpec) -> int:
        moment = now()
        start = ((float("-inf"), spec.status),)
        traits = {**TRAITS, **spec.traits}
        for number, order_id in enumerate(spec.ids):
            placed_at = moment + spec.after + number * spec.every
            order = Order(
                order_id, spec.account, placed_at, spec.qty, traits, start, spec.read_lag, spec.settle
            )
            self.book.add(order)
            filled = spec.qty if spec.status == "Filled" else spec.filled
            if filled:
                self.book.place_fill(order, filled)
            self._queue(order_id, spec)
            self._plan(order, spec)
        facts = {"from": spec.ids.start, "count": len(spec.ids), "account": spec.account}
        self.truth.note("orders", facts | {"ordStatus": spec.status, "at": micros(moment)})
        return len(spec.ids)

    def _queue(self, order_id: int, spec: OrderSpec) -> None:
        if spec.posts is not None:
            self._posts[order_id] = Queue(spec.posts)
        if spec.reads is not None:
            self._reads[order_id] = Queue(spec.reads)

    def _plan(self, order: Order, spec: OrderSpec) -> None:
        for event in sorted(spec.events, key=lambda event: event.after):
            at = now() + event.after
            if event.fill is not None:
                self.book.fill(order, at=at, qty=event.fill)
            elif event.status == "Filled":
                self.book.fill(order, at=at)
            elif event.status is not None:
                self.book.change(order, event.status, at=at)
