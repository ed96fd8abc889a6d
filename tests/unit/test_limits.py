"""Settings that contradict each other are told, each with its mend; the defaults are not."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from worker.doctor.finding import Grade
from worker.doctor.limits import look
from worker.settings import Settings

DEFAULTS = Settings()


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def test_the_defaults_do_not_contradict_each_other() -> None:
    assert [finding.grade for finding in look(DEFAULTS)] == [Grade.OK]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"retry_budget": seconds(8)}, "one lost answer uses it up"),
        ({"retry_budget": seconds(2)}, "before the first retry after ExecutionProviderUnavailable"),
        ({"connect_timeout": seconds(2.5)}, "the right to send is gone"),
        ({"lease": seconds(20)}, "stand still for 20 s"),
        ({"confirm_budget": seconds(5)}, "ends before all reads"),
        ({"dedupe_life": seconds(119)}, "may become a second job"),
        ({"max_attempts": 1}, "nothing is ever retried"),
        ({"transient_reasons": frozenset()}, "is empty"),
        ({"transient_reasons": frozenset({"Weather"})}, "no such reason"),
        ({"dry_run": True}, "nothing is POSTed"),
        ({"confirm": "off"}, "took the cancel"),
        ({"lockout": seconds(60), "exchange_url": "https://live.example.com/v1"}, "for an hour"),
    ],
)
def test_a_contradiction_is_told_with_its_mend(changes: dict[str, Any], words: str) -> None:
    found = list(look(replace(DEFAULTS, **changes)))
    assert words in " ".join(finding.finding for finding in found)
    assert all(finding.grade is Grade.WARNING and finding.mend for finding in found)
