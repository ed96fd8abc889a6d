"""dramatiq on threads, over Redis, with its own defaults; the worker without its forking command line."""

import os
import signal
import threading

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers.producer import serve
from bench.task import THREADS, cancel, get_ready

BROKER = RedisBroker(url=os.environ["BENCH_REDIS_URL"], namespace="bench-dramatiq")
CANCEL = dramatiq.Actor(
    cancel, broker=BROKER, actor_name="cancel", queue_name="cancel", priority=0, options={}
)


def work() -> None:
    get_ready()
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    worker = dramatiq.Worker(BROKER, worker_threads=THREADS)
    worker.start()
    ending.wait()
    worker.stop()


async def produce() -> None:
    async def enqueue(orders: range) -> None:
        for order in orders:  # it has no call for many
            CANCEL.send(order)

    await serve(enqueue)
