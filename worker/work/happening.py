"""What the work tells those who watch it, as values: it never waits for them and never asks. No I/O."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never

from worker.job import Job
from worker.ledger.words import Claimed, Swept
from worker.policy import Again, Decision, End
from worker.reply import Reply
from worker.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Replied:
    """One attempt is over and on record; `job.attempts` counts it. It was taken in hand at `taken_at`."""

    job: Job
    taken_at: datetime
    reply: Reply
    verdict: Verdict
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A decision came to rest: the ledger knows that the job comes back, or that it has ended."""

    job: Job
    decision: Decision
    verdict: Verdict | None
    learned: bool  # something new about the order is on record
    at: datetime


Happening = Claimed | Replied | Settled | Swept


def nobody_listens(_happening: Happening) -> None:
    """What a crew tells when nobody watches."""


def named(job: Job) -> dict[str, Any]:
    """What every log line about a job carries, so that a search for either id tells its story."""
    return {"job": job.id, "order": job.request.order_id}


def followed(decision: Decision) -> dict[str, Any]:
    """What follows a decision, for the log."""
    match decision:
        case Again():
            return {"next": str(decision.step), "wait": round(decision.delay.total_seconds(), 3)}
        case End():
            return {"next": "end"}
    assert_never(decision)
