"""The report for people: a page of tables, what needs a person first."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from io import StringIO

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from worker.audit.verify import Verification
from worker.report.content import Line, Report, Total
from worker.report.figures import Spread, milliseconds
from worker.report.long_table import LongTable
from worker.report.shown import hour_words, many, moment_words, printable

# Of what is as wide as the page, and of texts that go on in the next line.
PAGE_WIDTH = 170
TEXT_WIDTH = 140
# A line is as wide as its cells are: half an id is of no use to anybody.
ROOM = 100_000
# What may be cut so that a job stays on its line; json and csv have it whole.
LONG_TEXTS = {"evidence": 20, "reason": 20, "account": 12, "found": 70}
# Accounts, strategies and (the latest) hours that a person reads; json has them all.
GROUPS = 50


def render_table(report: Report, *, color: bool = False) -> str:
    """The whole report as text; `color` adds a terminal's escapes."""
    page = StringIO()
    console = Console(
        file=page, width=ROOM, force_terminal=color, no_color=not color, markup=False, highlight=False
    )
    if report.live:
        _print_banner(console, Text("LIVE: real orders, real money", style="bold white on red"))
    if report.dry_run:
        said = f"DRY RUN: {many(report.dry_run, 'cancel')} of an open order, which nobody was to send"
        _print_banner(console, Text(said, style="bold"))
    for title, table in _sections(report):
        if table.row_count:
            console.print(Text(title, style="bold"))
            console.print(table)
    return page.getvalue()


def _print_banner(console: Console, text: Text) -> None:
    console.print(Panel(text, box=box.HEAVY, width=PAGE_WIDTH))


def _sections(report: Report) -> Iterable[tuple[str, Table | LongTable]]:
    yield "Audit report", _header(report)
    yield "Unresolved: a person is needed", _jobs(report.unresolved, report)
    yield "Found by people", _findings(report)
    yield "Outcomes", _counts(report.outcomes, "jobs")
    yield "Answers that were no acceptance", _counts(report.reasons, "attempts")
    yield "Attempts a cancel took", _counts(report.attempts, "jobs")
    yield "Latency, ms", _latency(report)
    yield "Contracts filled while a cancel was under way", _counts({"": report.filled_contracts}, "contracts")
    yield "By account", _totals(report.by_account.items(), "account")
    yield "By strategy, of who asked first", _totals(report.by_strategy.items(), "strategy")
    yield "By hour of the enqueue, the latest", _totals(_hours(report), "hour")
    yield "Slowest, from enqueue to the proven end", _jobs(report.slowest, report)
    yield "All cancels, unresolved first", _jobs(report.lines, report)


def plain(value: object) -> Text:
    """What came from outside, without the characters that would drive a terminal."""
    return Text(printable(value))


def _header(report: Report) -> Table:
    scope, checked = report.scope, report.verification
    period = f"{_time(report, scope.since) or 'the beginning'} to {_time(report, scope.until) or 'now'}"
    table = _table("", "")
    for name, value in (
        ("Exchange", ", ".join(report.environments) or "none in this period"),
        ("Enqueued", period),
        ("Account", scope.account or "all"),
        ("Times in", scope.zone),
        ("Made at", _time(report, report.made_at)),
        ("Policy", ", ".join(report.policy_versions) or "no attempts"),
        ("Audit intact", _verified(checked)),
        ("Tails compared", "yes, with the ledger's" if report.witnessed else "no, the ledger was not asked"),
        (f"Digest of seal {checked.seals.newest.seq}", checked.digest)
        if checked.digest
        else ("Digest", "no seal yet"),
    ):
        table.add_row(name, plain(value))
    for remark in checked.remarks:
        table.add_row("Not in it", plain(remark))
    for writer, head in checked.heads.items():
        table.add_row("Head", plain(f"{head.digest}  row {head.seq} of {writer}"))
    return table


def _verified(checked: Verification) -> str:
    if not checked.made:
        return "not checked for this report: run cancelq verify"
    return (
        f"yes, {checked.rows} rows in {len(checked.heads)} chains" if checked.ok else f"NO: {checked.fault}"
    )


def _counts(counts: Mapping[str, int] | Mapping[int, int], unit: str) -> Table:
    table = _table("", unit)
    for name, count in counts.items():
        table.add_row(plain(name), str(count))
    return table


def _findings(report: Report) -> Table:
    """What people found about unresolved ones; the outcome stays what it was."""
    table = _table("order", "account", "found", "at", "job")
    for line in report.unresolved:
        if line.resolved_as is not None:
            finding = f"{line.resolved_as} by {line.resolved_by}: {line.resolved_because}"
            moment = _time(report, line.resolved_at)
            table.add_row(str(line.order_id), plain(line.account), plain(finding), moment, plain(line.job_id))
    return table


def _hours(report: Report) -> Iterable[tuple[str, Total]]:
    latest = list(report.by_hour.items())[-GROUPS:]
    return ((hour_words(hour, report.scope.zone), total) for hour, total in latest)


def _totals(totals: Iterable[tuple[str | None, Total]], by: str) -> Table:
    table = _table(by, "jobs", "tries", "filled", "outcomes")
    for i, (name, total) in enumerate(totals):
        if i == GROUPS:
            table.add_row("more in json", "", "", "", "")
            break
        ends = ", ".join(f"{count} {end}" for end, count in total.outcomes.items())
        counts = (total.jobs, total.attempts, total.filled_contracts)
        table.add_row(plain("not said" if name is None else name), *map(str, counts), ends)
    return table


def _latency(report: Report) -> Table:
    table = _table("", "p50", "p95", "p99", "max", "of")
    stages = report.latency
    for name, stage in (
        ("enqueue to wire", stages.enqueue_to_wire),
        ("wire to answer", stages.wire_to_answer),
        ("answer to end", stages.answer_to_end),
        ("enqueue to end", stages.enqueue_to_end),
    ):
        table.add_row(name, *_spread(stage))
    return table


def _spread(stage: Spread) -> Iterable[str]:
    for span in (stage.p50, stage.p95, stage.p99, stage.longest):
        yield _span(span)
    yield str(stage.count)


def _jobs(lines: Iterable[Line], report: Report) -> LongTable:
    make = partial(
        _table,
        "outcome",
        "evidence",
        "order",
        "account",
        "enqueued",
        "to wire",
        "to end",
        "tries",
        "filled",
        "reason",
        "job",
    )
    return LongTable(make, (_job(line, report) for line in lines))


def _job(line: Line, report: Report) -> tuple[str, ...]:
    return (
        line.end,
        printable(f"{line.evidence}: {line.detail}" if line.detail else line.evidence),
        str(line.order_id),
        printable(line.account),
        _time(report, line.enqueued_at),
        _span(line.to_wire),
        _span(line.to_end),
        str(line.attempts),
        printable(line.filled_qty),
        printable(line.reason),
        printable(line.job_id),
    )


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_header=any(columns))
    for column in columns:
        if column:
            table.add_column(column, overflow="ellipsis", no_wrap=True, max_width=LONG_TEXTS.get(column))
        else:
            table.add_column(overflow="fold", max_width=TEXT_WIDTH)
    return table


def _time(report: Report, moment: datetime | None) -> str:
    return moment_words(moment, report.scope.zone)


def _span(span: timedelta | None) -> str:
    value = milliseconds(span)
    return "" if value is None else f"{value:.1f}"
