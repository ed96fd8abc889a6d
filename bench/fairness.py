"""`python -m bench.fairness`: how long good orders wait for the wire while others are stuck or slow.

The same paced load in interleaved rounds, without and with stuck orders in between; the ratio of the p99 counts.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import click
from rich.console import Console
from rich.table import Table

from bench.contenders import Cancelq
from bench.measure import BOUND, PER_SECOND, WARM_UP, wait_for_ends
from bench.processes import BenchError, Workers
from bench.stage import Stage, stage

STUCK_SHARE = 0.3  # of all orders
AIM = 1.5
# Half of the stuck ones are refused for a transient reason again and again, half answer slowly.
STUCK = ([{"reason": "AnotherCommandPending", "repeat": 1000}], [{"delay": 2.0}])
# The stuck ones of one load must have ended before the next begins.
SHORT = {"CANCELQ_RETRY_BUDGET": "8", "CANCELQ_CONFIRM_BUDGET": "4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Call → first byte at the exchange, of the good orders of one round, in milliseconds."""

    clean: tuple[float, ...]
    with_stuck: tuple[float, ...]


@click.command("fairness")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seconds", type=click.IntRange(1), default=60, show_default=True, help="of load, each time")
@click.option(
    "--per-second", "pace", type=click.IntRange(1), default=PER_SECOND, show_default=True, help="good orders"
)
def fairness(rounds: int, seconds: int, pace: int) -> None:
    """Exit 1 if stuck orders make the others wait longer than they may."""
    try:
        with stage() as parts:
            found = [_round(parts, nth, pace * seconds, pace) for nth in range(rounds)]
    except BenchError as error:
        raise click.ClickException(str(error)) from None
    if not show(found, pace):
        raise SystemExit(1)


def _round(parts: Stage, nth: int, good: int, pace: int) -> Waits:
    """Both loads beside one worker; which comes first changes from round to round."""
    contender = Cancelq(parts, **SHORT)
    found: dict[bool, tuple[float, ...]] = {}
    with contender.start() as worker, contender.producer():
        _load(parts, contender, worker, good=WARM_UP, stuck=0, pace=pace)
        for with_stuck in (False, True) if nth % 2 == 0 else (True, False):
            click.echo(f"round {nth + 1}: {'with' if with_stuck else 'without'} stuck orders", err=True)
            stuck = round(good * STUCK_SHARE / (1 - STUCK_SHARE)) if with_stuck else 0
            found[with_stuck] = _load(parts, contender, worker, good=good, stuck=stuck, pace=pace)
    return Waits(clean=found[False], with_stuck=found[True])


def _load(
    parts: Stage, contender: Cancelq, worker: Workers, *, good: int, stuck: int, pace: int
) -> tuple[float, ...]:
    """Enqueue good ones at a steady pace, the stuck ones strewn in between; the waits of the good ones."""
    orders = parts.simulator.place(good)
    held = parts.simulator.place(stuck) if stuck else range(0)
    parts.simulator.script({order: STUCK[order % len(STUCK)] for order in held})
    mixed = [*orders, *held]
    random.Random(good).shuffle(mixed)  # the same mixture each time
    calls: dict[int, int] = {}
    begin, all_pace = time.monotonic(), pace * len(mixed) / good
    for nth, order in enumerate(mixed):
        time.sleep(max(0.0, begin + nth / all_pace - time.monotonic()))
        calls[order] = time.time_ns() // 1000
        contender.enqueue(order)
    at = parts.simulator.arrivals(orders, bound=BOUND, check=worker.check)
    wait_for_ends(contender, range(min(mixed), max(mixed) + 1), worker.check)
    return tuple((at[order] - calls[order]) / 1e3 for order in orders)


def show(found: Sequence[Waits], pace: int) -> bool:
    """Print the table; whether the aim is met by the median of the rounds' ratios."""
    table = Table(title=f"{pace} good orders a second; {STUCK_SHARE:.0%} of all orders stuck or slow")
    for header in ("round", "p50 ms", "p50 ms, some stuck", "p99 ms", "p99 ms, some stuck", "p99 ratio"):
        table.add_column(header, justify="right")
    ratios = []
    for nth, waits in enumerate(found, start=1):
        clean, stuck = _cuts(waits.clean), _cuts(waits.with_stuck)
        ratios.append(stuck[98] / clean[98])
        cells = (clean[49], stuck[49], clean[98], stuck[98], ratios[-1])
        table.add_row(str(nth), *(f"{cell:.2f}" for cell in cells))
    console = Console(width=max(100, Console().width))
    console.print(table)
    met = median(ratios) <= AIM
    console.print(
        f"{'yes' if met else 'NO '}  p99 with stuck orders at most {AIM} x the p99 without: "
        f"{median(ratios):.2f}"
    )
    return met


def _cuts(waits: Sequence[float]) -> list[float]:
    return quantiles(waits, n=100, method="inclusive")


if __name__ == "__main__":
    fairness()
