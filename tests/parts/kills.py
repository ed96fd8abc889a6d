"""What must hold once everything has ended, whoever was killed on the way there."""

from collections import defaultdict

from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet
from worker.clock import to_micros
from worker.demo.compare import compare


def assert_nothing_lost(fleet: Fleet, count: int, *, seconds: float = 60) -> None:
    """Every job ended as the exchange's truth says, and every request it saw has an earlier row."""
    fleet.ends(count, seconds=seconds)
    attempts = fleet.view("audit_attempts")
    truth = fleet.exchange.truth()
    assert compare(truth.values(), fleet.view("audit_jobs"), attempts) == []
    assert [row for row in attempts if row["transport"] is None or row["verdict"] is None] == []
    assert max(row["max_in_flight"] for row in truth.values()) == 1
    assert fleet.fault_of_audit() is None
    starts: dict[int, list[int]] = defaultdict(list)
    for row in attempts:
        starts[row["order_id"]].append(to_micros(row["started_at"]))
    for order, seen in requests_by_order(fleet).items():
        rows = sorted(starts[order])
        assert len(seen) <= len(rows), f"order {order}: the exchange saw more requests than rows exist"
        assert all(start <= at for start, at in zip(rows, seen, strict=False)), (
            f"order {order}: a row came late"
        )


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
