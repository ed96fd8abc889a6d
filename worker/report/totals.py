"""Sums by account, by strategy and by hour. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import TypeVar

from worker.report.content import ORDER, Line, Total

Group = TypeVar("Group", str, str | None, datetime)


@dataclass(slots=True)
class _Sum:
    attempts: int = 0
    filled: int = 0
    ends: Counter[str] = field(default_factory=Counter)

    def add(self, line: Line) -> None:
        self.attempts += line.attempts
        self.filled += line.filled_qty or 0
        self.ends[line.end] += 1

    def total(self) -> Total:
        return Total(
            jobs=self.ends.total(),
            attempts=self.attempts,
            outcomes=_in_order(self.ends),
            filled_contracts=self.filled,
        )


def outcomes(lines: Iterable[Line]) -> dict[str, int]:
    return _in_order(Counter(line.end for line in lines))


def by_account(lines: Sequence[Line]) -> dict[str, Total]:
    return _most_first(_grouped(lines, (line.account for line in lines)))


def by_strategy(lines: Sequence[Line]) -> dict[str | None, Total]:
    return _most_first(_grouped(lines, (line.requested_by for line in lines)))


def by_hour(lines: Sequence[Line], zone: tzinfo) -> dict[datetime, Total]:
    """By the start of the zone's hours, in order of time; an hour that a clock change repeats is two hours."""
    return dict(sorted(_grouped(lines, _hours(lines, zone)).items()))


def _hours(lines: Iterable[Line], zone: tzinfo) -> Iterator[datetime]:
    """Worked out once a minute of time, not once a line: a zone's hours begin with a minute."""
    known: dict[datetime, datetime] = {}
    for line in lines:
        minute = line.enqueued_at.replace(second=0, microsecond=0)
        hour = known.get(minute)
        if hour is None:
            hour = known[minute] = hour_of(minute, zone)
        yield hour


def hour_of(moment: datetime, zone: tzinfo) -> datetime:
    """The start of the zone's hour, in UTC: times of one zone are compared without their fold."""
    return moment.astimezone(zone).replace(minute=0, second=0, microsecond=0).astimezone(UTC)


def _grouped(lines: Iterable[Line], groups: Iterable[Group]) -> dict[Group, Total]:
    """`groups`: the one that each line belongs to."""
    sums: defaultdict[Group, _Sum] = defaultdict(_Sum)
    for group, line in zip(groups, lines, strict=True):
        sums[group].add(line)
    return {name: found.total() for name, found in sums.items()}


def _most_first(totals: Mapping[Group, Total]) -> dict[Group, Total]:
    ordered = sorted(totals.items(), key=lambda item: (-item[1].jobs, str(item[0])))
    return dict(ordered)


def _in_order(counted: Counter[str]) -> dict[str, int]:
    return {end: counted[end] for end in ORDER if counted[end]}
