"""`python -m bench.soak`: rounds on seeds and both databases, one table; exit 1 on any broken promise."""

from collections.abc import Iterator, Sequence

import click

from bench.processes import BenchError
from bench.soak.plan import moments
from bench.soak.play import play
from bench.soak.reckon import Round, reckon
from bench.soak.stage import stage
from bench.soak.table import keep, show
from bench.table import commit

KINDS = ("postgresql", "sqlite")


def one_round(kind: str, seed: int, cancels: int) -> Round:
    """Play and reckon; BenchError if something did not end at all."""
    with stage(kind, seed) as parts:
        record = play(parts, moments(seed), cancels)
        return reckon(parts.fleet, record, database=kind, seed=seed)


@click.command("soak")
@click.option("--cancels", type=click.IntRange(100), default=100_000, show_default=True, help="of all rounds")
@click.option("--seeds", default="1-5", show_default=True, help="One, or the first and the last: 3-7.")
@click.option("--database", type=click.Choice([*KINDS, "both"]), default="both", show_default=True)
def soak(cancels: int, seeds: str, database: str) -> None:
    """Kill, stop, freeze and cut off all parts while cancels flow; nothing may be lost."""
    made_of = commit()  # the files may change while it runs
    kinds = KINDS if database == "both" else (database,)
    of_one = max(1, cancels // (len(kinds) * len(_range(seeds))))
    rounds: list[Round] = []
    failed: list[str] = []
    for kind in kinds:
        for seed in _range(seeds):
            replay = f"python -m bench.soak --cancels {of_one} --seeds {seed} --database {kind}"
            click.echo(f"{kind}, seed {seed}, {of_one} cancels", err=True)
            try:
                rounds.append(one_round(kind, seed, of_one))
            except BenchError as error:
                failed.append(f"{replay}\n  {error}")
                continue
            click.echo(f"  {rounds[-1].in_hand} in hand, {rounds[-1].record.seconds:.0f} s", err=True)
            if not rounds[-1].is_clean:
                failed.append("\n  ".join([replay, *_first_of_each(rounds[-1])]))
    held = show(rounds, made_of)
    click.echo(f"kept in bench/results/{keep(rounds, made_of)}", err=True)
    for line in failed:
        click.echo(f"broken; again with: {line}")
    raise SystemExit(0 if held and not failed else 1)


def _range(seeds: str) -> range:
    first, _, last = seeds.partition("-")
    try:
        return range(int(first), int(last or first) + 1)
    except ValueError:
        raise click.BadParameter(
            f"{seeds!r} is neither a number nor two, as in 3-7", param_hint="--seeds"
        ) from None


def _first_of_each(found: Round) -> Iterator[str]:
    for name in ("lost", "unrecorded", "misreported", "unexplained", "uncounted"):
        broken: Sequence[str] = getattr(found.faults, name)
        if broken:
            yield f"{len(broken)} {name}: {broken[0]}"
    yield from found.record.unfit


if __name__ == "__main__":
    soak()
