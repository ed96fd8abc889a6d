"""The wire alone, without queue, rows or retries, 64 at once. Reads "first count" lines.

`python -m bench.floor threads`: session.post from threads; `… asyncio`: aiohttp in one thread.
"""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import requests
from aiohttp import ClientSession, TCPConnector
from requests.adapters import HTTPAdapter

from bench.task import THREADS


def on_threads() -> None:
    """Send each range of orders that a line of stdin names; the end of stdin is the end."""
    url = f"{os.environ['CANCELQ_EXCHANGE_URL']}/order/cancelorder"
    with requests.Session() as session, ThreadPoolExecutor(THREADS) as threads:
        session.mount("http://", HTTPAdapter(pool_maxsize=THREADS))
        session.headers.update(_bearer())

        def post(order_id: int) -> bytes:
            return session.post(url, json=_body(order_id), timeout=(2, 5)).content

        for line in sys.stdin:
            first, count = map(int, line.split())
            for said in threads.map(post, range(first, first + count)):
                assert said


async def on_asyncio() -> None:
    url = f"{os.environ['CANCELQ_EXCHANGE_URL']}/order/cancelorder"
    async with ClientSession(connector=TCPConnector(limit=THREADS), headers=_bearer()) as session:

        async def post(order_id: int) -> None:
            async with session.post(url, json=_body(order_id)) as response:
                assert await response.read()

        while line := await asyncio.to_thread(sys.stdin.readline):
            first, count = map(int, line.split())
            await asyncio.gather(*map(post, range(first, first + count)))


def _bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {os.environ['CANCELQ_ACCESS_TOKEN']}"}


def _body(order_id: int) -> dict[str, object]:
    return {"orderId": order_id, "isAutomated": True}


if __name__ == "__main__":
    if sys.argv[1] == "threads":
        on_threads()
    else:
        asyncio.run(on_asyncio())
