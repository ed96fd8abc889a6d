"""A whole fleet keeps to its limits and stops at a lock-out: two workers of 64 threads on a real exchange."""

import json

from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet
from tests.parts.receiver import receiving

MANY = range(1001, 1401)
HIT = 1030  # who meets the lock-out
SLACK = 0.5  # the promise
LOCKOUT = 3
SECOND = 1_000_000


def test_no_first_byte_leaves_later_than_half_a_second_after_a_lock_out_was_read(plain_fleet: Fleet) -> None:
    """And all goes on by itself afterwards, under one alert."""
    exchange = plain_fleet.exchange
    exchange.defaults(latency=0.2)
    exchange.add_orders(*MANY)
    exchange.script(HIT, {"status": 429})
    with receiving() as receiver:
        for _ in range(2):
            plain_fleet.start(lockout=str(LOCKOUT), alert_url=receiver.url)
        plain_fleet.queue().cancel_many([{"order_id": order} for order in MANY])
        ends = plain_fleet.ends(len(MANY), seconds=60)
        alert = receiver.alerts.get(timeout=10)
        assert (alert["event"], alert["login"], receiver.alerts.qsize()) == ("locked_out", "default", 0)
    assert {row["outcome"] for row in ends.values()} == {"canceled"}
    read_at = exchange.requests(HIT)[0]["answered_at"]
    starts = exchange.calls()
    late = [at for at in starts if read_at + SLACK * SECOND < at < read_at + LOCKOUT * SECOND]
    assert late == []
    assert max(starts) > read_at + LOCKOUT * SECOND  # it did stop a good part of them
    assert min(starts) < read_at


def test_a_fleet_makes_no_more_calls_in_any_second_than_its_limit(plain_fleet: Fleet) -> None:
    exchange, limit, orders = plain_fleet.exchange, 20, range(1, 61)
    exchange.add_orders(*orders)
    exchange.script(5, {"reason": "AnotherCommandPending"})
    for _ in range(2):
        plain_fleet.start(rate_limit=f"{limit}/s", confirm_budget="4")
    plain_fleet.queue().cancel_many([{"order_id": order} for order in orders])
    ends = plain_fleet.ends(len(orders))
    assert {row["outcome"] for row in ends.values()} == {"canceled"}
    calls = exchange.calls()
    crowded = [later - first for first, later in zip(calls, calls[limit:], strict=False)]
    assert min(crowded) >= SECOND
    assert len(calls) >= len(orders) + 1


def test_a_ticket_is_redeemed_once_with_the_same_body_by_whoever_is_there(plain_fleet: Fleet) -> None:
    """The worker that met the penalty is gone by then, and nobody else calls before it is over."""
    exchange = plain_fleet.exchange
    exchange.add_orders(1, 2)
    exchange.script(1, {"p-ticket": "t-1", "p-time": 2})
    first = plain_fleet.fork()
    plain_fleet.queue().cancel(order_id=1)
    met = exchange.wait_for_posts(1, 1)[0]
    eventually(lambda: plain_fleet.queue().status(order_id=1)["state"] == "reconciling", what="a parked job")
    first.kill()
    plain_fleet.queue().cancel(order_id=2)
    plain_fleet.fork()
    plain_fleet.ends(2)
    again = exchange.requests(1)[1:]
    assert [json.loads(row["body"]) for row in again] == [json.loads(met["body"]) | {"p-ticket": "t-1"}]
    calls = [at for at in exchange.calls() if at > met["answered_at"]]
    assert min(calls) >= met["answered_at"] + 2 * SECOND
