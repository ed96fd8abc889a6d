"""The Celery side: an anonymous bell wakes a shift. Whatever else lies on the queue is dropped and counted.

Celery's parser ends the process, or loops for ever, on a message that is not quite one of its own. So it
never sees foreign bytes: the channel looks for the bell's name and hands Celery a message made here.
"""

import itertools
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import structlog
from celery import Celery
from kombu.entity import Queue
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from kombu.transport.virtual import Empty

from worker.gaps import Gap, reached
from worker.ledger.connection import broker_settings

log = structlog.get_logger()
BELL = "cancelq.bell"
# Bells only start a shift or find one running, so a few threads serve any number of them.
BELL_THREADS = 2
# Between two tries of a Redis that answers with errors; as long as a BRPOP without a bell.
REFUSED_PAUSE = 1.0
# The ledger's own have 300 bytes, Celery's 2 KB; what is longer is not worth the memory and the time to read it.
LONGEST_BELL = 64 * 1024


def bells_queue(ledger: str) -> str:
    """The Redis list that both the ledger's functions and Celery know as the queue."""
    return f"{{{ledger}}}:bells"


def is_bell(raw: bytes) -> bool:
    """Whether `raw` names our task; nothing else in it matters."""
    if len(raw) > LONGEST_BELL:
        return False
    try:
        message = json.loads(raw)
        return bool(message["headers"]["task"] == BELL)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


class GuardedChannel(kombu_redis.Channel):
    """kombu's channel, with its own parsing of what it popped replaced; an error that Redis answers ends nothing."""

    dropped = itertools.count(1)
    leave_word: Callable[[], bool]
    from_transport_options = (*kombu_redis.Channel.from_transport_options, "leave_word")  # type: ignore[assignment]

    def __init__(self, *given: Any, **named: Any) -> None:
        """A server that refuses the greeting (MISCONF, NOAUTH) counts as one that is away: Celery then tries again."""
        try:
            super().__init__(*given, **named)  # type: ignore[no-untyped-call]
        except GuardedTransport.channel_errors as error:
            raise ConnectionError(f"Redis refuses: {error}") from error

    def _queue_bind(self, *_given: Any) -> None:
        """Nobody publishes to the queue through kombu, so where it is bound need not be written: Redis may be full."""

    def _size(self, _queue: str) -> int:
        """Nobody here asks how many bells wait; where the key holds no list, asking would restart Celery's consumer."""
        return 0

    def _brpop_read(self, **options: Any) -> bool:
        """As kombu does it, but a popped item is either a bell, delivered as one of ours, or dropped.

        A shift that runs is told of the bell right here: a task only to find it running costs a millisecond.
        """
        try:
            found = self._pop(options)
            if not found:
                raise Empty
            reached(Gap.BELL_TAKEN)
            queue = found[0].decode().rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            if not is_bell(found[1]):
                log.warning("bell.dropped", nth=next(self.dropped), start=repr(found[1][:80]))
            elif not self.leave_word():
                self.connection._deliver(_bell_message(queue), queue)  # noqa: SLF001 - kombu's only way in
            return True
        finally:
            self._in_poll: Any = None
            self._flush_brpop_reauth()  # type: ignore[no-untyped-call]

    def _pop(self, options: dict[str, Any]) -> Any:
        try:
            return self.client.parse_response(self.client.connection, "BRPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        except self.ResponseError as error:
            # MISCONF, or READONLY after a failover: the address may lead to another server by now.
            log.warning("bell.refused", error=str(error))
            self.client.connection.disconnect()
            time.sleep(REFUSED_PAUSE)
            return None


def _bell_message(queue: str) -> dict[str, Any]:
    bell = str(uuid4())
    return {
        "body": "[[], {}, {}]",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": BELL, "id": bell, "lang": "py"},
        "properties": {
            "delivery_tag": bell,
            "body_encoding": "utf-8",
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    }


class GuardedTransport(kombu_redis.Transport):
    Channel = GuardedChannel


TRANSPORT = "cancelq"
TRANSPORT_ALIASES[TRANSPORT] = f"{__name__}:GuardedTransport"


def celery_app(
    redis_url: str, ledger: str, on_bell: Callable[[], None], leave_word: Callable[[], bool]
) -> Celery:
    """A Celery application with one task: a bell calls `on_bell`, unless `leave_word` says that is done."""
    app = Celery("cancelq", set_as_current=False)
    queue = bells_queue(ledger)
    app.conf.update(
        **broker_settings(redis_url, TRANSPORT),
        broker_transport_options={
            "leave_word": leave_word,
            "ack_emulation": False,  # a Redis death with it on ends the worker process
            "priority_steps": [0],  # one list, one BRPOP key
            "socket_connect_timeout": 2,
            "socket_timeout": 5,  # above the 1 s of a BRPOP
            "socket_keepalive": True,
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # Redis may be away for long; the ledger keeps the work
        broker_channel_error_retry=True,  # an error that Redis answers must not end the process either
        task_queues=[Queue(queue, routing_key=queue)],  # type: ignore[no-untyped-call]
        task_default_queue=queue,
        task_acks_late=False,  # a lost bell costs a sweep, nothing more
        task_ignore_result=True,
        worker_send_task_events=False,  # bells are nobody's news
        worker_prefetch_multiplier=1,
        worker_enable_prefetch_count_reduction=False,  # after a reconnect it would take fewer bells for a while
        worker_enable_remote_control=False,  # a revoke would go past the audit
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )
    app.task(name=BELL, ignore_result=True)(on_bell)
    return app
