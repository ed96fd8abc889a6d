"""The ledger as any language sees it, FCALLs and bare keys, and short words for a worker's calls."""

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from worker.job import DEFAULT_LOGIN, ClaimId, JobId, Outcome, State, Step
from worker.ledger import library
from worker.ledger.client import Ledger
from worker.ledger.words import Claimed, Closing, Settlement

if TYPE_CHECKING:
    from redis import Redis

LEASE = timedelta(seconds=30)
NO_TIME = timedelta(0)
PLACES = ("closing", "lapsed", "urgent", "due", "confirm", "leases")


class Door:
    """Puts requests in without our client, and looks at what they left."""

    def __init__(self, redis: "Redis", name: str) -> None:
        self.redis = redis
        self.prefix = f"{{{name}}}"

    def enqueue(self, order_id: object = 1, **fields: object) -> dict[str, Any]:
        return self.enqueue_text(json.dumps({"orderId": order_id} | fields))

    def enqueue_text(self, text: str | bytes) -> dict[str, Any]:
        return self.ask("cancelq_enqueue", text)

    def status(self, **wanted: object) -> dict[str, Any]:
        return self.ask("cancelq_status", json.dumps(wanted))

    def ask(self, function: str, text: str | bytes) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.redis.fcall(function, 1, self.prefix, text))
        return answer

    def key(self, name: str) -> str:
        return f"{self.prefix}:{name}"

    def all_keys(self) -> set[str]:
        return set(self.redis.scan_iter(self.prefix.replace("[", "\\[") + ":*"))

    def job(self, job_id: str) -> dict[str, str]:
        return self.redis.hgetall(self.key(f"job:{job_id}"))

    def places(self, job_id: str) -> set[str]:
        """In which indexes (or among the leases) a job is."""
        return {name for name in PLACES if self.redis.zscore(self.key(name), job_id) is not None}

    def bells(self) -> list[dict[str, Any]]:
        return [json.loads(bell) for bell in self.redis.lrange(self.key("bells"), 0, -1)]


def clocked_library(key: str) -> str:
    """The ledger's functions with the microseconds in this key in place of the server's clock."""
    real = "  local time = redis.call('TIME')\n  return tonumber(time[1]) * 1000000 + tonumber(time[2])\n"
    source = library.source()
    assert source.count(real) == 1
    return source.replace(real, f"  return tonumber(redis.call('GET', '{key}'))\n")


def settle_in(ledger: Ledger) -> None:
    """As a worker does on a server that it has not met before: functions, and nothing to put back."""
    ledger.load_functions()
    ledger.compare("test", LEASE)
    assert ledger.compared("test")


def claim(ledger: Ledger, claim_id: str = "claim-1", *, lease: timedelta = LEASE, jobs: int = 64) -> Claimed:
    return ledger.claim(ClaimId(claim_id), "test-worker", lease=lease, jobs=jobs, confirms=jobs)


def claimed_ids(
    ledger: Ledger, claim_id: str = "claim-1", *, lease: timedelta = LEASE, jobs: int = 64
) -> list[str]:
    return [job.id for job in claim(ledger, claim_id, lease=lease, jobs=jobs).jobs]


def lock_out(ledger: Ledger, span: timedelta, login: str = DEFAULT_LOGIN) -> datetime:
    return ledger.hold(login, span, lockout=True)


def settlement(
    job_id: str,
    claim_id: str = "claim-1",
    *,
    step: Step = Step.POST,
    delay: timedelta = NO_TIME,
    fields: dict[str, str | None] | None = None,
    posts: int = 0,
) -> Settlement:
    state = {Step.CONFIRM: State.CONFIRMING, Step.RECONCILE: State.RECONCILING}.get(step, State.PARKED)
    return Settlement(
        job=JobId(job_id),
        claim=ClaimId(claim_id),
        step=step,
        state=state,
        delay=delay,
        fields=fields or {},
        posts=posts,
    )


def finish(ledger: Ledger, job_id: str, claim_id: str = "claim-1") -> bool:
    return ledger.finish(
        [(JobId(job_id), ClaimId(claim_id), Outcome.CANCELED, "order_read", datetime.now(UTC))]
    )[0]


def closing(job_id: str, claim_id: str = "claim-1", *, posts: int = 0) -> Closing:
    return Closing(
        job=JobId(job_id),
        claim=ClaimId(claim_id),
        outcome=Outcome.CANCELED,
        evidence="order_read",
        deadline=None,
        fields={},
        posts=posts,
    )
