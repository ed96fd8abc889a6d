"""What cancelq promises of its speed, as bars: a measured figure, its limit, and whether it is met. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Figures = Mapping[str, float | None]

OURS, PAIR = "cancelq", "cancelq, 2 workers"
WIRE, ASYNC_WIRE = "the wire alone", "the wire, asyncio"
PLAIN = ("Celery threads 64", "Celery prefork 16")
PEERS = ("dramatiq", "streaq", "saq", "procrastinate")
CORES = 2.0


@dataclass(frozen=True, slots=True)
class Bar:
    """`least`: the measured figure must not be below the limit, else not above it."""

    name: str
    measured: float | None
    limit: float
    least: bool = False

    @property
    def met(self) -> bool:
        """What could not be measured is not met."""
        if self.measured is None:
            return False
        return self.measured >= self.limit if self.least else self.measured <= self.limit

    def __str__(self) -> str:
        sign = "at least" if self.least else "at most"
        measured = "not measured" if self.measured is None else number(self.measured)
        return f"{'yes' if self.met else 'NO '}  {self.name}: {measured} ({sign} {number(self.limit)})"


def number(value: float) -> str:
    """Three digits or more, whatever its size."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def arena(found: Mapping[str, Figures], beside: Figures) -> list[Bar]:
    """The bars of `python -m bench`, from the medians of one run."""
    ours, wire, pair = found[OURS], found[WIRE], found[PAIR]
    rates, bursts = (_of(found, PLAIN, name) for name in ("cancels/s", "burst s"))
    peers = _of(found, PEERS, "cancels/s")
    cost = pair["CPU ms of all"]
    return [
        Bar("cancels/s / the wire's", _ratio(ours["cancels/s"], wire["cancels/s"]), 0.75, least=True),
        Bar(
            "cancels/s / plain Celery's", _ratio(ours["cancels/s"], max(rates, default=None)), 4.5, least=True
        ),
        Bar(
            "cancels/s / the best peer's",
            _ratio(ours["cancels/s"], max(peers, default=None)),
            1.3,
            least=True,
        ),
        Bar(
            "CPU per cancel / the wire's per POST", _ratio(ours["CPU ms/cancel"], wire["CPU ms/cancel"]), 1.35
        ),
        Bar("burst by cancel_many / the wire's time", _ratio(ours["burst s"], wire["burst s"]), 1.5),
        Bar(
            "plain Celery's time for the burst / ours",
            _ratio(min(bursts, default=None), ours["burst s"]),
            8,
            least=True,
        ),
        Bar("single to the wire p50, ms beyond plain Celery's", _beyond(found), 1.0),
        Bar("single to the wire p99 / p50", ours["p99/p50"], 2.5),
        Bar("enqueue call p50 / bare SET", _ratio(beside["enqueue_ms"], beside["set_ms"]), 1.4),
        Bar("cancel_many, requests/s", beside["many_per_second"], 12_000, least=True),
        Bar(
            "cancel_many / pipelined SET",
            _ratio(beside["many_per_second"], beside["sets_per_second"]),
            0.25,
            least=True,
        ),
        Bar(
            "two workers: cancels/s x CPU s of all per cancel / 2",
            _share(pair["cancels/s"], cost),
            0.85,
            least=True,
        ),
        Bar("cancelq worker to its first POST, s", beside["claim_seconds"], 1.5),
        Bar("cancelq enqueue, ms", _times(beside["command_seconds"], 1e3), 250),
        Bar("import worker, ms", beside["import_ms"], 30),
    ]


def memory(early: float | None, late: float | None) -> list[Bar]:
    """Of one worker, in bytes: after the first cancels, and after all."""
    growth = _ratio(late, early)
    return [
        Bar("growth after the first cancels, %", (growth - 1) * 100 if growth is not None else None, 5),
        Bar("memory at the end, MB", _times(late, 1e-6), 120),
    ]


def full_audit(database: str, found: Figures) -> list[Bar]:
    """Of one full database beside an empty one."""
    return [
        Bar(
            f"{database}: commit of a start, full / empty",
            _ratio(found["commit full"], found["commit empty"]),
            1.2,
        ),
        Bar(f"{database}: day report, s", found["day report s"], 1),
        Bar(f"{database}: why, p95 ms", found["why p95 ms"], 50),
        Bar(f"{database}: verify, rows/s", found["verify rows/s"], 80_000, least=True),
    ]


def full_ledger(found: Figures) -> list[Bar]:
    """Of a full ledger beside an empty one, and while its server rewrites its file."""
    calls = ("enqueue", "claim", "settle")
    full = [
        Bar(f"{call}, full / empty", _ratio(found[f"{call} full"], found[f"{call} empty"]), 1.2)
        for call in calls
    ]
    rewrite = [
        Bar(
            f"{call} during an AOF rewrite / empty",
            _ratio(found[f"{call} rewrite"], found[f"{call} empty"]),
            5,
        )
        for call in calls
    ]
    return [*full, *rewrite]


def _of(found: Mapping[str, Figures], names: Sequence[str], figure: str) -> list[float]:
    """This figure of those that took part."""
    values = (found[name][figure] for name in names if name in found)
    return [value for value in values if value is not None]


def _beyond(found: Mapping[str, Figures]) -> float | None:
    ours, plain = found[OURS]["p50 ms"], _of(found, PLAIN, "p50 ms")
    return ours - min(plain) if ours is not None and plain else None


def _share(rate: float | None, cost_ms: float | None) -> float | None:
    """Of what two cores could do at most, if nothing waited."""
    return rate * cost_ms / 1e3 / CORES if rate is not None and cost_ms is not None else None


def _times(value: float | None, factor: float) -> float | None:
    return value * factor if value is not None else None


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None
