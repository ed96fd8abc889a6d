"""`cancelq worker`: one worker process until SIGTERM."""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from worker.settings import load_settings

if TYPE_CHECKING:
    from worker.app.ending import Ending


@click.command("worker")
@click.option("--concurrency", type=click.IntRange(1, 512), help="sender threads [CANCELQ_CONCURRENCY]")
@click.option("--die-with-parent", is_flag=True, hidden=True)
def worker(concurrency: int | None, *, die_with_parent: bool) -> None:
    """Send due cancels until SIGTERM; then finish what is on the wire and hand the rest back."""
    from worker.app.ending import AskedToEnd, Ending

    ending = Ending()
    ending.listen()
    try:
        sys.exit(_serve(ending, concurrency, die_with_parent=die_with_parent))
    except AskedToEnd:  # asked to end while it was starting
        sys.exit(0)
    finally:
        ending.over()


def _serve(ending: "Ending", concurrency: int | None, *, die_with_parent: bool) -> int:
    settings = load_settings()  # before the long imports: a wrong setting is told at once
    from worker.app.ending import interrupt
    from worker.app.logs import set_up_logs
    from worker.app.serve import log, serve
    from worker.cli.reach import LIVE
    from worker.embedded.lifeline import die_with_parent as watch_parent
    from worker.embedded.places import redis_place

    if concurrency is not None:
        settings = replace(settings, concurrency=concurrency)
    if die_with_parent:
        watch_parent()
    set_up_logs(settings.log)
    if settings.is_live:
        log.warning(LIVE)
    ending.means(interrupt)
    with redis_place(settings) as redis_url:
        return serve(settings, redis_url, ending)
