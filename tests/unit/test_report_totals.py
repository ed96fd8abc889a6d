"""Sums by account, strategy and hour; hours follow the zone's wall clock, also when it is set."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tests.parts.cancels import at
from tests.parts.reports import a_line, a_total
from worker.report.periods import MOST_COLUMNS, columns_of_time
from worker.report.shown import hour_words, share_words, short_span
from worker.report.totals import by_account, by_hour, by_strategy

ZURICH = ZoneInfo("Europe/Zurich")
AUTUMN = datetime(2026, 10, 25, tzinfo=UTC)  # at 01:00 UTC the clocks go from 03:00 back to 02:00


def test_a_group_has_its_jobs_attempts_outcomes_and_fills() -> None:
    lines = [
        a_line(account="A", attempts=3, outcome="filled", filled_qty=2),
        a_line(account="A", attempts=1, outcome="unresolved"),
        a_line(account="B"),
    ]
    first, second = by_account(lines).items()
    assert (first[0], first[1].jobs, first[1].attempts, first[1].filled_contracts) == ("A", 2, 4, 2)
    assert list(first[1].outcomes.items()) == [("unresolved", 1), ("filled", 1)]
    assert (second[0], second[1].outcomes) == ("B", {"open": 1})


def test_who_did_not_say_a_name_is_a_group_of_its_own() -> None:
    assert set(by_strategy([a_line(requested_by=None), a_line(requested_by="")])) == {None, ""}


def test_an_hour_that_the_clock_repeats_is_two_hours() -> None:
    lines = [a_line(enqueued_at=AUTUMN + timedelta(minutes=minutes)) for minutes in (30, 90, 150)]
    found = by_hour(lines, ZURICH)
    shown = [hour_words(hour, ZURICH) for hour in found]
    assert shown == ["2026-10-25 02:00 +02:00", "2026-10-25 02:00 +01:00", "2026-10-25 03:00 +01:00"]


def test_the_hours_of_a_zone_begin_on_its_own_clock() -> None:
    (hour,) = by_hour([a_line(enqueued_at=at(0))], ZoneInfo("Asia/Kolkata"))
    assert hour_words(hour, ZoneInfo("Asia/Kolkata")) == "2026-11-23 17:00 +05:30"


@pytest.mark.parametrize(
    ("days", "period"),
    [
        (0, "hour"),
        (2, "hour"),
        (4, "6 hours"),
        (30, "day"),
        (400, "week"),
        (4000, "8 weeks"),
        (40_000, "80 weeks"),
    ],
)
def test_time_is_gathered_into_as_many_columns_as_can_be_told_apart(days: int, period: str) -> None:
    hours = {at(0): a_total(canceled=2), at(0) + timedelta(days=days, hours=1): a_total(filled=1)}
    name, columns = columns_of_time(hours, ZURICH)
    assert name == period
    assert len(columns) <= MOST_COLUMNS
    assert sum(column.count for column in columns) == 3
    assert columns[0].count
    assert columns[-1].count


def test_an_empty_hour_between_two_is_an_empty_column() -> None:
    hours = {at(0): a_total(canceled=1), at(0) + timedelta(hours=3): a_total(canceled=1)}
    assert [column.count for column in columns_of_time(hours, UTC)[1]] == [1, 0, 0, 1]


def test_no_hours_are_no_columns() -> None:
    assert columns_of_time({}, UTC) == ("hour", [])


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (0, "0 ms"), (0.42, "0.42 ms"), (9.999, "10.00 ms"), (245, "245 ms"), (999.6, "1.00 s"), (2460, "2.46 s"),
        (59_990, "1 min 00 s"), (200_000, "3 min 20 s"), (7_380_000, "2 h 03 min"), (-5, "-5.00 ms"),
    ],
)  # fmt: skip
def test_a_span_is_said_in_the_unit_that_fits(milliseconds: float, words: str) -> None:
    assert short_span(timedelta(milliseconds=milliseconds)) == words


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [
        (0, 0, "0 %"),
        (0, 9, "0 %"),
        (1, 1000, "< 1 %"),
        (88, 100, "88 %"),
        (999, 1000, "> 99 %"),
        (9, 9, "100 %"),
    ],
)
def test_a_share_is_nothing_or_all_only_when_it_is_so(part: int, whole: int, words: str) -> None:
    assert share_words(part, whole) == words
