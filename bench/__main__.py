"""`python -m bench`: interleaved rounds of all contenders, one table, one JSON file."""

from pathlib import Path

import click

from bench.contenders import Cancelq, Contender, Floor, PlainCelery
from bench.measure import Sizes, Turn, turn
from bench.processes import BenchError
from bench.stage import Stage, stage
from bench.table import figures, keep, show

RESULTS = Path(__file__).parent / "results"
QUICK = Sizes(backlog=600, burst=200, singles=40)


@click.command("bench")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--cancels", type=click.IntRange(100), help="Due at once [default: 3000].")
@click.option("--quick", is_flag=True, help="One small round; nothing is kept.")
def bench(rounds: int, cancels: int | None, *, quick: bool) -> None:
    """cancelq beside plain Celery and beside the wire alone."""
    sizes = QUICK if quick else Sizes() if cancels is None else Sizes(backlog=cancels)
    try:
        with stage() as parts:
            turns = _play(parts, sizes, 1 if quick else rounds)
    except BenchError as error:
        raise click.ClickException(str(error)) from None
    show({name: figures(of_one) for name, of_one in turns.items()}, sizes, parts.database)
    if not quick:
        click.echo(f"kept in bench/results/{keep(turns, sizes, parts.database, RESULTS).name}")


def _play(parts: Stage, sizes: Sizes, rounds: int) -> dict[str, list[Turn]]:
    """Each round begins with another contender: none is always first on a cold machine."""
    contenders: list[Contender] = [
        Cancelq(parts),
        PlainCelery(parts, "threads", 64),
        PlainCelery(parts, "prefork", 16),
        Floor(parts),
    ]
    turns: dict[str, list[Turn]] = {contender.name: [] for contender in contenders}
    for nth in range(rounds):
        shift = nth % len(contenders)
        for contender in contenders[shift:] + contenders[:shift]:
            click.echo(f"round {nth + 1} of {rounds}: {contender.name}", err=True)
            turns[contender.name].append(turn(contender, parts.simulator, sizes))
    return turns


if __name__ == "__main__":
    bench()
