"""What is measured beside the contenders: what a call costs the producer, and how soon a process is at work."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from redis import Redis

from bench.contenders import PATIENCE, Cancelq
from bench.measure import BOUND, wait_for_ends
from bench.stage import Stage
from worker import CancelQueue

# A ledger without workers: nothing else moves while calls are measured.
IDLE_LEDGER = "bench-calls"
BLOCKS, BLOCK = 5, 100
MANY, CHUNK = 6000, 500
STARTS = 5
STAMP = "import time; t = time.perf_counter(); import worker; print(time.perf_counter() - t)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Medians of one round."""

    enqueue_ms: float  # one `cancel`
    set_ms: float  # a bare SET of the same text on the same server
    many_per_second: float  # `cancel_many`
    sets_per_second: float  # pipelined SETs of the same text
    claim_seconds: (
        float  # start of `cancelq worker` → the first POST on the wire, which comes after the claim
    )
    command_seconds: float  # `cancelq enqueue`
    import_ms: float  # `import worker`


def beside(stage: Stage, orders: int) -> Beside:
    """`orders`: the first number of 20,000 that nobody else uses."""
    with (
        CancelQueue(stage.redis_url, IDLE_LEDGER, bound=PATIENCE) as queue,
        Redis.from_url(stage.redis_url) as redis,
    ):
        one, bare = _singly(queue, redis, orders)
        many, pipelined = _pipelined(queue, redis, orders + BLOCKS * BLOCK)
    claim, command = _starts(stage)
    return Beside(
        enqueue_ms=one * 1e3,
        set_ms=bare * 1e3,
        many_per_second=MANY / many,
        sets_per_second=MANY / pipelined,
        claim_seconds=claim,
        command_seconds=command,
        import_ms=median(_import_seconds(stage) for _ in range(STARTS)) * 1e3,
    )


def _singly(queue: CancelQueue, redis: "Redis", first: int) -> tuple[float, float]:
    """Blocks of both in turn; seconds each."""
    ours: list[float] = []
    theirs: list[float] = []
    for block in range(BLOCKS):
        orders = range(first + block * BLOCK, first + (block + 1) * BLOCK)
        ours += [_seconds(_cancel, queue, order) for order in orders]
        theirs += [_seconds(redis.set, f"bench:{order}", _text(order)) for order in orders]
    return median(ours), median(theirs)


def _pipelined(queue: CancelQueue, redis: "Redis", first: int) -> tuple[float, float]:
    """Three times each, in turn, as many at once as `cancel_many` sends."""
    ours: list[float] = []
    theirs: list[float] = []
    for turn in range(3):
        orders = range(first + turn * MANY, first + (turn + 1) * MANY)
        ours.append(_seconds(_cancel_many, queue, orders))
        theirs.append(_seconds(_set_many, redis, orders))
    return median(ours), median(theirs)


def _cancel(queue: CancelQueue, order: int) -> None:
    queue.cancel(order_id=order, account="DEMO1", requested_by="bench")


def _cancel_many(queue: CancelQueue, orders: range) -> None:
    wishes = [{"order_id": order, "account": "DEMO1", "requested_by": "bench"} for order in orders]
    assert all(receipt.is_stored for receipt in queue.cancel_many(wishes))


def _set_many(redis: "Redis", orders: range) -> None:
    for start in range(0, len(orders), CHUNK):
        pipeline = redis.pipeline(transaction=False)
        for order in orders[start : start + CHUNK]:
            pipeline.set(f"bench:{order}", _text(order))
        pipeline.execute()


def _text(order: int) -> str:
    """As long as the request that `cancel` writes, its request id included."""
    request = "01a222df-7b6d-773b-9d6a-873c49dd294c"
    return f'{{"orderId":{order},"account":"DEMO1","requestedBy":"bench","requestId":"{request}"}}'


def _starts(stage: Stage) -> tuple[float, float]:
    """Until a worker's first POST, with work waiting; and one command, which brings that work."""
    contender = Cancelq(stage)
    orders = stage.simulator.place(STARTS)
    with contender.producer():
        command = median(_seconds(_enqueue, stage, order) for order in orders)
        begun = time.time_ns() // 1000
        with contender.start() as worker:
            at = stage.simulator.arrivals(orders, bound=BOUND, check=worker.check)
            wait_for_ends(contender, orders, worker.check)
    return (min(at.values()) - begun) / 1e6, command


def _enqueue(stage: Stage, order: int) -> None:
    """As a shell would: the installed command."""
    command = [str(Path(sys.executable).with_name("cancelq")), "enqueue", str(order), "--account", "DEMO1"]
    subprocess.run(command, env=stage.environment(), check=True, capture_output=True)


def _import_seconds(stage: Stage) -> float:
    said = subprocess.run(
        [sys.executable, "-c", STAMP], env=stage.environment(), check=True, capture_output=True
    ).stdout
    return float(said)


def _seconds(action: Callable[..., object], *arguments: object) -> float:
    begun = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - begun
