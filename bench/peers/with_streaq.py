"""streaq on asyncio, over Redis streams, 64 at once; results are not kept."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streaq import Worker

from bench.peers.async_task import Cancel, canceling
from bench.peers.producer import serve
from bench.task import THREADS


@asynccontextmanager
async def _lifespan() -> AsyncIterator[Cancel]:
    async with canceling() as cancel:
        yield cancel


WORKER = Worker(
    redis_url=os.environ["BENCH_REDIS_URL"],
    concurrency=THREADS,
    queue_name="bench-streaq",
    lifespan=_lifespan,
    anyio_kwargs={"use_uvloop": False},
)


async def _cancel(order_id: int) -> None:
    await WORKER.context(order_id)


CANCEL = WORKER.task(ttl=0)(_cancel)


def work() -> None:
    WORKER.run_sync()


async def produce() -> None:
    async def enqueue(orders: range) -> None:
        await WORKER.enqueue_many([CANCEL.enqueue(order) for order in orders])

    async with WORKER:
        await serve(enqueue)
