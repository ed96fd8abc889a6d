"""`python -m bench.growth`: how far workers, ledgers and a database carry, computed from figures that were measured.

A simulation for hardware that is not here: cancels go round between stations that each take a measured time. It knows
no network, no chance and no bad day: it tells which part is full first, and is no promise of a rate.
"""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench.bars import OURS, PAIR

# Of one worker process, as its settings have it by default; and an exchange's answer to a POST, in seconds.
SENDERS, ANSWER = 64, 0.02
# Each sender's cancels; the first half of them fills the stations and is not counted.
ROUNDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Of one cancel, in seconds of CPU; `fsync` is of one round of Redis, however many calls it serves."""

    worker: float
    redis: float
    fsync: float
    database: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Worker processes with a core each; Redis masters with a ledger each; the database's cores."""

    workers: int
    ledgers: int = 1
    database_cores: int = 2


@dataclass(frozen=True, slots=True)
class Carried:
    """What a fleet carries: cancels a second, and how busy each kind of part is (1: always)."""

    per_second: float
    load: Mapping[str, float]

    @property
    def full(self) -> str:
        return max(self.load, key=self.load.__getitem__)


@dataclass(slots=True)
class _Station:
    """Takes up to `most` of those who wait, on each of its free lines; `once` is paid by all of a round together."""

    each: float
    lines: int = 1
    once: float = 0.0
    most: int = 1
    waiting: deque[int] = field(default_factory=deque)
    busy: float = 0.0

    def begin(self) -> tuple[float, list[int]] | None:
        """A round, if there is somebody to serve and a line free: how long it takes, and whom it serves."""
        if not self.waiting or not self.lines:
            return None
        guests = [self.waiting.popleft() for _ in range(min(self.most, len(self.waiting)))]
        span = self.once + self.each * len(guests)
        self.lines -= 1
        self.busy += span
        return span, guests


def carry(costs: Costs, fleet: Fleet) -> Carried:
    """Let each sender take one cancel after the other through the stations."""
    database = _Station(costs.database / 2, lines=fleet.database_cores)
    ledgers = [
        _Station(costs.redis / 2, once=costs.fsync, most=SENDERS * fleet.workers)
        for _ in range(fleet.ledgers)
    ]
    workers = [_Station(costs.worker / 2) for _ in range(fleet.workers)]
    exchange = _Station(ANSWER, lines=SENDERS * fleet.workers)
    paths = []
    for sender in range(SENDERS * fleet.workers):
        worker = workers[sender % fleet.workers]
        ledger = ledgers[sender % fleet.workers % fleet.ledgers]
        # Claim, start row, POST, reply row, settle.
        paths.append([ledger, worker, database, exchange, worker, database, ledger])
    span, done = _Play(paths).play()
    return Carried(
        per_second=done / span,
        load={
            "worker": _load(workers, span),
            "redis": _load(ledgers, span),
            "database": _load([database], span * fleet.database_cores),
        },
    )


def _load(stations: Sequence[_Station], span: float) -> float:
    """A round that has begun counts whole, so that it may be a little more than what there was."""
    return min(1.0, sum(station.busy for station in stations) / span / len(stations))


class _Play:
    """Event by event; what happened before the second half is forgotten."""

    def __init__(self, paths: Sequence[Sequence[_Station]]) -> None:
        self._paths = paths
        self._steps = [0] * len(paths)
        self._events: list[tuple[float, int, _Station, list[int]]] = []
        self._numbers = count()  # keeps comparisons away from the stations
        self._now = self._since = 0.0
        self._done, self._half = 0, len(paths) * ROUNDS // 2

    def play(self) -> tuple[float, int]:
        """Seconds and cancels of the second half."""
        for sender, path in enumerate(self._paths):
            self._enter(path[0], sender)
        while self._done < 2 * self._half:
            self._now, _, left, guests = heappop(self._events)
            left.lines += 1
            for sender in guests:
                self._go_on(sender)
            self._open(left)
        return self._now - self._since, self._half

    def _go_on(self, sender: int) -> None:
        self._steps[sender] += 1
        if self._steps[sender] == len(self._paths[sender]):
            self._steps[sender] = 0
            self._done += 1
            if self._done == self._half:
                self._forget()
        self._enter(self._paths[sender][self._steps[sender]], sender)

    def _forget(self) -> None:
        self._since = self._now
        for path in self._paths:
            for station in path:
                station.busy = 0.0

    def _enter(self, station: _Station, sender: int) -> None:
        station.waiting.append(sender)
        self._open(station)

    def _open(self, station: _Station) -> None:
        while (begun := station.begin()) is not None:
            heappush(self._events, (self._now + begun[0], next(self._numbers), station, begun[1]))


def costs_from(record: Mapping[str, Any]) -> Costs:
    """From a run that `python -m bench` kept; a bare SET's round trip stands for a round with its fsync."""
    parts = [turn["backlog"]["cpu_ms_by_name"] for turn in record["turns"][PAIR]]
    return Costs(
        worker=record["medians"][OURS]["CPU ms/cancel"] / 1e3,
        redis=median(part["valkey-server"] for part in parts) / 1e3,
        fsync=record["beside"]["set_ms"] / 1e3,
        database=median(part["postgres"] for part in parts) / 1e3,
    )


FLEETS = [
    *(Fleet(workers=workers) for workers in (1, 2, 4, 8, 16)),
    *(Fleet(workers=16, database_cores=cores) for cores in (4, 8)),
    *(Fleet(workers=workers, ledgers=2, database_cores=8) for workers in (16, 32)),
    *(Fleet(workers=workers, ledgers=4, database_cores=16) for workers in (32, 64)),
]


@click.command("growth")
@click.argument("result", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--worker-ms", type=float, help="CPU of a worker's process, per cancel")
@click.option("--redis-ms", type=float, help="CPU of Redis, per cancel")
@click.option("--fsync-ms", type=float, help="one fsync of Redis")
@click.option("--database-ms", type=float, help="CPU of the database's server, per cancel")
def growth(result: Path | None, **given: float | None) -> None:
    """What fleets carry, by the figures of RESULT (a file of bench/results), or by all four options."""
    numbers = {name.removesuffix("_ms"): value / 1e3 for name, value in given.items() if value is not None}
    if result is None and len(numbers) < len(given):
        raise click.UsageError("name a kept result of `python -m bench`, or all four figures")
    known = costs_from(json.loads(result.read_text())) if result is not None else None
    costs = Costs(
        **{name: numbers.get(name, getattr(known, name, 0.0)) for name in Costs.__dataclass_fields__}
    )
    table = Table(
        title=", ".join(f"{name} {getattr(costs, name) * 1e3:.3g} ms" for name in Costs.__dataclass_fields__)
    )
    for header in (
        "workers",
        "ledgers",
        "database's cores",
        "cancels/s",
        "worker",
        "redis",
        "database",
        "full first",
    ):
        table.add_column(header, justify="right")
    for fleet in FLEETS:
        carried = carry(costs, fleet)
        loads = (f"{load:.0%}" for load in carried.load.values())
        sizes = (fleet.workers, fleet.ledgers, fleet.database_cores)
        table.add_row(*map(str, sizes), f"{carried.per_second:,.0f}", *loads, carried.full)
    Console(width=100).print(table)


if __name__ == "__main__":
    growth()
