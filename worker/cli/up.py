"""`cancelq up`: all of cancelq on this machine, in the foreground. `cancelq flower` is one of its parts."""

import socket
import sys
from pathlib import Path
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
    from worker.app.up import Wish, places
    from worker.logins import logins_from

    for line in places(settings):
        click.echo(line, err=True)
    logins_from(settings)
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


@click.command()
@click.option("--listen", metavar="ADDRESS:PORT", help="where to listen")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    help="its only line is the password [flower-password in CANCELQ_HOME]",
)
@click.option("--listener", type=int, hidden=True, help="an open socket, inherited from `cancelq up`")
@click.option("--die-with-parent", is_flag=True, hidden=True)
def flower(
    listen: str | None, password_file: Path | None, listener: int | None, *, die_with_parent: bool
) -> None:
    """Run Flower alone, read-only, for workers elsewhere; `cancelq up` brings its own."""
    from worker.app.ending import Ending
    from worker.embedded.lifeline import die_with_parent as watch_parent

    Ending().listen()  # by default it leaves at once: this process holds nothing
    if die_with_parent:
        watch_parent()
    settings = load_settings()
    from worker.app.flower_access import ensure_password, read_password
    from worker.app.flower_access import password_file as own_password_file
    from worker.app.flower_server import serve_flower
    from worker.embedded.places import redis_place

    with _opened(listen, listener) as opened, redis_place(settings) as redis_url:
        if password_file is not None:
            password = read_password(password_file, by_owner_only=False)  # a mounted secret has its own mode
        else:
            if listen is not None:
                ensure_password(settings.home)
            password = read_password(own_password_file(settings.home))
        serve_flower(settings, redis_url, opened, password)


def _opened(listen: str | None, listener: int | None) -> socket.socket:
    from worker.app.flower_access import listen_at

    if (listen is None) == (listener is None):
        raise ConfigError("--listen: say where, ADDRESS:PORT such as 127.0.0.1:5555")
    if listen is not None:
        return listen_at(listen)
    try:
        return socket.socket(fileno=listener)
    except OSError as error:
        raise ConfigError("--listener: not an open socket; `cancelq up` starts this command so") from error
