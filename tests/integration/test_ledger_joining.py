"""A second wish for an order whose cancel is open joins it, and the widest wish wins."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from tests.parts.cancels import record
from tests.parts.ledger import NO_TIME, Door, claim, claimed_ids, closing, finish, settlement
from worker.audit.facts import job_fact, request_fact
from worker.audit.surface import rows
from worker.clock import from_micros, to_micros
from worker.job import ClaimId, Outcome, Priority, Step
from worker.ledger.client import Ledger

EARLY, LATE = "2031-01-01T00:00:00Z", "2032-01-01T00:00:00Z"


def test_a_second_request_joins_the_open_job_and_is_recorded(door: Door, ledger: Ledger) -> None:
    first = door.enqueue(1, account="A")
    second = door.enqueue(1, account="A", requestedBy="risk", priority="urgent", deadline=60, requestId="r-2")
    assert (second["status"], second["jobId"]) == ("joined", first["jobId"])
    claim(ledger)
    joiner = ledger.close([closing(first["jobId"])])[0][0]  # type: ignore[index]
    assert (joiner.request_id, joiner.requested_by, joiner.priority) == ("r-2", "risk", Priority.URGENT)
    assert joiner.deadline is not None
    assert joiner.deadline - joiner.requested_at == timedelta(seconds=60)


def test_another_account_with_the_same_order_id_is_another_order(door: Door) -> None:
    assert door.enqueue(1, account="A")["jobId"] != door.enqueue(1, account="B")["jobId"]


@pytest.mark.parametrize(
    ("first", "second", "widest"),
    [
        ({"deadline": 10}, {"deadline": 60}, 60),
        ({"deadline": 60}, {"deadline": 10}, 60),
        ({"deadline": 60}, {}, None),
        ({}, {"deadline": 60}, None),
    ],
)
def test_the_latest_deadline_wins(door: Door, first: dict, second: dict, widest: int | None) -> None:
    job_id = door.enqueue(1, **first)["jobId"]
    door.enqueue(1, **second)
    deadline = door.job(job_id).get("deadline")
    left = None if deadline is None else from_micros(int(deadline)) - datetime.now(UTC)
    assert (left is None) == (widest is None)
    assert left is None or abs(left - timedelta(seconds=widest or 0)) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("first", "second", "widest"),
    [
        ({"activationTime": LATE}, {"activationTime": EARLY}, EARLY),
        ({"activationTime": EARLY}, {"activationTime": LATE}, EARLY),
        ({"activationTime": EARLY}, {}, None),
        ({}, {"activationTime": EARLY}, None),
    ],
)
def test_the_earliest_activation_wins(door: Door, first: dict, second: dict, widest: str | None) -> None:
    job_id = door.enqueue(1, **first)["jobId"]
    door.enqueue(1, **second)
    stored = door.job(job_id).get("activation_time")
    assert (stored and from_micros(int(stored))) == (widest and datetime.fromisoformat(widest))


@pytest.mark.parametrize("joined", [True, False])
def test_who_joins_an_armed_cancel_while_it_is_in_hand_is_heard(
    door: Door, ledger: Ledger, *, joined: bool
) -> None:
    """Its holder knew only the later time, and gives it back until then."""
    held = door.enqueue(1, activationTime=EARLY)["jobId"]
    claim(ledger)
    if joined:
        assert door.enqueue(1)["jobId"] == held
    known = str(to_micros(datetime.fromisoformat(EARLY)))
    back = settlement(held, step=Step.CONFIRM, delay=timedelta(hours=1))
    door.redis.delete(door.key("bells"))
    assert ledger.settle([replace(back, activation=known)]) == [True]
    assert door.redis.llen(door.key("bells")) == joined
    assert claimed_ids(ledger, "claim-2") == ([held] if joined else [])


def test_the_first_requests_other_fields_are_sent(door: Door, ledger: Ledger) -> None:
    door.enqueue(1, clOrdId="first", isAutomated=False)
    door.enqueue(1, clOrdId="second", requestedBy="second")
    request = claim(ledger).jobs[0].request
    assert (request.cl_ord_id, request.is_automated, request.requested_by) == ("first", False, None)


def test_an_urgent_joiner_moves_a_waiting_job_up(door: Door, ledger: Ledger) -> None:
    early, late = door.enqueue(1)["jobId"], door.enqueue(2)["jobId"]
    door.enqueue(2, priority="urgent")
    assert door.places(late) == {"urgent"}
    assert claimed_ids(ledger) == [late, early]


def test_a_normal_joiner_takes_no_urgency_away(door: Door) -> None:
    job_id = door.enqueue(1, priority="urgent")["jobId"]
    door.enqueue(1, priority="normal")
    assert door.job(job_id)["priority"] == "urgent"
    assert door.places(job_id) == {"urgent"}


def test_an_urgent_joiner_of_a_claimed_job_counts_from_its_next_parking(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger)
    door.enqueue(1, priority="urgent")
    assert door.places(job_id) == {"leases"}
    ledger.settle([settlement(job_id)])
    assert door.places(job_id) == {"urgent"}


def test_an_urgent_joiner_leaves_a_job_that_is_being_confirmed_where_it_is(
    door: Door, ledger: Ledger
) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger)
    ledger.settle([settlement(job_id, step=Step.CONFIRM)])
    door.enqueue(1, priority="urgent")
    assert door.places(job_id) == {"confirm"}


def test_joining_rings_for_work_that_is_due(door: Door) -> None:
    door.enqueue(1)
    door.redis.delete(door.key("bells"))
    door.enqueue(1)
    assert len(door.bells()) == 1


def test_joining_a_parked_job_keeps_its_time_and_rings_nobody(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    claim(ledger)
    ledger.settle([settlement(job_id, delay=timedelta(minutes=1))])
    door.redis.delete(door.key("bells"))
    door.enqueue(1, priority="urgent")
    assert door.bells() == []
    assert claimed_ids(ledger, "claim-2") == []


def test_an_order_is_free_once_its_end_is_decided(door: Door, ledger: Ledger) -> None:
    first = door.enqueue(1)["jobId"]
    claim(ledger)
    ledger.close([closing(first)])
    second = door.enqueue(1)
    assert (second["status"], second["jobId"] != first) == ("accepted", True)
    assert finish(ledger, first)
    assert door.status(orderId=1)["jobId"] == second["jobId"]
    assert door.redis.ttl(door.key("order:1:default")) == -1


def test_joiners_are_frozen_when_the_end_is_decided(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1)["jobId"]
    door.enqueue(1)
    claim(ledger)
    assert len(ledger.close([closing(job_id)])[0] or ()) == 1
    door.enqueue(1)
    assert len(ledger.close([closing(job_id)])[0] or ()) == 1


def test_a_thousand_joiners_are_enough(door: Door) -> None:
    job_id = door.enqueue(1)["jobId"]
    door.redis.rpush(door.key(f"joiners:{job_id}"), *["{}"] * 1000)
    reply = door.enqueue(1, requestId="r")
    assert (reply["status"], reply["requestId"]) == ("refused", "r")
    assert "1000" in reply["error"]


def test_a_joiner_keeps_its_job_on_the_audits_list(door: Door, ledger: Ledger) -> None:
    door.enqueue(1)
    ((job, joiners),) = ledger.unregistered(10, timedelta(0))
    door.enqueue(1)
    ledger.registered([(job.id, len(joiners))], shared=True)
    ((_, joiners),) = ledger.unregistered(10, timedelta(0))
    ledger.registered([(job.id, len(joiners))], shared=True)
    assert ledger.unregistered(10, timedelta(0)) == []


def test_only_what_is_old_enough_is_told_to_the_audit(door: Door, ledger: Ledger) -> None:
    door.enqueue(1)
    assert ledger.unregistered(10, timedelta(minutes=1)) == []
    assert len(ledger.unregistered(10, timedelta(0))) == 1


def test_a_joiner_text_is_json_that_any_language_reads(door: Door) -> None:
    job_id = door.enqueue(1)["jobId"]
    door.enqueue(1, requestId='a"b\\', requestedBy="é")
    (text,) = door.redis.lrange(door.key(f"joiners:{job_id}"), 0, -1)
    joiner = json.loads(text)
    assert (joiner["request_id"], joiner["requested_by"], joiner["deadline"]) == ('a"b\\', "é", None)


def test_the_audit_tells_each_wish_as_it_was_made_and_the_work_follows_the_widest(
    door: Door, ledger: Ledger, audit_engine: Engine
) -> None:
    job_id = door.enqueue(1, requestId="first", deadline=60, activationTime=LATE)["jobId"]
    told = from_micros(int(door.job(job_id)["deadline"]))
    door.enqueue(1, requestId="second", priority="urgent")
    door.enqueue(1, requestId="third", deadline=90)
    ((job, joiners),) = ledger.unregistered(10, timedelta(0))
    record(audit_engine, job_fact(job), *(request_fact(job.id, joiner) for joiner in joiners))
    wishes = {row["request_id"]: row for row in rows(audit_engine, "audit_requests")}
    assert (wishes["first"]["priority"], wishes["first"]["deadline"]) == ("normal", told)
    assert (wishes["second"]["priority"], wishes["second"]["deadline"]) == ("urgent", None)
    assert job_fact(job).values["activation_time"] == datetime.fromisoformat(LATE)
    worked = claim(ledger).jobs[0].request
    assert (worked.priority, worked.deadline, worked.activation_time) == (Priority.URGENT, None, None)


def test_a_joiner_that_widens_nothing_leaves_the_job_as_it_is(door: Door) -> None:
    job_id = door.enqueue(1)["jobId"]
    door.enqueue(1, deadline=60)
    assert "first_priority" not in door.job(job_id)


def test_a_job_that_is_given_more_time_while_its_end_is_decided_comes_back(
    door: Door, ledger: Ledger
) -> None:
    job_id = door.enqueue(1, deadline=0)["jobId"]
    (held,) = claim(ledger).jobs
    assert door.enqueue(1)["status"] == "joined"
    unresolved = replace(closing(job_id), outcome=Outcome.UNRESOLVED, deadline=held.request.deadline)
    assert ledger.close([unresolved]) == [None]
    assert door.status(jobId=job_id)["state"] != "closing"
    assert ledger.sweep(NO_TIME).lapsed == 1
    (again,) = claim(ledger, "claim-2").jobs
    assert (again.step, again.request.deadline) == (Step.RECONCILE, None)
    assert ledger.close([replace(unresolved, claim=ClaimId("claim-2"), deadline=None)]) != [None]


def test_more_time_changes_nothing_about_an_end_that_was_seen(door: Door, ledger: Ledger) -> None:
    job_id = door.enqueue(1, deadline=0)["jobId"]
    (held,) = claim(ledger).jobs
    door.enqueue(1)
    assert ledger.close([replace(closing(job_id), deadline=held.request.deadline)]) != [None]
