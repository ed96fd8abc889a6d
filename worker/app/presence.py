"""Tells Flower that this worker lives, and what becomes of each cancel. On a thread and a connection of its own.

Never in a cancel's way. Celery's own heartbeat is sent, and repeated without a bound, by the loop that takes the bells:
beside a frozen Redis a worker with it did not end within 20 s of SIGTERM.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import orjson
from celery import Celery
from celery.utils.sysinfo import load_average
from celery.worker.state import SOFTWARE_INFO

from worker.app.news import News

# Flower takes a worker for gone after two missing heartbeats.
EVERY = 5.0
# Events one by one cost a fifth of a worker's CPU; so many in one message a hundredth.
TURN = 0.5
MESSAGE = 500
# A Redis that hangs must not hold up the end of the process.
STOP_BOUND = 1.0


def node_name() -> str:
    """How Flower calls this process; Celery's own default is the same for all processes of a host."""
    return f"cancelq-{os.getpid()}@{socket.gethostname()}"


@contextmanager
def presence(app: Celery, news: News) -> Iterator[None]:
    """`worker-online` now, a heartbeat now and then, news as they come, `worker-offline` at the end."""
    ended = threading.Event()
    thread = threading.Thread(target=_tell, args=(app, news, ended), name="presence", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(STOP_BOUND)


def _tell(app: Celery, news: News, ended: threading.Event) -> None:
    event = "worker-online"
    while not ended.is_set():
        # What is wrong with Redis is said by those who need it; a heartbeat may get lost.
        with suppress(Exception):
            _tell_until_it_fails(app, news, ended, event)
        ended.wait(EVERY)
        event = "worker-heartbeat"


def _tell_until_it_fails(app: Celery, news: News, ended: threading.Event, event: str) -> None:
    """Over one connection: a new one each time would cost more than the heartbeat."""
    with app.connection_for_write() as connection:
        dispatcher = app.events.Dispatcher(
            connection, hostname=node_name(), groups=["worker"], buffer_while_offline=False
        )
        while True:
            dispatcher.send(event, freq=EVERY, loadavg=load_average(), **SOFTWARE_INFO)
            if event == "worker-offline":
                return
            _pass_on(news, dispatcher, ended)
            event = "worker-offline" if ended.is_set() else "worker-heartbeat"


def _pass_on(news: News, dispatcher: Any, ended: threading.Event) -> None:
    """Until the next heartbeat is due, or the end: all that is known goes out before that."""
    heartbeat = time.monotonic() + EVERY
    while not ended.wait(TURN) and time.monotonic() < heartbeat:
        _publish(news, dispatcher, last=False)
    if ended.is_set():
        _publish(news, dispatcher, last=True)


def _publish(news: News, dispatcher: Any, *, last: bool) -> None:
    """As the dispatcher publishes a group of its own, of which it takes no more than one at a time."""
    events = news.pending(dispatcher.clock.forward, last=last)
    for event in events:
        event["hostname"] = dispatcher.hostname
    for start in range(0, len(events), MESSAGE):
        dispatcher.producer.publish(
            orjson.dumps(events[start : start + MESSAGE]),
            content_type="application/json",
            content_encoding="utf-8",
            routing_key="task.multi",
            exchange=dispatcher.exchange.name,
            headers=dispatcher.headers,
            delivery_mode=dispatcher.delivery_mode,
        )
    news.sent()
