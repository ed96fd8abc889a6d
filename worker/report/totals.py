"""Sums by account, by strategy and by hour. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
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


def by_account(lines: Iterable[Line]) -> dict[str, Total]:
    return _most_first(_grouped(lines, lambda line: line.account))


def by_strategy(lines: Iterable[Line]) -> dict[str | None, Total]:
    return _most_first(_grouped(lines, lambda line: line.requested_by))


def by_hour(lines: Iterable[Line], zone: tzinfo) -> dict[datetime, Total]:
    """By the start of the zone's hours, in order of time; an hour that a clock change repeats is two hours."""
    return dict(sorted(_grouped(lines, lambda line: hour_of(line.enqueued_at, zone)).items()))


def hour_of(moment: datetime, zone: tzinfo) -> datetime:
    """The start of the zone's hour, in UTC: times of one zone are compared without their fold."""
    return moment.astimezone(zone).replace(minute=0, second=0, microsecond=0).astimezone(UTC)


def _grouped(lines: Iterable[Line], group: Callable[[Line], Group]) -> dict[Group, Total]:
    sums: dict[Group, _Sum] = {}
    for line in lines:
        sums.setdefault(group(line), _Sum()).add(line)
    return {name: found.total() for name, found in sums.items()}


def _most_first(totals: Mapping[Group, Total]) -> dict[Group, Total]:
    ordered = sorted(totals.items(), key=lambda item: (-item[1].jobs, str(item[0])))
    return dict(ordered)


def _in_order(counted: Counter[str]) -> dict[str, int]:
    return {end: counted[end] for end in ORDER if counted[end]}
