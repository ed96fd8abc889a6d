"""The Flower process: reads only, for those who know the password, on a socket that its parent holds open."""

import logging
import socket
import sys
from typing import TYPE_CHECKING

from celery import Celery
from flower.app import Flower
from flower.options import default_options
from flower.urls import settings as flower_settings
from kombu.entity import Queue
from tornado.httpserver import HTTPServer

from worker.app.doorbell import bells_queue
from worker.app.flower_access import USER
from worker.ledger.connection import broker_settings
from worker.settings import Settings

if TYPE_CHECKING:
    from asyncio import Future

# Every worker process has a name of its own; those long gone must not fill the page.
FORGET_WORKERS_AFTER = 600
# What a cancel has; its order, account and attempt are in `kwargs`.
COLUMNS = "name,uuid,state,kwargs,result,received,runtime,worker"


class Spectator(Flower):  # type: ignore[misc]
    """Flower that asks the workers nothing: their remote control is off, each question would only time out."""

    def update_workers(self, workername: str | None = None) -> "Future[None]":  # noqa: ARG002
        answered: Future[None] = self.io_loop.asyncio_loop.create_future()
        answered.set_result(None)
        return answered


def serve_flower(settings: Settings, redis_url: str, listener: socket.socket, password: str) -> None:
    """Show what the workers of this Redis tell; runs until the process is ended."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    access = logging.getLogger("tornado.access")
    access.addHandler(logging.NullHandler())
    access.propagate = False  # a browser without the password is no news
    _configure(password)
    flower = Spectator(capp=_celery(settings, redis_url), options=default_options, **flower_settings)
    HTTPServer(flower).add_socket(listener)
    flower.start()


def _configure(password: str) -> None:
    """By hand and not by Flower's command: a password on a command line could be seen by everybody."""
    default_options.basic_auth = [f"{USER}:{password}"]
    default_options.read_only = True  # a revoke would go past the audit
    default_options.enable_events = False  # our workers always tell, and can't be told to
    default_options.persistent = False  # the audit remembers
    default_options.tasks_columns = COLUMNS
    default_options.purge_offline_workers = FORGET_WORKERS_AFTER


def _celery(settings: Settings, redis_url: str) -> Celery:
    """Knows the queue's name for the page of queues, and takes nothing from it."""
    app = Celery("cancelq", set_as_current=False)
    queue = bells_queue(settings.ledger)
    app.conf.update(
        **broker_settings(redis_url),
        broker_transport_options={
            "priority_steps": [0],
            "socket_connect_timeout": 2,
            "socket_timeout": 5,
            "socket_keepalive": True,
        },
        task_queues=[Queue(queue, routing_key=queue)],  # type: ignore[no-untyped-call]
        task_default_queue=queue,
    )
    return app
