"""The job of the peers on asyncio: the same POST and the same row as `bench.task`, by aiohttp and psycopg."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

from aiohttp import ClientSession, ClientTimeout, TCPConnector
from psycopg_pool import AsyncConnectionPool
from tenacity import AsyncRetrying, retry_if_result, stop_after_attempt, wait_random_exponential

from bench.task import THREADS, TRANSIENT, give_up

INSERT = (
    "INSERT INTO attempts (order_id, attempt, status, command_id, failure_reason, body, at) "
    "VALUES (%s, %s, %s, %s, %s, %s, now())"
)
BOUND = ClientTimeout(total=7, connect=2)

Cancel = Callable[[int], Awaitable[None]]


@asynccontextmanager
async def canceling() -> AsyncIterator[Cancel]:
    """What cancels one order; a row is a transaction by itself, the cheapest way to write it."""
    connector = TCPConnector(limit=THREADS)
    headers = {"Authorization": f"Bearer {os.environ['CANCELQ_ACCESS_TOKEN']}"}
    pool = AsyncConnectionPool(
        os.environ["BENCH_DATABASE_URL"],
        min_size=8,
        max_size=THREADS,
        open=False,
        kwargs={"autocommit": True},
    )
    async with ClientSession(connector=connector, headers=headers, timeout=BOUND) as session, pool:
        yield partial(_cancel, session, pool)


async def _cancel(session: ClientSession, pool: AsyncConnectionPool, order_id: int) -> None:
    retrying = AsyncRetrying(
        retry=retry_if_result(TRANSIENT.__contains__),
        wait=wait_random_exponential(0.05, max=2),
        stop=stop_after_attempt(5),
        retry_error_callback=give_up,
    )
    numbers = count(1)

    async def attempt() -> str | None:
        return await _attempt(session, pool, order_id, next(numbers))

    await retrying(attempt)


async def _attempt(
    session: ClientSession, pool: AsyncConnectionPool, order_id: int, number: int
) -> str | None:
    url = f"{os.environ['CANCELQ_EXCHANGE_URL']}/order/cancelorder"
    async with session.post(url, json={"orderId": order_id, "isAutomated": True}) as response:
        said, text = await response.json(), await response.text()
    reason: str | None = said.get("failureReason")
    row = (order_id, number, response.status, said.get("commandId"), reason, text)
    async with pool.connection() as connection:
        await connection.execute(INSERT, row)
    return reason
