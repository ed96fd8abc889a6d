"""The job of every contender but cancelq, on threads: POST, and one row in one commit after the fact.

Knows no queue, so that Celery and dramatiq run the very same code.
"""

import os
from datetime import UTC, datetime
from functools import cache
from itertools import count

import requests
from requests.adapters import HTTPAdapter
from sqlalchemy import BigInteger, Engine, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_attempt, wait_random_exponential

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


@cache
def _engine() -> Engine:
    return plain_engine(os.environ["BENCH_DATABASE_URL"])


@cache
def _http() -> requests.Session:
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=THREADS))
    session.headers["Authorization"] = f"Bearer {os.environ['CANCELQ_ACCESS_TOKEN']}"
    return session


def get_ready() -> None:
    """Before any thread: asked for by several at once, both would be made several times."""
    _engine()
    _http()


def cancel(order_id: int) -> None:
    """Repeat while the reason is transient."""
    retrying = Retrying(
        retry=retry_if_result(TRANSIENT.__contains__),
        wait=wait_random_exponential(0.05, max=2),
        stop=stop_after_attempt(5),
        retry_error_callback=give_up,
    )
    numbers = count(1)
    retrying(lambda: _attempt(order_id, next(numbers)))


def give_up(_state: RetryCallState) -> None:
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
