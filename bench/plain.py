"""The same job as most would write it: one Celery task per cancel, one row and one commit per attempt.

Celery's defaults hold: early acks, prefetch 4. `python -m bench.plain threads 64` runs a worker.
"""

import os
import sys
from datetime import UTC, datetime
from functools import cache
from itertools import count

import requests
from celery import Celery
from requests.adapters import HTTPAdapter
from sqlalchemy import BigInteger, Engine, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_attempt, wait_random_exponential

from worker.embedded.lifeline import die_with_parent

CANCEL = "bench.cancel"
THREADS = 64
TRANSIENT = {"AnotherCommandPending", "RiskCheckTimeout", "ExecutionProviderUnavailable"}


class Base(DeclarativeBase):
    pass


class Attempt(Base):
    """One POST and its answer, written afterwards."""

    __tablename__ = "attempts"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(BigInteger)
    attempt: Mapped[int]
    status: Mapped[int | None]
    command_id: Mapped[int | None] = mapped_column(BigInteger)
    failure_reason: Mapped[str | None]
    body: Mapped[str]
    at: Mapped[datetime]


def plain_engine(url: str) -> Engine:
    if url.startswith("sqlite"):
        return create_engine(url, connect_args={"timeout": 60})
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"), pool_size=THREADS)


def plain_app(broker_url: str, queue: str) -> Celery:
    app = Celery("plain", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_default_queue=queue, task_ignore_result=True, broker_connection_retry_on_startup=True
    )
    app.task(name=CANCEL)(cancel)
    return app


@cache
def _engine() -> Engine:
    return plain_engine(os.environ["BENCH_DATABASE_URL"])


@cache
def _http() -> requests.Session:
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=THREADS))
    session.headers["Authorization"] = f"Bearer {os.environ['CANCELQ_ACCESS_TOKEN']}"
    return session


def cancel(order_id: int) -> None:
    """Repeat while the reason is transient."""
    retrying = Retrying(
        retry=retry_if_result(TRANSIENT.__contains__),
        wait=wait_random_exponential(0.05, max=2),
        stop=stop_after_attempt(5),
        retry_error_callback=_give_up,
    )
    numbers = count(1)
    retrying(lambda: _attempt(order_id, next(numbers)))


def _give_up(_state: RetryCallState) -> None:
    """Five rows say it all."""


def _attempt(order_id: int, number: int) -> str | None:
    body = {"orderId": order_id, "isAutomated": True}
    response = _http().post(
        f"{os.environ['CANCELQ_EXCHANGE_URL']}/order/cancelorder", json=body, timeout=(2, 5)
    )
    said = response.json()
    with Session(_engine()) as session:
        session.add(
            Attempt(
                order_id=order_id,
                attempt=number,
                status=response.status_code,
                command_id=said.get("commandId"),
                failure_reason=said.get("failureReason"),
                body=response.text,
                at=datetime.now(UTC),
            )
        )
        session.commit()
    reason: str | None = said.get("failureReason")
    return reason


def work(pool: str, concurrency: str) -> None:
    die_with_parent()
    app = plain_app(os.environ["BENCH_BROKER_URL"], pool)
    app.worker_main(["worker", "-P", pool, "-c", concurrency, "-l", "WARNING", "-n", f"{pool}@bench"])


if __name__ == "__main__":
    work(*sys.argv[1:])
