"""What the ledger says now of an order's jobs; asked once, within a second, and never waited for longer."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from worker.clock import monotonic
from worker.errors import LedgerUnavailable
from worker.ledger.producer import CancelQueue

BOUND = timedelta(seconds=1)


@dataclass(slots=True)
class Present:
    """The answers by job id, and whose ledger it is; `note` says why there are not more."""

    answers: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    exchange: str | None = None
    note: str | None = None


def ask_ledger(
    redis_url: str, ledger: str, *, order_id: int, accounts: Iterable[str], open_jobs: Iterable[str]
) -> Present:
    """The newest job of the order for each account, and each job that has no outcome on record."""
    present, give_up = Present(), monotonic() + BOUND
    try:
        for answer in _answers(redis_url, ledger, _questions(order_id, accounts, open_jobs), give_up):
            if "jobId" in answer:
                present.answers[answer["jobId"]] = answer
        with CancelQueue(redis_url, ledger, bound=give_up - monotonic()) as queue:
            present.exchange = queue.exchange()
    except LedgerUnavailable as error:
        present.note = f"the ledger could not be asked: {error}"
    return present


def _questions(order_id: int, accounts: Iterable[str], open_jobs: Iterable[str]) -> Iterator[dict[str, Any]]:
    yield from ({"order_id": order_id, "account": account} for account in accounts)
    yield from ({"job_id": job_id} for job_id in open_jobs)


def _answers(
    redis_url: str, ledger: str, questions: Iterable[dict[str, Any]], give_up: timedelta
) -> Iterator[dict[str, Any]]:
    """Each question gets what is left of the bound."""
    for question in questions:
        left = give_up - monotonic()
        if left <= timedelta(0):
            raise LedgerUnavailable(f"not everything was answered within {BOUND.total_seconds():g} s")
        with CancelQueue(redis_url, ledger, bound=left) as queue:
            answer = queue.status(**question)
        if answer.get("status") == "refused":
            raise LedgerUnavailable(str(answer.get("error")))
        yield answer
