"""`cancelq demo`: the main job end to end, on parts that it starts and stops itself."""

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker.errors import CancelqError

if TYPE_CHECKING:
    from subprocess import Popen

    from sqlalchemy import Engine

    from worker.demo.stage import Stage

FIRST_ORDER = 1001
# The demo's own bound, from the first request to the last outcome.
BOUND = 55.0


@click.command()
@click.option("--orders", default=200, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--seed", default=7, show_default=True, help="which orders meet which fault")
@click.option("--keep", is_flag=True, help="leave the data for a look afterwards")
def demo(orders: int, seed: int, *, keep: bool) -> None:
    """Cancel ORDERS orders through faults, then hold the audit against the exchange's own truth."""
    from worker.app.ending import AskedToEnd, Ending, interrupt

    ending = Ending()
    ending.means(interrupt)
    ending.listen()
    home = Path(tempfile.mkdtemp(prefix="cancelq-demo-"))
    try:
        same = _play(home, orders, seed)
    except AskedToEnd:
        click.echo("cancelq: demo interrupted; everything it started is stopped", err=True)
        sys.exit(130)
    finally:
        if keep:
            click.echo(f"data kept in {home}", err=True)
        else:
            shutil.rmtree(home, ignore_errors=True)
    sys.exit(0 if same else 1)


def _play(home: Path, orders: int, seed: int) -> bool:
    from worker.audit.engine import open_engine
    from worker.demo.stage import request_lines, stage

    with stage(home, seed=seed) as scene:
        engine = open_engine(scene.environment["CANCELQ_DATABASE_URL"])
        try:
            scene.run("migrate")
            ids = range(FIRST_ORDER, FIRST_ORDER + orders)
            scene.ask("/sim/faults", {"faults": "demo"})
            scene.ask("/sim/orders", {"from": FIRST_ORDER, "count": orders, "account": "DEMO1"})
            worker = scene.start("worker", "--die-with-parent")
            scene.wait_for("worker", "worker.started", worker)
            for strategy, part in (("momentum", ids[::2]), ("meanrev", ids[1::2])):
                scene.start("enqueue", "--from", "-", stdin=request_lines(part, strategy))
            _wait_for_ends(engine, worker, orders)
            return _show(scene, engine)
        finally:
            engine.dispose()


def _wait_for_ends(engine: "Engine", worker: "Popen[bytes]", orders: int) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from worker.audit.surface import finished

    columns = (TextColumn("cancels ended"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    give_up = time.monotonic() + BOUND
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=orders)
        while (done := finished(engine)) < orders:
            progress.update(bar, completed=done)
            if worker.poll() is not None:
                raise CancelqError("the demo's worker ended; --keep shows its log")
            if time.monotonic() > give_up:
                raise CancelqError(f"only {done} of {orders} cancels ended within {BOUND:g} s")
            time.sleep(0.1)
        progress.update(bar, completed=orders)


def _show(scene: "Stage", engine: "Engine") -> bool:
    """Print the report, then every difference to the exchange's truth."""
    from worker.audit.surface import rows
    from worker.demo.compare import compare

    differences = compare(scene.truth(), rows(engine, "audit_jobs"), rows(engine, "audit_attempts"))
    scene.run("verify")  # seals what the report shows; the worker would do so within a minute
    click.echo(scene.run("report"), nl=False)
    for difference in differences:
        click.echo(f"order {difference.order_id}: {difference.what}", err=True)
    asked = len(scene.truth())
    verdict = "the audit says what happened" if not differences else f"{len(differences)} differences"
    click.echo(f"checked {asked} orders against the exchange's own truth: {verdict}", err=True)
    return not differences
