"""The rounds as one table, the bars that recovery is held to, and the kept JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.soak.plan import Blow
from bench.soak.reckon import Round
from bench.table import machine

RESULTS = Path(__file__).parent.parent / "results"
# Seconds from a kill to the next wire of what it had in hand: half of all, and the last.
HALF, LAST = 2.5, 5.0
# From Valkey's return to the next newly claimed POST.
RETURN = 2.0
COLUMNS = (
    *("database", "seed", "cancels", "workers\nkilled", "stopped", "frozen"),
    *("Valkey\nkilled", "exchange\ngone", "database\ngone"),
    *(
        "lost",
        "unre-\ncorded",
        "misre-\nported",
        "POSTed\nagain",
        "unex-\nplained",
        "over-\nlaps",
        "not\ncounted",
    ),
    *("recovered,\nof in hand", "p50, s", "max, s", "Valkey\nmax, s", "stop\nmax, s", "all, s"),
)


def show(rounds: Sequence[Round], made_of: str | None) -> bool:
    """Print the table; whether recovery was as soon as it has to be."""
    table = Table(title=f"soak of commit {made_of or 'unknown'}", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "database" else "right", no_wrap=True)
    for found in rounds:
        table.add_row(*_cells(found))
    if len(rounds) > 1:
        table.add_section()
        table.add_row(*_sums(rounds))
    console = Console(width=max(190, Console().width))
    console.print(table)
    outcomes = sum((Counter(found.outcomes) for found in rounds), Counter())
    console.print("outcomes: " + ", ".join(f"{name} {count:,}" for name, count in sorted(outcomes.items())))
    for blow in (Blow.DATABASE, Blow.EXCHANGE):
        back = _returns(rounds, blow)
        if back:
            console.print(
                f"after {blow}: claims flow again in p50 {median(back):.2f} s, max {max(back):.2f} s"
            )
    bars = _bars(rounds)
    for bar, met in bars.items():
        console.print(f"{'yes' if met else 'NO '}  {bar}")
    return all(bars.values())


def keep(rounds: Sequence[Round], made_of: str | None) -> str:
    """Write the run down; the name of the file."""
    at = datetime.now(UTC)
    record = {
        "at": at.isoformat(timespec="seconds"),
        "commit": made_of,
        "machine": machine(),
        "rounds": [
            dict(
                zip((name.replace("-\n", "").replace("\n", " ") for name in COLUMNS), _cells(r), strict=True)
            )
            for r in rounds
        ],
        "recovery_by_twentieths": _twentieths(rounds),
        "bars": _bars(rounds),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"soak-{at:%Y%m%dT%H%M%SZ}-{(made_of or 'uncommitted')[:12]}.json"
    file.write_text(json.dumps(record, indent=1) + "\n")
    return file.name


def _twentieths(rounds: Sequence[Round]) -> list[float]:
    recoveries = [took for found in rounds for took in found.recoveries]
    cuts = quantiles(recoveries, n=20, method="inclusive") if len(recoveries) > 1 else recoveries
    return [round(took, 2) for took in cuts]


def _bars(rounds: Sequence[Round]) -> dict[str, bool]:
    recoveries = [took for found in rounds for took in found.recoveries]
    back = _returns(rounds, Blow.VALKEY)
    return {
        f"half of what was in hand is on the wire within {HALF:g} s": _half(recoveries) <= HALF,
        f"all of it within {LAST:g} s": max(recoveries, default=0) <= LAST,
        f"claims flow within {RETURN:g} s after Valkey's return": max(back, default=0) <= RETURN,
    }


def _returns(rounds: Sequence[Round], blow: Blow) -> list[float]:
    return [took for found in rounds for took in found.returns[blow]]


def _cells(found: Round) -> list[str]:
    return [found.database, str(found.seed), *_figures([found])]


def _sums(rounds: Sequence[Round]) -> list[str]:
    return ["all", "", *_figures(rounds)]


def _figures(rounds: Sequence[Round]) -> list[str]:
    recoveries = [took for found in rounds for took in found.recoveries]
    stops = [took for found in rounds for took in found.record.stops]
    return [
        f"{sum(len(found.record.orders) for found in rounds):,}",
        *(str(sum(found.record.blows[blow] for found in rounds)) for blow in Blow),
        *(
            str(sum(len(getattr(found.faults, name)) for found in rounds))
            for name in ("lost", "unrecorded", "misreported")
        ),
        str(sum(found.again for found in rounds)),
        str(sum(len(found.faults.unexplained) for found in rounds)),
        str(sum(found.overlaps for found in rounds)),
        str(sum(len(found.faults.uncounted) for found in rounds)),
        f"{len(recoveries)}/{sum(found.in_hand for found in rounds)}",
        f"{_half(recoveries):.2f}",
        f"{max(recoveries, default=0):.2f}",
        f"{max(_returns(rounds, Blow.VALKEY), default=0):.2f}",
        f"{max(stops, default=0):.2f}",
        f"{sum(found.record.seconds for found in rounds):.0f}",
    ]


def _half(values: Sequence[float]) -> float:
    return median(values) if values else 0.0
