"""Gathers the report's hours into as many columns as can be told apart, the empty ones too. Pure."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from worker.report.content import ORDER, Total
from worker.report.pictures import Column

MOST_COLUMNS = 72


@dataclass(frozen=True, slots=True)
class _Period:
    """A width of columns: `start_of` takes and gives the zone's wall clock."""

    name: str
    length: timedelta
    start_of: Callable[[datetime], datetime]
    label: str


def _day(moment: datetime) -> datetime:
    return moment.replace(hour=0)


PERIODS = (
    _Period("hour", timedelta(hours=1), lambda moment: moment, "%d %b %Hh"),
    _Period("6 hours", timedelta(hours=6), lambda m: m.replace(hour=m.hour // 6 * 6), "%d %b %Hh"),
    _Period("day", timedelta(days=1), _day, "%d %b"),
    _Period("week", timedelta(days=7), lambda m: _day(m) - timedelta(days=m.weekday()), "%d %b %y"),
)
# Wider than any week's worth of columns: as many weeks as it takes to end with few enough.
WEEKS_LABEL = "%b %Y"


def columns_of_time(by_hour: Mapping[datetime, Total], zone: tzinfo) -> tuple[str, list[Column]]:
    """What one column is ("hour", "day", …), and the columns without a gap."""
    if not by_hour:
        return PERIODS[0].name, []
    local = {hour: hour.astimezone(zone).replace(tzinfo=None, fold=0) for hour in by_hour}
    first, last = min(local.values()), max(local.values())
    period = next((p for p in PERIODS if _columns(p, first, last) <= MOST_COLUMNS), None)
    period = period or _weeks(first, last)
    sums: dict[datetime, Counter[str]] = {}
    for hour, total in by_hour.items():
        sums.setdefault(_start(period, local[hour], first), Counter()).update(total.outcomes)
    starts = (_start(period, first, first) + period.length * i for i in range(_columns(period, first, last)))
    return period.name, [
        _column(start.strftime(period.label), sums.get(start, Counter())) for start in starts
    ]


def _start(period: _Period, moment: datetime, first: datetime) -> datetime:
    """The column's start; what is wider than a week counts from the first week."""
    start, begin = period.start_of(moment), period.start_of(first)
    return begin + (start - begin) // period.length * period.length


def _columns(period: _Period, first: datetime, last: datetime) -> int:
    return (_start(period, last, first) - _start(period, first, first)) // period.length + 1


def _weeks(first: datetime, last: datetime) -> _Period:
    week = PERIODS[-1]
    count = -(-_columns(week, first, last) // MOST_COLUMNS)
    return _Period(f"{count} weeks", week.length * count, week.start_of, WEEKS_LABEL)


def _column(label: str, ends: Counter[str]) -> Column:
    return Column(label, {end: ends[end] for end in reversed(ORDER) if ends[end]})
