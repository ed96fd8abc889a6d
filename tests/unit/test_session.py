"""The exchange's day ends at 17:00 in New York, whatever the season."""

from datetime import UTC, datetime, timedelta

import pytest

from worker.session import AHEAD, last_look, last_reset


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "reset"),
    [
        ("2026-01-15T12:00", "2026-01-15T22:00"),  # winter: UTC-5
        ("2026-07-15T12:00", "2026-07-15T21:00"),  # summer: UTC-4
        ("2026-07-15T20:57:59", "2026-07-15T21:00"),
        ("2026-07-15T20:58", "2026-07-16T21:00"),  # the look has begun: the next one is tomorrow's
        ("2026-07-15T21:00", "2026-07-16T21:00"),
        ("2026-03-08T06:59", "2026-03-08T21:00"),  # the night in which the clocks go forward
        ("2026-03-07T21:58", "2026-03-08T21:00"),  # 23 hours on
        ("2026-10-31T20:58", "2026-11-01T22:00"),  # 25 hours on
        ("2026-11-01T05:30", "2026-11-01T22:00"),  # in the hour that comes twice
        ("2026-11-01T06:30", "2026-11-01T22:00"),
    ],
)
def test_the_last_look_comes_shortly_before_the_next_reset(now: str, reset: str) -> None:
    assert last_look(utc(now)) == utc(reset) - AHEAD


def test_a_last_look_never_lies_in_the_past_nor_more_than_25_hours_ahead() -> None:
    start = utc("2026-01-01T00:00")
    for minutes in range(0, 366 * 24 * 60, 37):
        now = start + timedelta(minutes=minutes)
        assert timedelta(0) < last_look(now) - now <= timedelta(hours=25)


@pytest.mark.parametrize(
    ("now", "reset"),
    [
        ("2026-01-15T21:59", "2026-01-14T22:00"),
        ("2026-01-15T22:00", "2026-01-15T22:00"),
        ("2026-03-08T20:59", "2026-03-07T22:00"),  # 23 hours before the next one
    ],
)
def test_a_session_began_at_the_reset_before(now: str, reset: str) -> None:
    assert last_reset(utc(now)) == utc(reset)
