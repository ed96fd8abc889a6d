"""The contenders: how each is started, told to cancel orders, and asked whether it is done."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select

from bench.plain import CANCEL, Base, plain_app, plain_engine
from bench.processes import Group
from bench.stage import LEDGER, Stage
from models import Ended, Enqueued
from worker import CancelQueue
from worker.audit.engine import open_engine
from worker.clock import to_micros

# The producer must not give up while both cores are busy with the worker.
PATIENCE = timedelta(seconds=5)


class Contender(ABC):
    """One way to cancel orders. The worker's process group is made anew for each turn."""

    name: str
    takes_singles = True
    takes_many = False  # one call stores many

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    @abstractmethod
    def start(self) -> Group: ...

    @abstractmethod
    def producer(self) -> AbstractContextManager[Any]:
        """Open what enqueueing needs."""

    @abstractmethod
    def enqueue(self, order: int) -> None: ...

    def enqueue_many(self, orders: range) -> None:
        """By whatever its own API offers for many."""
        for order in orders:
            self.enqueue(order)

    def ended(self, _orders: range) -> tuple[int, int] | None:
        """How many of them have a proven end, and when the last one came (µs); None where nothing is proven."""
        return None


class Cancelq(Contender):
    name = "cancelq"
    takes_many = True

    def __init__(self, stage: Stage, **settings: str) -> None:
        super().__init__(stage)
        self._settings = settings

    def start(self) -> Group:
        return Group(
            ["worker", "worker", "--die-with-parent"],
            environment=self._stage.environment(**self._settings),
            log=self._stage.home / "cancelq.log",
        )

    @contextmanager
    def producer(self) -> Iterator[None]:
        self._audit = open_engine(self._stage.audit_url)
        try:
            with CancelQueue(self._stage.redis_url, LEDGER, bound=PATIENCE) as self._queue:
                yield
        finally:
            self._audit.dispose()

    def enqueue(self, order: int) -> None:
        self._queue.cancel(order_id=order, account="DEMO1", requested_by="bench")

    def enqueue_many(self, orders: range) -> None:
        wishes = [{"order_id": order, "account": "DEMO1", "requested_by": "bench"} for order in orders]
        assert all(receipt.is_stored for receipt in self._queue.cancel_many(wishes))

    def ended(self, orders: range) -> tuple[int, int]:
        ends = (
            select(func.count(), func.max(Ended.finished_at))
            .join(Enqueued, Enqueued.job_id == Ended.job_id)
            .where(Enqueued.order_id.between(orders.start, orders.stop - 1))
        )
        with self._audit.connect() as connection:
            count, last = connection.execute(ends).one()
        return count, to_micros(last) if last is not None else 0


class PlainCelery(Contender):
    """A queue name of its own, so that the two pools never take each other's tasks."""

    def __init__(self, stage: Stage, pool: str, concurrency: int) -> None:
        super().__init__(stage)
        self.name = f"Celery {pool} {concurrency}"
        self._pool, self._concurrency = pool, concurrency
        self._app = plain_app(stage.broker_url, pool)

    def start(self) -> Group:
        return Group(
            ["bench.plain", self._pool, str(self._concurrency)],
            environment=self._stage.environment(
                BENCH_BROKER_URL=self._stage.broker_url, BENCH_DATABASE_URL=self._stage.plain_url
            ),
            log=self._stage.home / f"plain-{self._pool}.log",
        )

    @contextmanager
    def producer(self) -> Iterator[None]:
        engine = plain_engine(self._stage.plain_url)
        Base.metadata.create_all(engine)
        engine.dispose()
        self._cancel = self._app.tasks[CANCEL]
        try:
            yield
        finally:
            self._app.close()

    def enqueue(self, order: int) -> None:
        self._cancel.delay(order)


class Floor(Contender):
    name = "the wire alone"
    takes_singles = False

    def start(self) -> Group:
        self._group = Group(
            ["bench.floor"], environment=self._stage.environment(), log=self._stage.home / "floor.log"
        )
        return self._group

    @contextmanager
    def producer(self) -> Iterator[None]:
        yield

    def enqueue(self, order: int) -> None:
        self.enqueue_many(range(order, order + 1))

    def enqueue_many(self, orders: range) -> None:
        self._group.say(f"{orders.start} {len(orders)}")
