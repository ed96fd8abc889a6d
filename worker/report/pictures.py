"""The report's pictures: counts as bars, counts over time as columns, latencies as ladders. Numbers in, SVG out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import ceil, log10
from xml.etree import ElementTree as ET

from worker.report.drawing import CHARACTER, WIDTH, Look, count_ticks, mark, part, picture, words, write
from worker.report.figures import BINS_A_DECADE, SHORTEST, Spread
from worker.report.shown import many, share_words, short_span

# Pixels.
BAR_PITCH, BAR_HEIGHT = 34.0, 11.0
COLUMN_TOP, COLUMN_FLOOR, COLUMN_LEFT, WIDEST_COLUMN = 18.0, 150.0, 40.0, 44.0
RUNG_PITCH, HISTOGRAM = 70.0, 30.0
# So many columns still have a count each.
COUNTED = 14

PLAIN = Look("plain", "square")
QUANTILE_LOOKS = {
    "p50": Look("quantile", "dot"),
    "p95": Look("quantile", "diamond"),
    "p99": Look("quantile", "square"),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of a bar picture."""

    label: str
    count: int
    look: Look | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its parts from the floor up, as CSS class → count."""

    label: str
    parts: Mapping[str, int]

    @property
    def count(self) -> int:
        return sum(self.parts.values())


def bars(name: str, title: str, items: Sequence[Bar], unit: str) -> str:
    """Horizontal bars to one scale, each with its count and its share of all."""
    whole = sum(item.count for item in items)
    largest = max((item.count for item in items), default=0)
    told = "; ".join(f"{item.label} {item.count}" for item in items) or "nothing to count"
    root = picture(name, title, f"{many(whole, unit)}: {told}", BAR_PITCH * max(len(items), 1))
    if not items:
        return _nothing(root)
    for i, item in enumerate(items):
        _bar(root, BAR_PITCH * i, item, whole=whole, largest=largest)
    return write(root)


def _bar(root: ET.Element, top: float, item: Bar, *, whole: int, largest: int) -> None:
    left = 0.0
    if item.look is not None:
        mark(root, item.look, 6.0, top + 9)
        left = 16.0
    words(root, (left, top + 13), item.label, css="label", room=300.0 - left)
    count = f"{item.count:,} · {share_words(item.count, whole)}"
    words(root, (WIDTH, top + 13), count, css="value", text_anchor="end")
    part(root, "rect", x=0.0, y=top + 18, width=WIDTH, height=BAR_HEIGHT, css="trough")
    if item.count:
        width = max(2.0, WIDTH * item.count / largest)
        css = f"bar {(item.look or PLAIN).css}"
        part(root, "rect", x=0.0, y=top + 18, width=width, height=BAR_HEIGHT, css=css)


def columns(name: str, title: str, items: Sequence[Column], axes: tuple[str, str]) -> str:
    """Columns from left to right; `axes` names what is counted and what the columns are."""
    upright, along = axes
    most = max(items, key=lambda item: item.count, default=None)
    told = (
        f"{len(items)} columns by {along}; most at {most.label}: {most.count}" if most else "nothing to count"
    )
    root = picture(name, title, f"{upright}: {sum(item.count for item in items)} in all. {told}", 190.0)
    if most is None:
        return _nothing(root)
    ticks = count_ticks(most.count)
    _gridlines(root, ticks)
    words(root, (0.0, 10.0), upright, css="axis")
    words(root, (WIDTH, 186.0), along, css="axis", text_anchor="end")
    pitch = (WIDTH - COLUMN_LEFT) / len(items)
    for i, item in enumerate(items):
        _column(root, COLUMN_LEFT + pitch * i, pitch, item, top=ticks[-1])
        if len(items) <= COUNTED:
            middle = COLUMN_LEFT + pitch * (i + 0.5)
            words(
                root,
                (middle, _height(item.count, ticks[-1]) - 4),
                f"{item.count:,}",
                css="value small middle",
            )
    for i in _labelled(items):
        words(root, (COLUMN_LEFT + pitch * (i + 0.5), 166.0), items[i].label, css="tick middle")
    return write(root)


def _gridlines(root: ET.Element, ticks: Sequence[int]) -> None:
    for tick in ticks:
        y = _height(tick, ticks[-1])
        part(root, "line", x1=COLUMN_LEFT, y1=y, x2=WIDTH, y2=y, css="grid")
        words(root, (COLUMN_LEFT - 6, y + 4), f"{tick:,}", css="tick", text_anchor="end")


def _height(count: int, top: int) -> float:
    return COLUMN_FLOOR - (COLUMN_FLOOR - COLUMN_TOP - 6) * count / top


def _column(root: ET.Element, left: float, pitch: float, item: Column, *, top: int) -> None:
    width = min(WIDEST_COLUMN, max(pitch * 0.78, 1.0))
    x, below = left + (pitch - width) / 2, 0
    for css, count in item.parts.items():
        if not count:
            continue
        floor = _height(below, top)
        below += count
        ceiling = _height(below, top)
        part(root, "rect", x=x, y=ceiling, width=width, height=max(floor - ceiling, 0.5), css=f"bar {css}")


def _labelled(items: Sequence[Column]) -> range:
    """Which columns carry their label: all, as long as they fit beside each other."""
    room = (WIDTH - COLUMN_LEFT) / CHARACTER
    widest = max(len(item.label) for item in items) + 2
    return range(0, len(items), ceil(len(items) * widest / room))


def ladder(name: str, title: str, stages: Mapping[str, Spread]) -> str:
    """Each stage as a histogram with its quantiles below, all on one logarithmic axis of time."""
    low, high = _decades(stages.values())
    root = picture(name, title, _ladder_told(stages), RUNG_PITCH * len(stages) + 34)
    if not any(stage.count for stage in stages.values()):
        return _nothing(root)
    floor = RUNG_PITCH * len(stages)
    for decade in range(low, high + 1):
        x = _across(float(decade), low, high)
        part(root, "line", x1=x, y1=16.0, x2=x, y2=floor, css="grid")
        anchor = "start" if decade == low else "end" if decade == high else "middle"
        words(root, (x, floor + 13), _decade_words(decade), css="tick", text_anchor=anchor)
    words(root, (WIDTH, floor + 29), "time taken, logarithmic scale", css="axis", text_anchor="end")
    for i, (label, stage) in enumerate(stages.items()):
        _rung(root, RUNG_PITCH * i, label, stage, decades=(low, high))
    return write(root)


def _rung(root: ET.Element, top: float, label: str, stage: Spread, *, decades: tuple[int, int]) -> None:
    words(root, (0.0, top + 11), label, css="label halo")
    if not stage.count:
        words(root, (WIDTH, top + 11), "none measured", css="value halo", text_anchor="end")
        return
    told = f"p50 {short_span(stage.p50)} · p95 {short_span(stage.p95)} · n = {stage.count:,}"
    words(root, (WIDTH, top + 11), told, css="value halo", text_anchor="end")
    floor, fullest = top + 18 + HISTOGRAM, max(stage.bins.values())
    for number, count in sorted(stage.bins.items()):
        x = _across(number / BINS_A_DECADE, *decades)
        width = _across((number + 1) / BINS_A_DECADE, *decades) - x
        height = max(1.0, HISTOGRAM * count / fullest)
        part(root, "rect", x=x, y=floor - height, width=width - 0.6, height=height, css="bar plain")
    _quantiles(root, floor + 8, stage, decades)


def _quantiles(root: ET.Element, y: float, stage: Spread, decades: tuple[int, int]) -> None:
    spans = {"p50": stage.p50, "p95": stage.p95, "p99": stage.p99, "max": stage.longest}
    places = {name: _across(_log(span), *decades) for name, span in spans.items() if span is not None}
    part(root, "line", x1=places["p50"], y1=y, x2=places["max"], y2=y, css="rung")
    for name, x in reversed(places.items()):
        if name == "max":
            part(root, "line", x1=x, y1=y - 5, x2=x, y2=y + 5, css="rung")
        else:
            mark(root, QUANTILE_LOOKS[name], x, y, 3.6)


def _decades(stages: Iterable[Spread]) -> tuple[int, int]:
    """The whole powers of ten, in milliseconds, between which everything lies; at least two apart."""
    bins = [number for stage in stages for number in stage.bins]
    low = min(bins, default=0) // BINS_A_DECADE
    high = -(-(max(bins, default=0) + 1) // BINS_A_DECADE)
    return low, max(high, low + 2)


def _across(exponent: float, low: int, high: int) -> float:
    return 8 + (WIDTH - 16) * (exponent - low) / (high - low)


def _log(span: timedelta) -> float:
    return log10(max(span, SHORTEST) / timedelta(milliseconds=1))


def _decade_words(decade: int) -> str:
    return f"{10**decade / 1000:,.0f} s" if decade >= 3 else f"{10.0**decade:g} ms"


def _ladder_told(stages: Mapping[str, Spread]) -> str:
    return "; ".join(
        f"{label}: {stage.count} measured, median {short_span(stage.p50)}, 95 % within {short_span(stage.p95)}, "
        f"longest {short_span(stage.longest)}"
        if stage.count
        else f"{label}: none measured"
        for label, stage in stages.items()
    )


def _nothing(root: ET.Element) -> str:
    words(root, (0.0, 20.0), "nothing in this period", css="axis")
    return write(root)
