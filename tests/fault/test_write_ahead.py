"""The order of the commits, held still: while the database takes no row, nothing that depends on it happens."""

from tests.parts.databases import database_taking_no_rows
from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet


def test_nothing_is_sent_before_its_start_row_is_on_disk(fleet: Fleet) -> None:
    fleet.exchange.add_orders(1, 2)
    fleet.start(
        retry_budget="2", audit_down="hold"
    )  # shorter than the hold: a database that is away costs a cancel nothing
    with database_taking_no_rows(fleet.database_url, "starts"), fleet.queue() as queue:
        job = queue.cancel(order_id=1).job_id
        eventually(lambda: queue.status(job_id=job)["state"] == "claimed", what="a claim")
        # A job that is claimed, and given back for want of a row, has been through all that precedes a POST.
        eventually(
            lambda: "audit.unavailable" in fleet.workers[0].said(), seconds=30, what="a refused commit"
        )
        assert fleet.exchange.requests() == []
    assert fleet.ends(1)[1]["outcome"] == "canceled"
    assert [row["attempt"] for row in fleet.attempts(1)] == list(range(1, len(fleet.exchange.requests()) + 1))


def test_an_answer_is_neither_read_nor_settled_before_it_is_on_disk(fleet: Fleet) -> None:
    """The worker dies with an answer that it could not record: to the audit the attempt is an unknown."""
    fleet.exchange.add_orders(1)
    fleet.exchange.script(1, {"delay": 1})
    worker = fleet.start(audit_down="hold")
    queue = fleet.queue()
    job = queue.cancel(order_id=1).job_id
    fleet.exchange.wait_for_posts(1)
    with database_taking_no_rows(fleet.database_url, "replies"):
        eventually(lambda: fleet.exchange.requests()[0]["fate"] == "answered", what="an answer")
        eventually(lambda: "audit.unavailable" in worker.said(), seconds=30, what="a refused commit")
        assert queue.status(job_id=job)["commandId"] is None
        worker.kill()
    fleet.start(audit_down="hold")
    end = fleet.ends(1)[1]
    (attempt,) = fleet.attempts(1)
    assert (end["outcome"], attempt["transport"], attempt["error"]) == (
        "canceled",
        "unanswered",
        "worker lost",
    )


def test_an_answer_that_cannot_be_recorded_is_kept_until_it_can(fleet: Fleet) -> None:
    fleet.exchange.add_orders(1)
    fleet.exchange.script(1, {"delay": 1})
    worker = fleet.start(audit_down="hold")
    fleet.queue().cancel(order_id=1)
    fleet.exchange.wait_for_posts(1)
    with database_taking_no_rows(fleet.database_url, "replies"):
        # Two refusals of the writer are more than one caller's patience.
        eventually(lambda: worker.said().count("audit.unavailable") >= 3, seconds=40, what="three refusals")
    assert fleet.ends(1)[1]["outcome"] == "canceled"
    command = fleet.exchange.truth()[1]["command_ids"][0]
    kept = fleet.select("SELECT body FROM replies UNION ALL SELECT body FROM late_replies")
    assert any(str(command) in (row["body"] or "") for row in kept)


def test_a_job_is_done_in_the_ledger_only_after_its_outcome_is_on_disk(fleet: Fleet) -> None:
    fleet.exchange.add_orders(1)
    fleet.exchange.script(1, reads=[{"delay": 1}])
    worker = fleet.start(audit_down="hold")
    queue = fleet.queue()
    job = queue.cancel(order_id=1).job_id
    eventually(lambda: queue.status(job_id=job)["state"] == "confirming", what="a confirmation")
    with database_taking_no_rows(fleet.database_url, "outcomes"):
        eventually(lambda: "not_committed" in worker.said(), seconds=30, what="a refused commit")
        assert queue.status(job_id=job)["outcome"] is None
    assert fleet.ends(1)[1]["outcome"] == "canceled"
    assert eventually(lambda: queue.status(job_id=job)["state"] == "done", what="the end in the ledger")
