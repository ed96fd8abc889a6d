"""`cancelq up`: all of cancelq on this machine, in the foreground. `cancelq flower` is one of its parts."""

import socket
import sys
from typing import TYPE_CHECKING

import click

from worker.errors import ConfigError
from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from worker.app.ending import Ending
    from worker.app.up import Wish


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
        wish = _check(settings, concurrency, flower_port, no_flower=no_flower)
        sys.exit(_run(settings, wish, ending))
    except AskedToEnd:  # asked to end while it was starting
        sys.exit(0)


def _check(
    settings: Settings, concurrency: int | None, flower_port: int | None, *, no_flower: bool
) -> "Wish":
    """Say what will be used; whatever is wrong is found before anything is started."""
    from worker.app.process import require_token
    from worker.app.up import Wish, places

    for line in places(settings):
        click.echo(line, err=True)
    require_token(settings)
    return Wish(concurrency, None if no_flower else _open_flower(settings, flower_port))


def _open_flower(settings: Settings, port: int | None) -> socket.socket:
    from worker.app.flower_access import USER, ensure_password, listen, password_file, url

    listener = listen(port)
    ensure_password(settings.home)
    click.echo(f"Flower    {url(listener)} user {USER}, password in {password_file(settings.home)}", err=True)
    return listener


def _run(settings: Settings, wish: "Wish", ending: "Ending") -> int:
    from worker.app.logs import set_up_logs
    from worker.app.up import up as run

    set_up_logs(settings.log)
    return run(settings, wish, ending)


@click.command(hidden=True)
@click.option("--listener", type=int, required=True, help="the open socket, inherited")
@click.option("--die-with-parent", is_flag=True)
def flower(listener: int, *, die_with_parent: bool) -> None:
    """Show Flower on a socket that is already open."""
    from worker.app.ending import Ending
    from worker.embedded.lifeline import die_with_parent as watch_parent

    Ending().listen()  # by default it leaves at once: this process holds nothing
    if die_with_parent:
        watch_parent()
    settings = load_settings()
    from worker.app.flower_server import serve_flower
    from worker.embedded.places import redis_place

    try:
        opened = socket.socket(fileno=listener)
    except OSError as error:
        raise ConfigError("--listener: not an open socket; `cancelq up` starts this command") from error
    with opened, redis_place(settings) as redis_url:
        serve_flower(settings, redis_url, opened)
