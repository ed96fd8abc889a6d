"""The report's renderings are safe to open: no formula runs, no terminal is driven, LIVE cannot be missed."""

import csv
from collections.abc import Iterable
from datetime import UTC, timedelta
from io import StringIO

import pytest

from tests.parts.cancels import at
from worker.audit.chain import Head
from worker.audit.verify import Fault, Verification
from worker.report.content import Latency, Line, Report, Scope
from worker.report.figures import Spread, spread
from worker.report.machine import harmless, render_csv
from worker.report.table import render_table


def a_line(**facts: object) -> Line:
    known = dict.fromkeys(Line.__dataclass_fields__)
    basics = {"job_id": "job-1", "account": "A", "order_id": 1, "request_id": "r", "enqueued_at": at(0)}
    counts = {"joiners": 0, "attempts": 1, "environment": "e"}
    return Line(**{**known, **basics, **counts, **facts})


def a_report(*lines: Line, environments: Iterable[str] = (), fault: Fault | None = None) -> Report:
    nothing = Latency(
        enqueue_to_wire=Spread(), wire_to_answer=Spread(), answer_to_end=Spread(), enqueue_to_end=Spread()
    )
    return Report(
        scope=Scope(zone=UTC),
        made_at=at(0),
        environments=tuple(environments),
        policy_versions=(),
        verification=Verification(1, {"w": Head(1, "d")}, fault),
        witnessed=True,
        outcomes={},
        reasons={},
        attempts={},
        filled_contracts=0,
        latency=nothing,
        by_account={},
        by_strategy={},
        by_hour={},
        slowest=(),
        timelines=(),
        lines=lines,
    )


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_cell_that_a_spreadsheet_would_run_is_made_text(start: str) -> None:
    page = render_csv(a_report(a_line(requested_by=f"{start}cmd()", detail=f"{start}1")))
    (row,) = csv.DictReader(StringIO(page, newline=""))
    assert (row["requested_by"], row["detail"]) == (f"'{start}cmd()", f"'{start}1")


@pytest.mark.parametrize("cell", ["momentum", "a=b", "", 42, None, 1.5])
def test_a_harmless_cell_stays_as_it_is(cell: object) -> None:
    assert harmless(cell) == cell


@pytest.mark.parametrize(
    ("environment", "live"),
    [
        ("https://live.tradovateapi.com/v1", True),
        ("https://demo.tradovateapi.com/v1", False),
        ("http://127.0.0.1:8080/v1", False),
    ],
)
def test_live_is_shown_loudly_and_only_when_it_is(environment: str, *, live: bool) -> None:
    page = render_table(a_report(a_line(), environments=[environment]))
    assert ("LIVE" in page) is live
    assert environment in page


def test_what_came_from_outside_cannot_drive_the_terminal() -> None:
    page = render_table(a_report(a_line(reason="\x1b[31mred", evidence="[bold]x[/]", account="\x9b1m")))
    assert "\x1b" not in page
    assert "\x9b" not in page
    assert "[bold]x[/]" in page


def test_an_audit_that_is_not_intact_is_said_with_the_row() -> None:
    page = render_table(a_report(fault=Fault("jobs", "w", 7, "was changed")))
    assert "NO: jobs row 7 of w: was changed" in page


def test_quantiles_are_values_that_occurred() -> None:
    spans = [timedelta(milliseconds=number) for number in range(1, 201)]
    found = spread([None, *reversed(spans)])
    shares = [found.p50, found.p95, found.p99, found.longest]
    assert [span / timedelta(milliseconds=1) for span in shares] == [100, 190, 198, 200]


def test_no_spans_have_no_quantiles() -> None:
    assert spread([None]) == Spread()
