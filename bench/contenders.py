"""The contenders: how each is started, told to cancel orders, and asked whether it is done."""

import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from bench.bars import OURS, PAIR
from bench.plain import CANCEL, plain_app
from bench.processes import Group, Team, Workers
from bench.stage import LEDGER, Stage
from bench.task import Base, plain_engine
from models import Ended, Enqueued
from worker import CancelQueue
from worker.audit.engine import open_engine
from worker.clock import to_micros

# The producer must not give up while both cores are busy with the worker.
PATIENCE = timedelta(seconds=5)
# How long a producer in a process of its own may take for one call, thousands of orders at once included.
ANSWER = 90.0
# The peers' environment, which `make bench` makes.
PEERS = Path(__file__).parent.parent / ".venv-peers" / "bin" / "python"


class Contender(ABC):
    """One way to cancel orders. The worker's process group is made anew for each turn."""

    name: str
    takes_singles = True
    takes_many = False  # one call stores many

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    @abstractmethod
    def start(self) -> Workers: ...

    @abstractmethod
    def producer(self) -> AbstractContextManager[Any]:
        """Open what enqueueing needs."""

    @abstractmethod
    def enqueue(self, order: int) -> None: ...

    def call(self, order: int) -> int:
        """Enqueue one; gives when the call began (µs since 1970)."""
        begun = time.time_ns() // 1000
        self.enqueue(order)
        return begun

    def enqueue_many(self, orders: range) -> None:
        """By whatever its own API offers for many."""
        for order in orders:
            self.enqueue(order)

    def ended(self, _orders: range) -> tuple[int, int] | None:
        """How many of them have a proven end, and when the last one came (µs); None where nothing is proven."""
        return None


class Cancelq(Contender):
    """With everything on: proofs, Flower's events, metrics."""

    name = OURS
    takes_many = True

    def __init__(self, stage: Stage, **settings: str) -> None:
        super().__init__(stage)
        self._settings = settings

    def start(self) -> Workers:
        return self.worker()

    def worker(self) -> Group:
        settings = {"CANCELQ_METRICS_PORT": str(_free_port()), **self._settings}
        return Group(
            ["worker", "worker", "--die-with-parent"],
            environment=self._stage.environment(**settings),
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


class CancelqPair(Cancelq):
    name = PAIR
    takes_singles = False

    def start(self) -> Workers:
        return Team(self.worker(), self.worker())


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
        _make_attempts(self._stage.plain_url)
        self._cancel = self._app.tasks[CANCEL]
        try:
            yield
        finally:
            self._app.close()

    def enqueue(self, order: int) -> None:
        self._cancel.delay(order)


class Peer(Contender):
    """A queue of the peers' environment; its producer is a process there, which says itself when a call began."""

    def __init__(self, stage: Stage, name: str) -> None:
        super().__init__(stage)
        self.name = name

    def start(self) -> Group:
        _make_attempts(self._stage.plain_url)
        return self._process("work")

    @contextmanager
    def producer(self) -> Iterator[None]:
        with self._process("produce", answers=True) as self._producer:
            yield

    def enqueue(self, order: int) -> None:
        self.call(order)

    def call(self, order: int) -> int:
        return int(self._producer.ask(f"{order} 1", bound=ANSWER))

    def enqueue_many(self, orders: range) -> None:
        self._producer.ask(f"{orders.start} {len(orders)}", bound=ANSWER)

    def _process(self, role: str, *, answers: bool = False) -> Group:
        stage = self._stage
        return Group(
            ["bench.peers", self.name, role],
            environment=stage.environment(
                BENCH_REDIS_URL=stage.redis_url, BENCH_DATABASE_URL=stage.plain_url
            ),
            log=stage.home / f"{self.name}-{role}.log",
            python=str(PEERS),
            answers=answers,
        )


class Floor(Contender):
    takes_singles = False

    def __init__(self, stage: Stage, name: str, kind: str) -> None:
        super().__init__(stage)
        self.name, self._kind = name, kind

    def start(self) -> Group:
        self._group = Group(
            ["bench.floor", self._kind],
            environment=self._stage.environment(),
            log=self._stage.home / "floor.log",
        )
        return self._group

    @contextmanager
    def producer(self) -> Iterator[None]:
        yield

    def enqueue(self, order: int) -> None:
        self.enqueue_many(range(order, order + 1))

    def enqueue_many(self, orders: range) -> None:
        self._group.say(f"{orders.start} {len(orders)}")


def _make_attempts(url: str) -> None:
    engine = plain_engine(url)
    Base.metadata.create_all(engine)
    engine.dispose()


def _free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])
