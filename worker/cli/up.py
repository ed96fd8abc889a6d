"""`cancelq up`: all of cancelq on this machine, in the foreground."""

import sys
from typing import TYPE_CHECKING

import click

from worker.errors import ConfigError
from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from worker.app.ending import Ending


@click.command()
@click.option("--concurrency", type=click.IntRange(1, 512), help="sender threads [CANCELQ_CONCURRENCY]")
@click.option("--flower-port", type=click.IntRange(1, 65535), help="[5555, or a free one if that is taken]")
@click.option("--no-flower", is_flag=True, help="run without Flower")
def up(concurrency: int | None, flower_port: int | None, *, no_flower: bool) -> None:
    """Run worker, Flower and, where none is configured, Valkey and SQLite; until Ctrl-C."""
    from worker.app.ending import AskedToEnd, Ending

    if no_flower and flower_port is not None:
        raise ConfigError("--flower-port and --no-flower contradict each other; give one of them")
    ending = Ending()
    ending.listen()
    settings = load_settings()  # before the long imports: a wrong setting is told at once
    try:
        sys.exit(_up(settings, concurrency, ending))
    except AskedToEnd:  # asked to end while it was starting
        sys.exit(0)


def _up(settings: Settings, concurrency: int | None, ending: "Ending") -> int:
    from worker.app.logs import set_up_logs
    from worker.app.process import require_token
    from worker.app.up import Wish, places
    from worker.app.up import up as run

    for line in places(settings):
        click.echo(line, err=True)
    require_token(settings)
    set_up_logs(settings.log)
    return run(settings, Wish(concurrency), ending)
