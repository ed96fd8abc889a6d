"""The report's renderings are safe to open: no formula runs, no terminal is driven, LIVE cannot be missed."""

import csv
import json
from datetime import timedelta
from io import StringIO

import pytest
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.parts.cancels import at
from tests.parts.reports import HOSTILE, a_line, a_report, a_timeline, a_total, an_attempt
from worker.audit.chain import Head
from worker.audit.verify import Fault, Verification
from worker.report.content import Report
from worker.report.figures import Spread, spread
from worker.report.long_table import LongTable
from worker.report.machine import csv_parts, harmless, json_parts
from worker.report.table import render_table

STARTS = ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"]


def csv_text(report: Report) -> str:
    return "".join(csv_parts(report))


def json_text(report: Report) -> str:
    return "".join(json_parts(report))


@pytest.mark.parametrize("lead", ["", " ", "\u00a0", "\u3000", "\ufeff", "\u200b", "\x00"])
@pytest.mark.parametrize("start", STARTS)
def test_a_cell_that_a_spreadsheet_would_run_is_made_text(start: str, lead: str) -> None:
    hidden = f"{lead}{start}" if start.isprintable() else f"{start}{lead}"
    page = csv_text(a_report(a_line(requested_by=f"{hidden}cmd()", detail=f"{hidden}1")))
    (row,) = csv.DictReader(StringIO(page, newline=""))
    assert (row["requested_by"], row["detail"]) == (f"'{hidden}cmd()", f"'{hidden}1")


@pytest.mark.parametrize("jobs", [0, 1, 3])
def test_the_json_is_one_object_however_many_jobs_there_are(jobs: int) -> None:
    shown = json.loads(json_text(a_report(*(a_line(job_id=f"job-{i}") for i in range(jobs)))))
    assert [job["job_id"] for job in shown["jobs"]] == [f"job-{i}" for i in range(jobs)]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_cell_can_neither_end_its_row_nor_its_column(text: str) -> None:
    cell = f'{text}",\n=1+1\r\n,'
    page = csv_text(a_report(a_line(detail=cell), a_line(job_id="job-2")))
    first, second = csv.DictReader(StringIO(page, newline=""))
    assert (first["detail"], first["environment"], second["job_id"]) == (cell, "e", "job-2")


@pytest.mark.parametrize("cell", ["momentum", "a=b", " a-b", "", " ", 42, -42, None, 1.5])
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


def test_a_dry_run_is_told_with_the_number_of_cancels_that_nobody_was_to_send() -> None:
    dry = a_line(outcome="unresolved", evidence="dry_run Working")
    report = a_report(dry, a_line(job_id="job-2", outcome="filled", evidence="order_read Filled"))
    assert "DRY RUN: 1 cancel of an open order" in render_table(report)
    assert json.loads(json_text(report))["dry_run"] == 1
    assert "DRY RUN" not in render_table(a_report(a_line()))


def test_what_came_from_outside_cannot_drive_the_terminal() -> None:
    page = render_table(a_report(a_line(reason="\x1b[31mred", evidence="[bold]x[/]", account="\x9b1m")))
    assert "\x1b" not in page
    assert "\x9b" not in page
    assert "[bold]x[/]" in page


def test_ids_outcomes_and_figures_are_whole_however_wide_that_is() -> None:
    """Two orders that differ in their last digit; either id can be given to `why` and `resolve`."""
    jobs = [f"019aaf0e-5c00-7000-8000-00000000000{digit}" for digit in "12"]
    orders = [9223372036854775806, 9223372036854775807]
    days = [at(0) + timedelta(days=9), at(0) + timedelta(days=99)]
    lines = [
        a_line(
            job_id=job, order_id=order, account="DEMO1234567", outcome="unresolved", evidence="seen_working " * 3,
            first_sent_at=days[0], finished_at=days[1], attempts=12345, filled_qty=987654321,
            reason="ExecutionProviderUnavailable",
            resolved_as="canceled", resolved_by="alice", resolved_at=at(999), resolved_because="x" * 99,
        )
        for job, order in zip(jobs, orders, strict=True)
    ]  # fmt: skip
    page = render_table(a_report(*lines, slowest=tuple(lines), by_strategy={"s" * 128: a_total(refused=2)}))
    rows = [line for line in page.splitlines() if jobs[0] in line]
    assert len(rows) == 4  # unresolved, found, slowest, all
    assert all(str(orders[0]) in row for row in rows)
    whole = ["unresolved", "DEMO1234567", "777600000.0", "8553600000.0", "12345", "987654321"]
    assert [[word for word in whole if word not in row] for row in rows if "alice" not in row] == [[]] * 3
    assert "ExecutionProviderUnavailable" not in page
    assert "s" * 128 in page


