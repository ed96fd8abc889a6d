"""Sums and quantiles over what the audit says. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import ceil


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How long one stage took; nearest-rank quantiles, so each is a value that occurred. None: it never did."""

    count: int = 0
    p50: timedelta | None = None
    p95: timedelta | None = None
    p99: timedelta | None = None
    longest: timedelta | None = None


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
    )


def _rank(ordered: Sequence[timedelta], share: float) -> timedelta:
    return ordered[ceil(share * len(ordered)) - 1]


def milliseconds(span: timedelta | None) -> float | None:
    return None if span is None else span / timedelta(milliseconds=1)
