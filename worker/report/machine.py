"""The report for programs: JSON (everything) and CSV (one row a job, safe to open in a spreadsheet)."""

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, tzinfo
from io import StringIO
from operator import attrgetter
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
TIMES = ("enqueued_at", "first_sent_at", "finished_at", "resolved_at")
SPANS = {"enqueue_to_wire_ms": "to_wire", "enqueue_to_end_ms": "to_end"}
_facts = attrgetter(*(SPANS.get(name, name) for name in COLUMNS))
# `json.dumps` with an option makes an encoder a call.
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode


def json_parts(report: Report) -> Iterator[str]:
    """One JSON object, in parts; times in the report's zone, spans in milliseconds, ids exact; a job a line."""
    zone = report.scope.zone
    summary = json.dumps(_summary(report, zone), ensure_ascii=False, indent=2)
    yield summary.removesuffix("\n}") + ',\n  "jobs": ['
    for i, line in enumerate(report.lines):
        yield ("," if i else "") + "\n    " + _ENCODE(_cells(line, zone))
    yield "\n  ]\n}\n"


def csv_parts(report: Report) -> Iterator[str]:
    """One row per job, unresolved first, in parts."""
    text = StringIO()
    # All text is quoted: left to itself, the writer takes a carriage return inside a cell for harmless.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(COLUMNS)
    for line in report.lines:
        writer.writerow(map(harmless, _cells(line, report.scope.zone).values()))
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def harmless(cell: object) -> object:
    """Text that a spreadsheet would run gets an apostrophe before it, also when space or nothing visible leads it."""
    if not isinstance(cell, str) or cell[:1].isalnum():
        return cell
    first = next((char for char in cell if char.isprintable() and not char.isspace()), "")
    return f"'{cell}" if first in FORMULA_STARTS or cell.startswith(DROPPED_STARTS) else cell


def _summary(report: Report, zone: tzinfo) -> dict[str, Any]:
    checked = report.verification
    latency = report.latency
    return {
        "environments": report.environments,
        "live": report.live,
        "dry_run": report.dry_run,
        "since": _time(report.scope.since, zone),
        "until": _time(report.scope.until, zone),
        "account": report.scope.account,
        "zone": str(zone),
        "made_at": _time(report.made_at, zone),
        "policy_versions": report.policy_versions,
        "verified": checked.ok if checked.made else None,
        "witnessed": report.witnessed,
        "fault": str(checked.fault) if checked.fault else None,
        "journal_trouble": checked.journal_trouble or None,
        "views_trouble": checked.views_trouble or None,
        "outstanding": [asdict(chain) for chain in checked.outstanding],
        "conflicts": checked.conflicts,
        "rows_checked": checked.rows,
        "digest": checked.digest or None,
        "seals": checked.seals.newest.seq,
        "newer_rows": checked.newer,
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


def _cells(line: Line, zone: tzinfo) -> dict[str, Any]:
    known = dict(zip(COLUMNS, _facts(line), strict=True))
    for name in TIMES:
        known[name] = _time(known[name], zone)
    for name in SPANS:
        known[name] = milliseconds(known[name])
    return known


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
