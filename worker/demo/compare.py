"""Holds the audit's two views against the exchange's own truth, order by order. Pure: rows in, differences out."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]

# What each outcome claims about the order, in the exchange's words.
CLAIMS: dict[str, frozenset[str]] = {
    "canceled": frozenset({"Canceled"}),
    "filled": frozenset({"Filled", "Completed"}),
    "gone": frozenset({"Expired", "Rejected"}),
    "refused": frozenset({"Working", "Suspended", "PendingNew", "PendingReplace"}),
    "unresolved": frozenset({"Working", "Suspended", "PendingNew", "PendingReplace", "PendingCancel"}),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which the audit does not say what happened."""

    order_id: int
    what: str


def compare(truth: Iterable[Row], jobs: Iterable[Row], attempts: Iterable[Row]) -> list[Difference]:
    """Every difference between the exchange's truth and the views `audit_jobs` and `audit_attempts`."""
    job_of = _group(jobs)
    attempts_of = _group(attempts)
    asked = {row["id"]: row for row in truth if row["posts"] or row["id"] in job_of}
    strangers = [Difference(order, "the exchange does not know it") for order in job_of if order not in asked]
    return strangers + [
        difference
        for order, row in asked.items()
        for difference in _order(order, row, job_of.get(order, []), attempts_of.get(order, []))
    ]


def _group(rows: Iterable[Row]) -> dict[int, list[Row]]:
    grouped: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row["order_id"]].append(row)
    return grouped


def _order(order: int, truth: Row, jobs: list[Row], attempts: list[Row]) -> Iterator[Difference]:
    if len(jobs) != 1:
        yield Difference(order, f"{len(jobs)} jobs, not one")
        return
    found = [*_outcome(truth, jobs[0]), *_numbers(jobs[0], attempts), *_wire(truth, jobs[0], attempts)]
    yield from (Difference(order, what) for what in found)


def _outcome(truth: Row, job: Row) -> Iterator[str]:
    outcome, status = job["outcome"], truth["ordStatus"]
    if outcome is None:
        yield "no outcome"
    elif status not in CLAIMS.get(outcome, frozenset()):
        yield f"outcome {outcome}, but the order is {status}"


def _numbers(job: Row, attempts: list[Row]) -> Iterator[str]:
    numbers = sorted(row["attempt"] for row in attempts)
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"attempts are numbered {numbers}"
    if job["attempts"] != len(numbers):
        yield f"{job['attempts']} attempts in audit_jobs, {len(numbers)} in audit_attempts"
    if any(row["job_id"] != job["job_id"] for row in attempts):
        yield "an attempt of another job"


def _wire(truth: Row, job: Row, attempts: list[Row]) -> Iterator[str]:
    """The exchange saw each answered attempt, and nothing that has no row."""
    answered = sum(row["transport"] == "answered" for row in attempts)
    perhaps = answered + sum(row["transport"] in {"unanswered", None} for row in attempts)
    if not answered <= truth["posts"] <= perhaps:
        yield f"the exchange saw {truth['posts']} requests, the audit says {answered} to {perhaps}"
    ids = {row["command_id"] for row in attempts} - {None}
    if not ids <= set(truth["command_ids"]):
        yield f"commands {sorted(ids)} in the audit, {truth['command_ids']} at the exchange"
    if job["command_id"] is not None and job["command_id"] not in ids:
        yield f"command {job['command_id']} of audit_jobs is in no attempt"
