"""What a request may wish for, through real workers: armed cancels, and joiners who want it otherwise."""

import json
from datetime import UTC, datetime, timedelta

from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet
from worker.session import last_look

SOON, LATER = timedelta(seconds=2), timedelta(hours=1)


def reads(fleet: Fleet) -> list[datetime]:
    return sorted(row["read_at"] for row in fleet.table("reads"))


def test_an_armed_cancel_is_posted_at_once_and_proven_only_after_its_time(fleet: Fleet) -> None:
    fleet.exchange.add_orders(1)
    fleet.start()
    fleet.when_compared()
    queue = fleet.queue()
    at = datetime.now(UTC) + SOON
    queue.cancel(order_id=1, activation_time=at)
    job = fleet.ends(1)[1]
    (attempt,) = fleet.attempts(1)
    assert (job["outcome"], job["evidence"]) == ("canceled", "order_read Canceled")
    assert attempt["sent_at"] < at
    assert reads(fleet)[0] >= at
    (post,) = fleet.exchange.requests()
    assert datetime.fromisoformat(json.loads(post["body"])["activationTime"]) == at


def test_a_joiner_who_wants_it_now_gets_an_armed_order_canceled_now(fleet: Fleet) -> None:
    fleet.exchange.add_orders(1)
    fleet.start()
    queue = fleet.queue()
    first = queue.cancel(order_id=1, activation_time=LATER)
    eventually(lambda: queue.status(order_id=1)["state"] == "confirming", what="the armed cancel")
    now = datetime.now(UTC)
    # What is open is looked at before the exchange's day ends, whatever it waits for.
    assert datetime.fromisoformat(queue.status(order_id=1)["nextAt"]) >= min(now + LATER / 2, last_look(now))
    assert queue.cancel(order_id=1).job_id == first.job_id
    job = fleet.ends(1)[1]
    assert (job["outcome"], job["attempts"], job["joiners"]) == ("canceled", 2, 1)
    first_post, second_post = fleet.attempts(1)
    assert second_post["sent_at"] - first_post["sent_at"] < timedelta(
        seconds=4
    )  # not only when patience is over
    armed, now = fleet.exchange.requests()
    assert ("activationTime" in armed["body"], "activationTime" in now["body"]) == (True, False)


def test_a_joiner_who_wants_it_now_is_heard_while_the_armed_cancel_is_on_the_wire(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.add_orders(1)
    plain_fleet.exchange.script(1, {"delay": 1})
    plain_fleet.start()
    queue = plain_fleet.queue()
    queue.cancel(order_id=1, activation_time=LATER)
    plain_fleet.exchange.wait_for_posts(1)
    assert queue.cancel(order_id=1).status == "joined"
    job = plain_fleet.ends(1)[1]
    assert (job["outcome"], job["attempts"], job["joiners"]) == ("canceled", 2, 1)


def test_a_joiner_who_wants_it_later_changes_nothing(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.add_orders(1)
    plain_fleet.start()
    queue = plain_fleet.queue()
    queue.cancel(order_id=1, activation_time=SOON)
    eventually(lambda: queue.status(order_id=1)["state"] == "confirming", what="the armed cancel")
    assert queue.cancel(order_id=1, activation_time=LATER).status == "joined"
    job = plain_fleet.ends(1)[1]
    assert (job["outcome"], job["attempts"], job["joiners"]) == ("canceled", 1, 1)


def test_after_the_end_is_decided_a_request_is_a_new_job(plain_fleet: Fleet) -> None:
    plain_fleet.exchange.add_orders(1)
    plain_fleet.start()
    queue = plain_fleet.queue()
    first = queue.cancel(order_id=1)
    plain_fleet.ends(1)
    second = queue.cancel(order_id=1)
    assert (second.status, second.job_id != first.job_id) == ("accepted", True)
    assert plain_fleet.wait_for_end(str(second.job_id))["outcome"] == "canceled"
