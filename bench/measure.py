"""One contender's turn: a backlog, a burst, singles at a slow pace. Every wait is bounded."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.contenders import Contender
from bench.processes import BenchError, Workers, cpu_seconds_by_name
from bench.simulator import Simulator

WARM_UP = 200
PER_SECOND = 20
# Far above what any contender needs; a stuck one ends the run.
BOUND = 90.0
POLL = 0.05
# After the last POST, its answer and its row.
TAIL = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many cancels each measurement takes."""

    backlog: int = 3000
    burst: int = 500
    singles: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What came of many that were due at once; None where it does not apply."""

    posts_per_second: float
    ends_per_second: float | None
    cpu_ms: float | None  # of the worker's processes, per cancel, proofs included
    cpu_ms_by_name: dict[str, float] | None  # of all parts, servers, simulator and this process included

    @property
    def cpu_ms_of_all(self) -> float | None:
        return None if self.cpu_ms_by_name is None else sum(self.cpu_ms_by_name.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one turn measured; None where it does not apply."""

    backlog: Backlog
    burst_seconds: float  # a burst the API's own way for many: first call → last on the wire
    calls_seconds: float | None = None  # the same, one call each
    latencies_ms: tuple[float, ...] = ()  # one at a time, 20 a second: call → on the wire


def turn(contender: Contender, simulator: Simulator, sizes: Sizes) -> Turn:
    """Warm its workers up, then measure them."""
    with contender.start() as worker, contender.producer():
        _timed(contender, simulator, worker, WARM_UP, many=True)
        backlog = _backlog(contender, simulator, worker, sizes.backlog)
        burst = _timed(contender, simulator, worker, sizes.burst, many=True)
        if not contender.takes_singles:
            return Turn(backlog=backlog, burst_seconds=burst)
        # Without calls for many, a burst is as many single calls already.
        singly = contender.takes_many and _timed(contender, simulator, worker, sizes.burst, many=False)
        return Turn(
            backlog=backlog,
            burst_seconds=burst,
            calls_seconds=singly or burst,
            latencies_ms=_singles(contender, simulator, worker, sizes.singles),
        )


def _backlog(contender: Contender, simulator: Simulator, worker: Workers, size: int) -> Backlog:
    """Everything is due before the workers may go on."""
    orders = simulator.place(size)
    worker.freeze()
    contender.enqueue_many(orders)
    own_before, all_before = worker.cpu_seconds(), cpu_seconds_by_name()
    worker.thaw()
    at = simulator.arrivals(orders, bound=BOUND, check=worker.check)
    first, last = min(at.values()), max(at.values())
    ended = wait_for_ends(contender, orders, worker.check)
    own, of_all = worker.cpu_seconds(), cpu_seconds_by_name()
    return Backlog(
        posts_per_second=size / (last - first) * 1e6,
        ends_per_second=size / (ended - first) * 1e6 if ended is not None else None,
        cpu_ms=_per_cancel(own_before, own, size),
        cpu_ms_by_name=_each_per_cancel(all_before, of_all, size),
    )


def _per_cancel(before: float | None, after: float | None, size: int) -> float | None:
    return (after - before) / size * 1e3 if before is not None and after is not None else None


def _each_per_cancel(
    before: Mapping[str, float] | None, after: Mapping[str, float] | None, size: int
) -> dict[str, float] | None:
    if before is None or after is None:
        return None
    return {name: (spent - before.get(name, 0.0)) / size * 1e3 for name, spent in after.items()}


def _timed(contender: Contender, simulator: Simulator, worker: Workers, size: int, *, many: bool) -> float:
    """So many at once: seconds from before the first call to the last on the wire."""
    orders = simulator.place(size)
    begun = _micros()
    if many:
        contender.enqueue_many(orders)
    else:
        for order in orders:
            contender.enqueue(order)
    at = simulator.arrivals(orders, bound=BOUND, check=worker.check)
    wait_for_ends(contender, orders, worker.check)
    return (max(at.values()) - begun) / 1e6


def _singles(contender: Contender, simulator: Simulator, worker: Workers, size: int) -> tuple[float, ...]:
    orders = simulator.place(size)
    calls: dict[int, int] = {}
    begin = time.monotonic()
    for nth, order in enumerate(orders):
        time.sleep(max(0.0, begin + nth / PER_SECOND - time.monotonic()))
        calls[order] = contender.call(order)
    at = simulator.arrivals(orders, bound=BOUND, check=worker.check)
    return tuple((at[order] - call) / 1e3 for order, call in calls.items())


def wait_for_ends(contender: Contender, orders: range, check: Callable[[], None]) -> int | None:
    """When the last of them ended (µs); where nothing is proven, only the last rows are waited for."""
    give_up = time.monotonic() + BOUND
    while (ended := contender.ended(orders)) is not None:
        count, last = ended
        if count >= len(orders):
            return last
        if time.monotonic() > give_up:
            raise BenchError(f"{contender.name}: {count} of {len(orders)} orders ended within {BOUND:g} s")
        check()
        time.sleep(POLL)
    time.sleep(TAIL)
    return None


def _micros() -> int:
    return time.time_ns() // 1000
