"""Twenty thousand finished cancels leave the ledger as small as it was."""

from collections.abc import Callable
from datetime import timedelta
from importlib.resources import files

import pytest
from redis import Redis

from tests.parts.exchange import eventually
from tests.parts.ledger import LEASE, closing
from tests.parts.valkey import PrivateValkey
from worker.clock import utc_now
from worker.job import ClaimId, JobId, Outcome
from worker.ledger import library
from worker.ledger.client import Ledger
from worker.ledger.producer import CancelQueue
from worker.ledger.words import Rules

JOBS, ROUND = 20_000, 1000
CLAIM = ClaimId("claim-1")
# Whatever the ledger keeps for good: a handful of keys, none of them per job.
FOR_GOOD = {"{cancelq}:library", "{cancelq}:meta", "{cancelq}:bells"}


def work_off(ledger: Ledger) -> int:
    """Claim a round, let it end, and have it recorded; how many that were."""
    jobs = ledger.claim(CLAIM, "w", lease=LEASE, jobs=ROUND, confirms=0).jobs
    ledger.close([closing(job.id) for job in jobs])
    ends = [(JobId(job.id), CLAIM, Outcome.CANCELED, "order_read", utc_now()) for job in jobs]
    return sum(ledger.finish(ends))


@pytest.mark.timeout(600)  # ten seconds of two processors' work
def test_keys_do_not_grow_with_finished_jobs(
    private_valkey: PrivateValkey, make_ledger: Callable[[str, str], Ledger]
) -> None:
    ledger = make_ledger(private_valkey.url, "cancelq")
    ledger.configure(Rules(dedupe_life=timedelta(seconds=2)))  # request ids
    prelude = (files("worker.ledger") / "functions/prelude.lua").read_text()
    assert "FINISHED_LIFE_MS = 3600000" in prelude
    short = prelude.replace("FINISHED_LIFE_MS = 3600000", "FINISHED_LIFE_MS = 2000")
    most_keys = most_memory = 0
    queue = CancelQueue(private_valkey.url, bound=timedelta(seconds=10))
    with Redis.from_url(private_valkey.url, decode_responses=True) as redis, queue:
        redis.function_load(library.source({"prelude": short}), replace=True)
        redis.config_set("appendfsync", "no")  # the test is of keys, not of disks
        for start in range(0, JOBS, ROUND):
            wishes = [{"order_id": start + n + 1, "deadline": 3600} for n in range(ROUND)]
            assert {receipt.status for receipt in queue.cancel_many(wishes)} == {"accepted"}
            queue.cancel(order_id=start + 1)  # a joiner
            assert work_off(ledger) == ROUND
            if start <= JOBS // 2:
                most_keys = max(most_keys, redis.dbsize())
                most_memory = max(most_memory, redis.info("memory")["used_memory"])
        # Lives overlap by seconds: the second half needed no more room than the first, at whatever pace.
        assert redis.dbsize() < 2 * most_keys + 3 * ROUND
        assert redis.info("memory")["used_memory"] < 2 * most_memory
        eventually(
            lambda: set(redis.scan_iter("*", count=1000)) <= FOR_GOOD, seconds=20, what="only a few keys"
        )
        assert redis.llen("{cancelq}:bells") <= 16
