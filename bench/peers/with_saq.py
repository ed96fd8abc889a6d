"""saq on asyncio, over Redis lists, 64 at once; results are not kept."""

import asyncio
import os
from contextlib import AsyncExitStack
from typing import Any

from redis.asyncio import Redis
from saq import Worker
from saq.queue.redis import RedisQueue

from bench.peers.async_task import canceling
from bench.peers.producer import serve
from bench.task import THREADS


def _queue() -> RedisQueue:
    return RedisQueue(Redis.from_url(os.environ["BENCH_REDIS_URL"]), name="bench-saq")


async def cancel(context: dict[str, Any], *, order_id: int) -> None:
    await context["cancel"](order_id)


async def _work() -> None:
    async with AsyncExitStack() as tools:

        async def startup(context: dict[str, Any]) -> None:
            context["cancel"] = await tools.enter_async_context(canceling())

        await Worker(_queue(), [cancel], concurrency=THREADS, startup=startup).start()


def work() -> None:
    asyncio.run(_work())


async def produce() -> None:
    queue = _queue()

    async def enqueue(orders: range) -> None:
        # It has no call for many; it sends 20 of these at once.
        await asyncio.gather(*(queue.enqueue("cancel", order_id=order, ttl=-1) for order in orders))

    try:
        await serve(enqueue)
    finally:
        await queue.disconnect()
