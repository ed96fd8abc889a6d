"""The same job as most would write it: one Celery task per cancel, one row and one commit per attempt.

Celery's defaults hold: early acks, prefetch 4. `python -m bench.plain threads 64` runs a worker.
"""

import os
import sys

from celery import Celery

from bench.task import cancel, get_ready
from worker.embedded.lifeline import die_with_parent

CANCEL = "bench.cancel"


def plain_app(broker_url: str, queue: str) -> Celery:
    app = Celery("plain", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_default_queue=queue, task_ignore_result=True, broker_connection_retry_on_startup=True
    )
    app.task(name=CANCEL)(cancel)
    return app


def work(pool: str, concurrency: str) -> None:
    die_with_parent()
    get_ready()
    app = plain_app(os.environ["BENCH_BROKER_URL"], pool)
    app.worker_main(["worker", "-P", pool, "-c", concurrency, "-l", "WARNING", "-n", f"{pool}@bench"])


if __name__ == "__main__":
    work(*sys.argv[1:])