def test_an_audit_that_is_not_intact_is_said_with_the_row() -> None:
    page = render_table(
        a_report(verification=Verification(1, {"w": Head(1, "d")}, Fault("jobs", "w", 7, "was changed")))
    )
    assert "NO: jobs row 7 of w: was changed" in page


def test_quantiles_are_values_that_occurred() -> None:
    spans = [timedelta(milliseconds=number) for number in range(1, 201)]
    found = spread([None, *reversed(spans)])
    shares = [found.p50, found.p95, found.p99, found.longest]
    assert [span / timedelta(milliseconds=1) for span in shares] == [100, 190, 198, 200]


def test_no_spans_have_no_quantiles() -> None:
    assert spread([None]) == Spread()


def test_the_bins_of_a_histogram_hold_every_span() -> None:
    spans = [timedelta(milliseconds=number) for number in (-5, 0, 0.05, 1, 9.99, 10, 1000)]
    assert spread(spans).bins == {-6: 3, 0: 1, 5: 1, 6: 1, 18: 1}


def test_the_totals_stand_in_the_table_and_in_the_json() -> None:
    report = a_report(by_account={"DEMO7": a_total(refused=2)}, by_strategy={None: a_total(canceled=3)})
    page = render_table(report)
    assert ("DEMO7" in page, "2 refused" in page, "not said" in page) == (True, True, True)
    shown = json.loads(json_text(report))
    assert shown["by_account"][0]["outcomes"] == {"refused": 2}
    assert (shown["by_strategy"][0]["requested_by"], shown["by_strategy"][0]["jobs"]) == (None, 3)


def test_the_json_tells_the_story_of_the_slowest() -> None:
    (story,) = json.loads(json_text(a_report(timelines=(a_timeline(an_attempt(1, sent=4)),))))["timelines"]
    assert [event["event"] for event in story["events"]] == ["enqueued", "attempt"]
    assert (story["events"][1]["after_ms"], story["events"][1]["said"]) == (4.0, "accepted")


def test_more_groups_than_a_person_reads_are_left_to_the_json() -> None:
    many = {f"strategy-{number}": a_total(canceled=1) for number in range(60)}
    report = a_report(by_strategy=many)
    assert "strategy-59" not in render_table(report)
    assert "more in json" in render_table(report)
    assert len(json.loads(json_text(report))["by_strategy"]) == 60


def test_the_table_says_whether_the_ledger_was_asked() -> None:
    assert "the ledger was not asked" in render_table(a_report(witnessed=False))
    assert "the ledger was not asked" not in render_table(a_report(witnessed=True))


@pytest.mark.parametrize("room", [170, 54])
def test_a_long_table_is_drawn_as_rich_draws_it(room: int) -> None:
    rows = [["1", "DEMO1", ""], ["22", "名前" * 9, "é" * 9], ["3", "x" * 30, "  a  "], ["é", "ö", "…"]]

    def table() -> Table:
        made = Table(box=SIMPLE_HEAD)
        for name in ("n", "account", "why"):
            made.add_column(name, overflow="ellipsis", no_wrap=True, max_width=20 if name == "why" else None)
        return made

    def drawn(renderable: object) -> str:
        console = Console(file=StringIO(), width=room, force_terminal=True)
        with console.capture() as page:
            console.print(renderable)
        return page.get()

    whole = table()
    for row in rows:
        whole.add_row(*map(Text, row))
    assert drawn(LongTable(table, rows)) == drawn(whole)
