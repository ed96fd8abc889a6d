"""Sums and quantiles over what the audit says. Pure."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from math import ceil, floor, log10

# A histogram's bins are equal on a log scale: bin k holds 10^(k/6) to 10^((k+1)/6) milliseconds.
BINS_A_DECADE = 6
# Less than this, or clocks that disagree, is counted in the lowest bin.
SHORTEST = timedelta(microseconds=100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How long one stage took; nearest-rank quantiles, so each is a value that occurred. None: it never did."""

    count: int = 0
    p50: timedelta | None = None
    p95: timedelta | None = None
    p99: timedelta | None = None
    longest: timedelta | None = None
    bins: Mapping[int, int] = field(default_factory=dict)


def spread(spans: Iterable[timedelta | None]) -> Spread:
    known = sorted(span for span in spans if span is not None)
    if not known:
        return Spread()
    return Spread(
        count=len(known),
        p50=_rank(known, 0.50),
        p95=_rank(known, 0.95),
        p99=_rank(known, 0.99),
        longest=known[-1],
        bins=_bins(known),
    )


def _bins(ordered: Sequence[timedelta]) -> dict[int, int]:
    """Bins grow with the spans, so each is one stretch: a search for its end instead of a logarithm a span."""
    bins: dict[int, int] = {}
    begin = 0
    while begin < len(ordered):
        held = bin_of(ordered[begin])
        end = bisect_right(ordered, held, begin, key=bin_of)
        bins[held], begin = end - begin, end
    return bins


def bin_of(span: timedelta) -> int:
    # Rounded first: log10(1000) is not to fall below 3 by the last bit.
    return floor(round(log10(max(span, SHORTEST) / timedelta(milliseconds=1)) * BINS_A_DECADE, 9))


def _rank(ordered: Sequence[timedelta], share: float) -> timedelta:
    return ordered[ceil(share * len(ordered)) - 1]


def milliseconds(span: timedelta | None) -> float | None:
    return None if span is None else span / timedelta(milliseconds=1)
