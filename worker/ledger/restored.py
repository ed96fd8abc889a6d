"""An open job as the audit knows it, on its way back into a ledger that has lost it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from worker.clock import span_micros, to_micros
from worker.job import Job, Joiner, Priority
from worker.ledger.encoding import compact


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """`job` as its own request came; what its joiners widened is worked out here. `delay`: nobody takes it earlier."""

    job: Job
    joiners: tuple[Joiner, ...]
    delay: timedelta


def restored_from(restored: Restored) -> dict[str, Any]:
    """As functions/compare.lua wants it: every field a text."""
    job, joiners = restored.job, restored.joiners
    asked = job.request
    fields = {
        "id": job.id,
        "account": asked.account,
        "order_id": str(asked.order_id),
        "request_id": asked.request_id,
        "is_automated": str(int(asked.is_automated)),
        "priority": _highest([asked.priority, *(j.priority for j in joiners)]),
        "attempts": str(job.attempts),
        "joiners": str(len(joiners)),
        "enqueued_at": str(to_micros(job.enqueued_at)),
        "requested_by": asked.requested_by,
        "cl_ord_id": asked.cl_ord_id,
        "custom_tag50": asked.custom_tag50,
        "activation_time": _micros(_all(min, [asked.activation_time, *(j.activation_time for j in joiners)])),
        "deadline": _micros(_all(max, [asked.deadline, *(j.deadline for j in joiners)])),
        "redrive_of": job.redrive_of,
    }
    return {
        "job": {name: text for name, text in fields.items() if text is not None},
        "joiners": [_joiner_text(joiner) for joiner in joiners],
        "request_ids": [asked.request_id, *(j.request_id for j in joiners)],
        "delay_us": span_micros(restored.delay),
    }


def _highest(priorities: list[Priority]) -> Priority:
    return Priority.URGENT if Priority.URGENT in priorities else Priority.NORMAL


def _all(widest: Callable[[list[datetime]], datetime], wishes: list[datetime | None]) -> datetime | None:
    """One wish without a limit frees them all."""
    known = [wish for wish in wishes if wish is not None]
    return widest(known) if len(known) == len(wishes) else None


def _micros(moment: datetime | None) -> str | None:
    return None if moment is None else str(to_micros(moment))


def _joiner_text(joiner: Joiner) -> str:
    return compact(
        {
            "request_id": joiner.request_id,
            "requested_by": joiner.requested_by,
            "priority": joiner.priority,
            "deadline": None if joiner.deadline is None else to_micros(joiner.deadline),
            "activation_time": None if joiner.activation_time is None else to_micros(joiner.activation_time),
            "requested_at": to_micros(joiner.requested_at),
        }
    )
