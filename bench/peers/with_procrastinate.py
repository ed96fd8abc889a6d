"""procrastinate on asyncio, over PostgreSQL, 64 at once: the queue is a table beside the rows."""

import asyncio
import os

from procrastinate import App, PsycopgConnector

from bench.peers.async_task import Cancel, canceling
from bench.peers.producer import serve
from bench.task import THREADS

APP = App(connector=PsycopgConnector(conninfo=os.environ["BENCH_DATABASE_URL"], min_size=4, max_size=16))
TOOLS: dict[str, Cancel] = {}


async def _cancel(order_id: int) -> None:
    await TOOLS["cancel"](order_id)


CANCEL = APP.task(name="cancel")(_cancel)


async def _work() -> None:
    async with APP.open_async(), canceling() as TOOLS["cancel"]:
        await _make_tables()
        await APP.run_worker_async(concurrency=THREADS)


async def _make_tables() -> None:
    if not await APP.check_connection_async():
        await APP.schema_manager.apply_schema_async()


def work() -> None:
    asyncio.run(_work())


async def produce() -> None:
    async def enqueue(orders: range) -> None:
        await CANCEL.batch_defer_async(*({"order_id": order} for order in orders))

    async with APP.open_async():
        for _ in range(400):  # the worker makes the tables; without them the first call says so
            if await APP.check_connection_async():
                break
            await asyncio.sleep(0.05)
        await serve(enqueue)
