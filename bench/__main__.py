"""`python -m bench`: interleaved rounds of all contenders, one table, one JSON file and one picture."""

from pathlib import Path

import click

from bench.bars import ASYNC_WIRE, WIRE
from bench.bars import PEERS as PEER_NAMES
from bench.beside import beside
from bench.contenders import PEERS, Cancelq, CancelqPair, Contender, Floor, Peer, PlainCelery
from bench.measure import Sizes, Turn, turn
from bench.processes import BenchError
from bench.stage import Stage, stage
from bench.table import Run, keep, show

RESULTS = Path(__file__).parent / "results"
QUICK = Sizes(backlog=600, burst=200, singles=40)
# Orders that only the producer's side sees; each round uses 20,000.
UNSENT = 5_000_000_001


@click.command("bench")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--cancels", type=click.IntRange(100), help="Due at once [default: 3000].")
@click.option("--quick", is_flag=True, help="One small round; nothing is kept.")
def bench(rounds: int, cancels: int | None, *, quick: bool) -> None:
    """cancelq beside its peers and beside the wire alone."""
    sizes = QUICK if quick else Sizes() if cancels is None else Sizes(backlog=cancels)
    try:
        with stage() as parts:
            run = _play(parts, sizes, 1 if quick else rounds)
    except BenchError as error:
        raise click.ClickException(str(error)) from None
    show(run)
    if not quick:
        click.echo(f"kept in bench/results/{keep(run, RESULTS).name}, its picture beside it")


def _play(parts: Stage, sizes: Sizes, rounds: int) -> Run:
    """Each round begins with another contender: none is always first on a cold machine."""
    contenders = _contenders(parts)
    turns: dict[str, list[Turn]] = {contender.name: [] for contender in contenders}
    aside = []
    for nth in range(rounds):
        shift = nth % len(contenders)
        for contender in contenders[shift:] + contenders[:shift]:
            click.echo(f"round {nth + 1} of {rounds}: {contender.name}", err=True)
            turns[contender.name].append(turn(contender, parts.simulator, sizes))
        click.echo(f"round {nth + 1} of {rounds}: calls and starts", err=True)
        aside.append(beside(parts, UNSENT + 20_000 * nth))
    return Run(sizes=sizes, database=parts.database, turns=turns, beside=aside)


def _contenders(parts: Stage) -> list[Contender]:
    return [
        Cancelq(parts),
        CancelqPair(parts),
        PlainCelery(parts, "threads", 64),
        PlainCelery(parts, "prefork", 16),
        *_peers(parts),
        Floor(parts, WIRE, "threads"),
        Floor(parts, ASYNC_WIRE, "asyncio"),
    ]


def _peers(parts: Stage) -> list[Contender]:
    if not PEERS.exists():
        click.echo("the peers are not there: make bench brings them", err=True)
        return []
    if not parts.plain_url.startswith("postgresql"):
        click.echo("the peers write to PostgreSQL, which cannot be started here", err=True)
        return []
    return [Peer(parts, name) for name in PEER_NAMES]


if __name__ == "__main__":
    bench()
