"""`python -m bench.memory`: what one worker has in memory while 100,000 cancels go through it."""

from itertools import pairwise
from pathlib import Path

import click

from bench.bars import memory
from bench.contenders import Cancelq
from bench.measure import wait_for_ends
from bench.processes import BenchError, Group
from bench.stage import Stage, stage
from bench.table import say_bars, told, write_down

RESULTS = Path(__file__).parent / "results"
# So many are under way at once: a worker is always busy, and no backlog grows.
AT_ONCE = 2000
# The share after which all that fills up has filled up: pools, caches, the interpreter's arenas.
FIRST = 0.1


@click.command("memory")
@click.option("--cancels", type=click.IntRange(10 * AT_ONCE), default=100_000, show_default=True)
@click.option("--keep/--no-keep", default=True, help="in bench/results")
def measure(cancels: int, *, keep: bool) -> None:
    """Exit 1 if a worker grows, or is larger than it may be."""
    try:
        with stage() as parts:
            found = _resident(parts, cancels)
    except BenchError as error:
        raise click.ClickException(str(error)) from None
    early, late = found[round(FIRST * cancels / AT_ONCE) - 1], found[-1]
    click.echo(f"{early / 1e6:.1f} MB after {FIRST:.0%}, {late / 1e6:.1f} MB after {cancels} cancels")
    bars = memory(early, late)
    say_bars(bars)
    if keep:
        record = {"cancels": cancels, "database": parts.database, "bytes": found, "bars": told(bars)}
        click.echo(f"kept in bench/results/{write_down(record, RESULTS, 'memory-').name}")
    raise SystemExit(0 if all(bar.met for bar in bars) else 1)


def _resident(parts: Stage, cancels: int) -> list[int]:
    """After each AT_ONCE cancels, in bytes."""
    contender = Cancelq(parts)
    found: list[int] = []
    with contender.worker() as worker, contender.producer():
        for done, begun in pairwise(range(0, cancels + 1, AT_ONCE)):
            orders = parts.simulator.place(begun - done)
            contender.enqueue_many(orders)
            wait_for_ends(contender, orders, worker.check)
            found.append(_bytes_of(worker))
            click.echo(f"{begun} cancels: {found[-1] / 1e6:.1f} MB", err=True)
    return found


def _bytes_of(worker: Group) -> int:
    resident = worker.resident_bytes()
    if resident is None:
        raise BenchError("this system does not tell the memory of a process: there is no /proc")
    return resident


if __name__ == "__main__":
    measure()
