"""When an order of a mass cancel wants another cancel, when it is left, and what is said of it."""

from datetime import timedelta
from typing import Any

import pytest

from worker.exchange.listing import Listed
from worker.job import OrderId
from worker.work.mass_order import MOST_TRIES, SETTLE, First, MassOrder, Try

ENDED = timedelta(seconds=100)
SOON, LATER = ENDED + SETTLE / 2, ENDED + SETTLE


def listed(status: str = "Working") -> Listed:
    return Listed(order_id=OrderId(1), status=status, is_open=status == "Working", links={})


def a_try(outcome: str | None = "canceled", **facts: Any) -> Try:
    known = {"jobId": "j", "outcome": outcome, "evidence": "order_read Canceled", "state": "done"}
    return Try(request_id="r", fate="accepted", job_id="j", **{"known": known, "ended_at": ENDED, **facts})


def an_order(*tries: Try, seen: Listed | None) -> MassOrder:
    first = First(at="t", round=1, status="Working")
    return MassOrder(order_id=OrderId(1), first=first, looked=True, listed=seen, tries=list(tries))


def test_an_order_without_a_cancel_wants_one_even_if_the_list_has_lost_it() -> None:
    assert an_order(seen=listed()).wants_job(SOON)
    assert an_order(seen=None).wants_job(SOON)


def test_a_list_may_be_late_by_a_moment() -> None:
    order = an_order(a_try(), seen=listed())
    order.notice(SOON)
    assert not order.wants_job(SOON)
    assert not order.is_stuck(SOON)
    assert order.contradictions == []


def test_a_proven_end_that_the_list_contradicts_is_told_once_and_tried_again() -> None:
    order = an_order(a_try(), seen=listed())
    order.notice(LATER)
    order.notice(LATER)
    assert order.contradictions == ["listed as Working after job j had ended canceled by order_read Canceled"]
    assert order.wants_job(LATER)


def test_after_the_third_contradiction_a_person_is_needed() -> None:
    order = an_order(*(a_try() for _ in range(MOST_TRIES)), seen=listed())
    order.notice(LATER)
    assert not order.wants_job(LATER)
    assert order.is_stuck(LATER)
    assert order.why_left().endswith("a contradiction")


def test_a_bad_end_is_an_answer_and_not_tried_again() -> None:
    order = an_order(a_try("unresolved"), seen=listed())
    assert not order.wants_job(LATER)
    assert order.is_stuck(SOON)


@pytest.mark.parametrize(
    ("outcome", "left"), [("canceled", False), ("filled", False), ("unresolved", True), ("accepted", True)]
)
def test_an_order_that_the_list_lacks_is_left_unless_its_end_was_proven(outcome: str, left: bool) -> None:  # noqa: FBT001
    order = an_order(a_try(outcome), seen=None)
    assert (order.is_left, order.is_stuck(LATER)) == (left, left)
    assert order.why_left().startswith("not in the exchange's list; ") is left


def test_an_end_in_the_list_outweighs_a_cancel_that_proved_nothing() -> None:
    assert not an_order(a_try("unresolved"), seen=listed("Filled")).is_left


def test_a_running_cancel_is_waited_for() -> None:
    order = an_order(a_try(None, ended_at=None), seen=listed())
    assert not order.is_stuck(LATER)
    assert "is still open" in order.why_left()


def test_a_job_that_nobody_remembers_is_asked_for_anew() -> None:
    assert an_order(a_try(known={}), seen=listed()).wants_job(SOON)


def test_a_cancel_that_was_not_taken_says_why() -> None:
    order = an_order(Try(request_id="r", fate="refused", error="draining"), seen=listed())
    assert order.is_stuck(LATER)
    assert order.why_left() == "listed as Working; its cancel was not taken: draining"
