"""The report for programs: JSON (everything) and CSV (one row a job, safe to open in a spreadsheet)."""

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from io import StringIO
from typing import Any

from worker.clock import iso
from worker.report.content import Event, Line, Report, Timeline, Total
from worker.report.figures import Spread, milliseconds

# A spreadsheet takes a cell that begins so for a formula, and runs it; in Asia the wide forms count, too.
FORMULA_STARTS = frozenset("=+-@＝＋－＠")  # noqa: RUF001  # meant
# Some readers drop these and look at what follows.
DROPPED_STARTS = ("\t", "\r", "\n")
COLUMNS = [
    "job_id",
    "account",
    "order_id",
    "cl_ord_id",
    "requested_by",
    "request_id",
    "joiners",
    "enqueued_at",
    "first_sent_at",
    "finished_at",
    "attempts",
    "command_id",
    "outcome",
    "evidence",
    "redrive_of",
    "detail",
    "filled_qty",
    "reason",
    "enqueue_to_wire_ms",
    "enqueue_to_end_ms",
    "environment",
    "resolved_as",
    "resolved_by",
    "resolved_at",
    "resolved_because",
]


def json_parts(report: Report) -> Iterator[str]:
    """One JSON object, in parts; times in the report's zone, spans in milliseconds, ids exact; a job a line."""
    zone = report.scope.zone
    yield _dumped(_summary(report, zone), indent=2).removesuffix("\n}") + ',\n  "jobs": ['
    for i, line in enumerate(report.lines):
        yield ("," if i else "") + "\n    " + _dumped(_cells(line, zone))
    yield "\n  ]\n}\n"


def csv_parts(report: Report) -> Iterator[str]:
    """One row per job, unresolved first, in parts."""
    text = StringIO()
    # All text is quoted: left to itself, the writer takes a carriage return inside a cell for harmless.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(COLUMNS)
    for line in report.lines:
        cells = _cells(line, report.scope.zone)
        writer.writerow([harmless(cells[column]) for column in COLUMNS])
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def harmless(cell: object) -> object:
    """Text that a spreadsheet would run gets an apostrophe before it, also when space or nothing visible leads it."""
    if not isinstance(cell, str):
        return cell
    first = next((char for char in cell if char.isprintable() and not char.isspace()), "")
    return f"'{cell}" if first in FORMULA_STARTS or cell.startswith(DROPPED_STARTS) else cell


def _summary(report: Report, zone: tzinfo) -> dict[str, Any]:
    checked = report.verification
    latency = report.latency
    return {
        "environments": report.environments,
        "live": report.live,
        "since": _time(report.scope.since, zone),
        "until": _time(report.scope.until, zone),
        "account": report.scope.account,
        "zone": str(zone),
        "made_at": _time(report.made_at, zone),
        "policy_versions": report.policy_versions,
        "verified": checked.ok,
        "witnessed": report.witnessed,
        "fault": str(checked.fault) if checked.fault else None,
        "rows_checked": checked.rows,
        "digest": checked.digest,
        "heads": {writer: {"seq": head.seq, "digest": head.digest} for writer, head in checked.heads.items()},
        "outcomes": report.outcomes,
        "reasons": report.reasons,
        "attempts": {str(attempts): jobs for attempts, jobs in report.attempts.items()},
        "filled_contracts": report.filled_contracts,
        "filled": {line.job_id: line.filled_qty for line in report.filled},
        "by_account": [{"account": name, **_total(sum_)} for name, sum_ in report.by_account.items()],
        "by_strategy": [{"requested_by": name, **_total(sum_)} for name, sum_ in report.by_strategy.items()],
        "by_hour": [{"hour": _time(hour, zone), **_total(sum_)} for hour, sum_ in report.by_hour.items()],
        "latency_ms": {
            "enqueue_to_wire": _spread(latency.enqueue_to_wire),
            "wire_to_answer": _spread(latency.wire_to_answer),
            "answer_to_end": _spread(latency.answer_to_end),
            "enqueue_to_end": _spread(latency.enqueue_to_end),
        },
        "slowest": [line.job_id for line in report.slowest],
        "timelines": [_timeline(timeline, zone) for timeline in report.timelines],
        "unresolved": [line.job_id for line in report.unresolved],
    }


def _dumped(content: dict[str, Any], indent: int | None = None) -> str:
    return json.dumps(content, ensure_ascii=False, indent=indent)


def _cells(line: Line, zone: tzinfo) -> dict[str, Any]:
    known = {name: getattr(line, name, None) for name in COLUMNS}
    known["enqueue_to_wire_ms"] = milliseconds(line.to_wire)
    known["enqueue_to_end_ms"] = milliseconds(line.to_end)
    return {name: _time(cell, zone) if isinstance(cell, datetime) else cell for name, cell in known.items()}


def _spread(stage: Spread) -> dict[str, float | int | None]:
    spans = {"p50": stage.p50, "p95": stage.p95, "p99": stage.p99, "longest": stage.longest}
    return {"count": stage.count} | {name: milliseconds(span) for name, span in spans.items()}


def _total(total: Total) -> dict[str, Any]:
    return {
        "jobs": total.jobs,
        "attempts": total.attempts,
        "filled_contracts": total.filled_contracts,
        "outcomes": total.outcomes,
    }


def _timeline(timeline: Timeline, zone: tzinfo) -> dict[str, Any]:
    start = timeline.line.enqueued_at
    return {
        "job_id": timeline.line.job_id,
        "events": [
            {"after_ms": milliseconds(event.at - start), **_event(event, zone)} for event in timeline.events
        ],
    }


def _event(event: Event, zone: tzinfo) -> dict[str, Any]:
    return {
        "event": event.kind,
        "at": _time(event.at, zone),
        "answered_at": _time(event.until, zone),
        "attempt": event.number,
        "said": event.said,
        "detail": event.detail,
    }


def _time(moment: datetime | None, zone: tzinfo) -> str | None:
    if moment is None:
        return None
    return iso(moment) if zone is UTC else moment.astimezone(zone).isoformat(timespec="microseconds")
