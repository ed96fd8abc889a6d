"""What must hold once everything has ended, whoever was killed on the way there."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet
from worker.clock import to_micros
from worker.demo.compare import compare

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Each way to break the promise, and where it was broken."""

    lost: Sequence[str]  # accepted, and without exactly one outcome
    unrecorded: Sequence[str]  # on the wire without an earlier row, or a row that was left open
    misreported: Sequence[str]  # the audit does not say what the exchange knows
    unexplained: Sequence[str]  # POSTed again, and no row says why that was allowed
    uncounted: Sequence[str]  # two POSTs in flight at once that the audit does not name

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class Books:
    """Everything that both sides wrote down."""

    truth: Mapping[int, Row]
    requests: Mapping[int, Sequence[int]]  # arrivals by order, µs
    jobs: Sequence[Row]
    attempts: Sequence[Row]
    reads: Mapping[str, Sequence[datetime]]  # answered ones by job, in order
    overlaps: frozenset[int]  # orders
    broken: str | None  # what `cancelq verify` would name

    @property
    def again(self) -> int:
        """POSTs beyond the first of their order, as the exchange saw them."""
        return sum(max(0, row["posts"] - 1) for row in self.truth.values())


def books(fleet: Fleet) -> Books:
    reads = defaultdict(list)
    for row in fleet.table("reads"):
        if row["transport"] == "answered":
            reads[row["job_id"]].append(row["read_at"])
    fault = fleet.fault_of_audit()
    return Books(
        fleet.exchange.truth(),
        requests_by_order(fleet),
        fleet.view("audit_jobs"),
        sorted(fleet.view("audit_attempts"), key=lambda row: (row["job_id"], row["attempt"])),
        {job: sorted(at) for job, at in reads.items()},
        frozenset(row["order_id"] for row in fleet.view("audit_overlaps")),
        None if fault is None else str(fault),
    )


def faults(found: Books, orders: Sequence[int]) -> Faults:
    """Of the cancels of these orders, one each."""
    ends = defaultdict(list)
    for job in found.jobs:
        ends[job["order_id"]].append(job["outcome"])
    differences = compare(found.truth.values(), found.jobs, found.attempts)
    return Faults(
        lost=[
            f"order {order}: outcomes {ends[order]}"
            for order in orders
            if ends[order] == [] or None in ends[order]
        ],
        unrecorded=[*_without_row(found), *_left_open(found), *([found.broken] if found.broken else [])],
        misreported=[f"order {difference.order_id}: {difference.what}" for difference in differences],
        unexplained=list(_unexplained(found)),
        uncounted=[
            f"order {order}: {row['max_in_flight']} POSTs in flight at once"
            for order, row in found.truth.items()
            if row["max_in_flight"] > 1 and order not in found.overlaps
        ],
    )


def assert_nothing_lost(fleet: Fleet, count: int, *, seconds: float = 60) -> None:
    """Every job ended as the exchange's truth says, and every request it saw has an earlier row."""
    fleet.ends(count, seconds=seconds)
    wait_for_empty_journal(fleet)
    found = books(fleet)
    assert not (broken := faults(found, [job["order_id"] for job in found.jobs])), broken
    assert max(row["max_in_flight"] for row in found.truth.values()) == 1


def wait_for_empty_journal(fleet: Fleet) -> None:
    """A database that stood still for a second was away: what waits in the journal is not in it yet."""
    ledger = fleet.ledger_client()
    eventually(lambda: not ledger.marks(), seconds=60, what="a journal that is empty")


def _without_row(found: Books) -> Iterator[str]:
    starts: dict[int, list[int]] = defaultdict(list)
    for row in found.attempts:
        starts[row["order_id"]].append(to_micros(row["started_at"]))
    for order, seen in found.requests.items():
        rows = sorted(starts[order])
        if len(seen) > len(rows):
            yield f"order {order}: the exchange saw {len(seen)} requests, there are {len(rows)} rows"
        elif any(start > at for start, at in zip(rows, seen, strict=False)):
            yield f"order {order}: a row came late"


def _left_open(found: Books) -> Iterator[str]:
    for row in found.attempts:
        if row["transport"] is None or row["verdict"] is None:
            yield f"order {row['order_id']}: attempt {row['attempt']} has no reply or no verdict"


def _unexplained(found: Books) -> Iterator[str]:
    """A transient answer allows another POST; after anything else the order must have been read first."""
    for before, row in zip(found.attempts, found.attempts[1:], strict=False):
        if row["attempt"] == 1 or before["job_id"] != row["job_id"] or before["verdict"] == "transient":
            continue
        reads = found.reads.get(row["job_id"], ())
        latest = bisect_right(reads, row["started_at"])
        if latest == 0 or reads[latest - 1] < before["started_at"]:
            yield f"order {row['order_id']}: nothing was read before attempt {row['attempt']}"


def requests_by_order(fleet: Fleet) -> dict[int, list[int]]:
    seen: dict[int, list[int]] = defaultdict(list)
    for request in fleet.exchange.requests():
        seen[request["order_id"]].append(request["at"])
    return seen


def assert_ledger_at_rest(fleet: Fleet) -> None:
    """Every job that the audit calls ended is so in the ledger, which owes nobody anything."""
    queue = fleet.queue()
    for row in fleet.view("audit_jobs"):
        job_id = row["job_id"]
        done = eventually(
            lambda job_id=job_id: (
                found if (found := queue.status(job_id=job_id))["state"] == "done" else None
            ),
            what=f"the end of job {job_id} in the ledger",
        )
        assert done["outcome"] == row["outcome"]
