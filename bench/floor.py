"""The wire alone: `session.post` from 64 threads, without queue, rows or retries. Reads "first count" lines."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import requests
from requests.adapters import HTTPAdapter

THREADS = 64


def serve() -> None:
    """Send each range of orders that a line of stdin names; the end of stdin is the end."""
    url = f"{os.environ['CANCELQ_EXCHANGE_URL']}/order/cancelorder"
    with requests.Session() as session, ThreadPoolExecutor(THREADS) as threads:
        session.mount("http://", HTTPAdapter(pool_maxsize=THREADS))
        session.headers["Authorization"] = f"Bearer {os.environ['CANCELQ_ACCESS_TOKEN']}"

        def post(order_id: int) -> bytes:
            body = {"orderId": order_id, "isAutomated": True}
            return session.post(url, json=body, timeout=(2, 5)).content

        for line in sys.stdin:
            first, count = map(int, line.split())
            for said in threads.map(post, range(first, first + count)):
                assert said


if __name__ == "__main__":
    serve()
