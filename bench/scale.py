"""`python -m bench.scale`: a year's audit in both databases and a million jobs in the ledger, beside empty ones."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from bench import bars
from bench.fill import BOUND, DAYS
from bench.full_audit import measure_audit
from bench.full_ledger import measure_ledger
from bench.processes import BenchError
from bench.table import say_bars, told, write_down
from tests.parts.databases import running_postgres
from worker.audit.migrating import migrate

RESULTS = Path(__file__).parent / "results"
KINDS = ("sqlite", "postgresql")
# Measured, with indexes and a day's write-ahead log.
BYTES_PER_ATTEMPT = 3_000
# For the bulk: fewer checkpoints, and room for the indexes' ends.
LOADING = {"autovacuum": "on", "max_wal_size": "4GB", "shared_buffers": "512MB"}


@click.command("scale")
@click.option(
    "--rows", type=click.IntRange(DAYS * 5), default=10_000_000, show_default=True, help="Attempts in SQL."
)
@click.option(
    "--jobs", "queued", type=click.IntRange(100), default=1_000_000, show_default=True, help="In the ledger."
)
@click.option("--database", type=click.Choice([*KINDS, "both", "none"]), default="both", show_default=True)
@click.option("--keep/--no-keep", default=True, help="in bench/results")
def measure(rows: int, queued: int, database: str, *, keep: bool) -> None:
    """Exit 1 if size costs more than it may."""
    kinds = [kind for kind in KINDS if database in {kind, "both"}]
    found: dict[str, Mapping[str, float]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="cq-scale-") as folder:
            _require_room(Path(folder), rows * len(kinds))
            found["ledger"] = measure_ledger(Path(folder), queued)
            _say("ledger", found["ledger"])
            with _databases(kinds, Path(folder)) as urls:
                filling = _fill_all(urls, rows)
                for kind, url in urls.items():
                    found[kind] = {"fill s": filling[kind], **measure_audit(url, rows)}
                    _say(kind, found[kind])
    except BenchError as error:
        raise click.ClickException(str(error)) from None
    made = [
        *bars.full_ledger(found["ledger"]),
        *(bar for kind in kinds for bar in bars.full_audit(kind, found[kind])),
    ]
    say_bars(made)
    if keep:
        record = {"attempts": rows, "jobs": queued, "found": found, "bars": told(made)}
        click.echo(f"kept in bench/results/{write_down(record, RESULTS, 'scale-').name}")
    raise SystemExit(0 if all(bar.met for bar in made) else 1)


def _say(what: str, found: Mapping[str, float]) -> None:
    click.echo(f"{what}: " + "  ".join(f"{name} {bars.number(value)}" for name, value in found.items()))


def _require_room(folder: Path, rows: int) -> None:
    needed, free = rows * BYTES_PER_ATTEMPT, shutil.disk_usage(folder).free
    if needed > free:
        raise BenchError(
            f"{rows} attempts need {needed / 1e9:.0f} GB, {folder} has {free / 1e9:.0f}: fewer --rows, one "
            "--database at a time, or another TMPDIR"
        )


@contextmanager
def _databases(kinds: Sequence[str], folder: Path) -> Iterator[dict[str, str]]:
    """Migrated and empty, by kind."""
    with ExitStack() as parts:
        urls: dict[str, str] = {}
        for kind in kinds:
            urls[kind] = f"sqlite:///{folder / 'audit.sqlite3'}"
            if kind == "postgresql":
                server = parts.enter_context(running_postgres(**LOADING))
                server.run("CREATE DATABASE audit")
                urls[kind] = server.url("audit")
            migrate(urls[kind])
        yield urls


def _fill_all(urls: Mapping[str, str], attempts: int) -> dict[str, float]:
    """Both at once, each by a process of its own; seconds by kind."""
    begun = time.monotonic()
    filling = {
        kind: subprocess.Popen(
            [sys.executable, "-m", "bench.fill", url, str(attempts)], stdin=subprocess.PIPE
        )
        for kind, url in urls.items()
    }
    took: dict[str, float] = {}
    try:
        while len(took) < len(filling):
            time.sleep(0.1)
            for kind in filling.keys() - took.keys():
                if filling[kind].poll() is not None:
                    took[kind] = time.monotonic() - begun
            if time.monotonic() - begun > BOUND.total_seconds():
                raise BenchError(f"the databases are not full after {BOUND}")
    finally:
        for process in filling.values():
            process.kill()
            process.wait()
    if failed := [kind for kind, process in filling.items() if process.returncode]:
        raise BenchError(f"{', '.join(failed)} could not be filled; what it said stands above")
    return took


if __name__ == "__main__":
    measure()
