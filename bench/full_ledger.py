"""The ledger with many jobs in it beside an empty one: what enqueue, claim and settle take, also during an AOF rewrite."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import median

from redis import Redis

from bench.processes import BenchError
from tests.parts.ledger import settle_in
from worker import CancelQueue
from worker.embedded.valkey import ensure
from worker.job import ClaimId, Job, State, Step
from worker.ledger.client import Ledger
from worker.ledger.words import Settlement

NAME = "bench-scale"
PATIENCE = timedelta(seconds=30)
LEASE = timedelta(minutes=10)
# What is given back is not due again in this run.
LATER = timedelta(days=1)
AT_ONCE = 20
ROUNDS = 100
CHUNK = 5000
REWRITE_BOUND = 120.0
REWRITE_POLL = 5  # rounds
FIRST_ORDER = 1_000_000_001

Spans = dict[str, list[float]]


@dataclass(slots=True)
class Probe:
    """One ledger on a server of its own, and what each call to it took (seconds)."""

    url: str
    queue: CancelQueue
    ledger: Ledger
    orders: Iterator[int]
    spans: Spans = field(default_factory=dict)

    def fill(self, jobs: int) -> None:
        for start in range(0, jobs, CHUNK):
            wishes = [{"order_id": next(self.orders)} for _ in range(min(CHUNK, jobs - start))]
            if not all(receipt.is_stored for receipt in self.queue.cancel_many(wishes)):
                raise BenchError(
                    f"the ledger took {start} jobs and no more: see its server's memory and disk"
                )

    def round(self) -> None:
        """So many enqueued one by one, as many claimed in one call, and given back in one call."""
        for _ in range(AT_ONCE):
            self._timed("enqueue", lambda: self.queue.cancel(order_id=next(self.orders)))
        claim = ClaimId(f"bench-{time.monotonic_ns()}")
        taken: list[Job] = []
        self._timed("claim", lambda: taken.extend(self._claimed(claim)))
        given = [_settlement(job, claim) for job in taken]
        self._timed("settle", lambda: self.ledger.settle(given))
        if len(taken) != AT_ONCE:
            raise BenchError(f"a claim of {AT_ONCE} due jobs brought {len(taken)}")

    def _claimed(self, claim: ClaimId) -> tuple[Job, ...]:
        return self.ledger.claim(claim, "bench", lease=LEASE, jobs=AT_ONCE, confirms=0).jobs

    def _timed(self, name: str, call: Callable[[], object]) -> None:
        begun = time.perf_counter()
        call()
        self.spans.setdefault(name, []).append(time.perf_counter() - begun)


def measure_ledger(home: Path, jobs: int) -> dict[str, float]:
    """Medians (ms) of `empty`, `full` and `rewrite` by call, from rounds in turn; and how large the full one was."""
    with _probe(home / "empty") as empty, _probe(home / "full") as full:
        full.fill(jobs)
        for _ in range(ROUNDS):
            empty.round()
            full.round()
        found = {f"{name} empty": median(spans) * 1e3 for name, spans in empty.spans.items()}
        found |= {f"{name} full": median(spans) * 1e3 for name, spans in full.spans.items()}
        full.spans.clear()
        found["rewrite s"] = _during_rewrite(full)
        found |= {f"{name} rewrite": median(spans) * 1e3 for name, spans in full.spans.items()}
        with Redis.from_url(full.url) as redis:
            found["bytes per job"] = redis.info("memory")["used_memory"] / jobs
        return found


def _during_rewrite(probe: Probe) -> float:
    """Rounds for as long as the server rewrites its file; how long that was."""
    begun = time.monotonic()
    with Redis.from_url(probe.url) as redis:
        while _rewrites(redis):  # one that had begun by itself
            time.sleep(0.1)
            _bounded(begun)
        redis.bgrewriteaof()
        begun = time.monotonic()
        while True:
            for _ in range(REWRITE_POLL):
                probe.round()
            if not _rewrites(redis):
                return time.monotonic() - begun
            _bounded(begun)


def _rewrites(redis: "Redis") -> bool:
    info = redis.info("persistence")
    return bool(info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"])


def _bounded(begun: float) -> None:
    if time.monotonic() - begun > REWRITE_BOUND:
        raise BenchError(f"the server still rewrites its file after {REWRITE_BOUND:g} s")


@contextmanager
def _probe(home: Path) -> Iterator[Probe]:
    home.mkdir()
    with ExitStack() as parts:
        url = parts.enter_context(ensure(home)).url
        ledger = parts.enter_context(Ledger(url, NAME, timeout=PATIENCE))
        settle_in(ledger)
        queue = parts.enter_context(CancelQueue(url, NAME, bound=PATIENCE))
        yield Probe(url, queue, ledger, iter(range(FIRST_ORDER, 2 * FIRST_ORDER)))


def _settlement(job: Job, claim: ClaimId) -> Settlement:
    return Settlement(
        job=job.id, claim=claim, step=Step.POST, state=State.PARKED, delay=LATER, fields={}, posts=0
    )
