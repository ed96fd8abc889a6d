"""One cancel from the strategy's call to the proven end, on real parts."""

from tests.parts.fleet import Fleet


def test_a_cancel_ends_proven_and_recorded(fleet: Fleet) -> None:
    fleet.exchange.add_orders(11)
    fleet.start()
    receipt = fleet.queue().cancel(order_id=11, requested_by="momentum")
    job = fleet.ends(1)[11]
    (attempt,) = fleet.attempts(11)
    assert receipt.status == "accepted"
    assert (job["job_id"], job["outcome"], job["requested_by"]) == (receipt.job_id, "canceled", "momentum")
    assert job["evidence"].startswith("order_read")
    assert (attempt["verdict"], attempt["transport"]) == ("accepted", "answered")
    assert attempt["command_id"] == job["command_id"] == fleet.exchange.truth()[11]["command_ids"][0]
