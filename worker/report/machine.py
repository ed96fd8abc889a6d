"""The report for programs: JSON (everything) and CSV (one row a job, safe to open in a spreadsheet)."""

import csv
import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, tzinfo
from io import StringIO
from typing import Any

from worker.clock import iso
from worker.report.content import Line, Report
from worker.report.figures import Spread, milliseconds

# A spreadsheet takes a cell that begins so for a formula, and runs it.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
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
]


def render_json(report: Report) -> str:
    """One JSON object; times in the report's zone, spans in milliseconds, ids exact."""
    zone = report.scope.zone
    checked = report.verification
    latency = asdict(report.latency)
    content = {
        "environments": report.environments,
        "live": report.live,
        "since": _time(report.scope.since, zone),
        "until": _time(report.scope.until, zone),
        "account": report.scope.account,
        "zone": str(zone),
        "made_at": _time(report.made_at, zone),
        "policy_versions": report.policy_versions,
        "verified": checked.ok,
        "fault": str(checked.fault) if checked.fault else None,
        "rows_checked": checked.rows,
        "digest": checked.digest,
        "heads": {writer: {"seq": head.seq, "digest": head.digest} for writer, head in checked.heads.items()},
        "outcomes": report.outcomes,
        "reasons": report.reasons,
        "attempts": {str(attempts): jobs for attempts, jobs in report.attempts.items()},
        "filled_contracts": report.filled_contracts,
        "latency_ms": {stage: _spread(Spread(**values)) for stage, values in latency.items()},
        "slowest": [line.job_id for line in report.slowest],
        "unresolved": [line.job_id for line in report.unresolved],
        "jobs": [_cells(line, zone) for line in report.lines],
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def render_csv(report: Report) -> str:
    """One row per job, unresolved first."""
    text = StringIO()
    # All text is quoted: left to itself, the writer takes a carriage return inside a cell for harmless.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(COLUMNS)
    for line in report.lines:
        cells = _cells(line, report.scope.zone)
        writer.writerow([harmless(cells[column]) for column in COLUMNS])
    return text.getvalue()


def harmless(cell: object) -> object:
    """Text that a spreadsheet would run gets an apostrophe before it."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell


def _cells(line: Line, zone: tzinfo) -> dict[str, Any]:
    known = {name: getattr(line, name, None) for name in COLUMNS}
    known["enqueue_to_wire_ms"] = milliseconds(line.to_wire)
    known["enqueue_to_end_ms"] = milliseconds(line.to_end)
    return {name: _time(cell, zone) if isinstance(cell, datetime) else cell for name, cell in known.items()}


def _spread(stage: Spread) -> dict[str, float | int | None]:
    return {
        name: milliseconds(value) if isinstance(value, timedelta) else value
        for name, value in asdict(stage).items()
    }


def _time(moment: datetime | None, zone: tzinfo) -> str | None:
    if moment is None:
        return None
    return iso(moment) if zone is UTC else moment.astimezone(zone).isoformat(timespec="microseconds")
