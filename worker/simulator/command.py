"""The command line of the simulator; says what is wrong with a script and exits 2."""

from pathlib import Path
from typing import Any

import click

from .fields import ScriptError
from .mix import PROFILES
from .run import Options, run

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("simulator")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 takes any free one.")
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same faults.")
@click.option("--script", type=FILE, help="Orders, steps, faults as JSON.")
@click.option("--profile", type=click.Choice(sorted(PROFILES)), help="A ready mix of faults.")
@click.option("--token", help="The one bearer token that is let in; default: any.")
@click.option("--truth", type=FILE, help="Append every event to this file.")
@click.option(
    "--request-log",
    type=click.IntRange(0),
    default=500_000,
    show_default=True,
    help="So many of the newest POSTs are kept for /sim/requests; 0 keeps none.",
)
@click.option("--die-with-parent", is_flag=True, hidden=True)
def simulator(**options: Any) -> None:
    """The exchange, as a local HTTP server; prints its address as one JSON line."""
    try:
        run(Options(**options))
    except (ScriptError, OSError) as error:
        click.echo(f"simulator: {error}", err=True)
        raise SystemExit(2) from None
