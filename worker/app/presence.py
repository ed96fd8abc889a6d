"""Tells Flower that this worker lives. On a thread and a connection of its own, never in a cancel's way.

Celery's own heartbeat is sent, and repeated without a bound, by the loop that takes the bells: beside a frozen
Redis a worker with it did not end within 20 s of SIGTERM.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from celery import Celery
from celery.utils.sysinfo import load_average
from celery.worker.state import SOFTWARE_INFO

# Flower takes a worker for gone after two missing heartbeats.
EVERY = 5.0
# A Redis that hangs must not hold up the end of the process.
STOP_BOUND = 1.0


def node_name() -> str:
    """How Flower calls this process; Celery's own default is the same for all processes of a host."""
    return f"cancelq-{os.getpid()}@{socket.gethostname()}"


@contextmanager
def presence(app: Celery) -> Iterator[None]:
    """`worker-online` now, a heartbeat now and then, `worker-offline` at the end."""
    ended = threading.Event()
    thread = threading.Thread(target=_tell, args=(app, ended), name="presence", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(STOP_BOUND)


def _tell(app: Celery, ended: threading.Event) -> None:
    event = "worker-online"
    while not ended.is_set():
        # What is wrong with Redis is said by those who need it; a heartbeat may get lost.
        with suppress(Exception):
            _tell_until_it_fails(app, ended, event)
        ended.wait(EVERY)
        event = "worker-heartbeat"


def _tell_until_it_fails(app: Celery, ended: threading.Event, event: str) -> None:
    """Over one connection: a new one each time would cost more than the heartbeat."""
    with app.connection_for_write() as connection:
        dispatcher = app.events.Dispatcher(
            connection, hostname=node_name(), groups=["worker"], buffer_while_offline=False
        )
        while True:
            dispatcher.send(event, freq=EVERY, loadavg=load_average(), **SOFTWARE_INFO)
            if event == "worker-offline":
                return
            event = "worker-offline" if ended.wait(EVERY) else "worker-heartbeat"
