"""One order that spoils the answer for all costs the others nothing; an exchange that is down is not asked more for it."""

import pytest

from tests.parts.cancels import at
from tests.parts.fleet import Fleet
from worker.exchange.apart import read_apart
from worker.exchange.client import OrdersRead
from worker.job import OrderId
from worker.reply import Answered, Reply, Unanswered

ORDERS = [OrderId(n) for n in range(1, 101)]


def answer(status: int) -> Reply:
    return Answered(status=status, body=b"", sent_at=at(0), answered_at=at(1))


class Exchange:
    """Answers as one would whose list fails with any of `poison` in it."""

    def __init__(self, *poison: int, bad: Reply) -> None:
        self.poison, self.bad = set(poison), bad
        self.asked: list[int] = []

    def read(self, ids: list[OrderId]) -> OrdersRead:
        self.asked.append(len(ids))
        if self.poison & set(ids):
            return OrdersRead(reply=self.bad, found={}, conclusive=False)
        return OrdersRead(reply=answer(200), found={order: [{"id": order}] for order in ids}, conclusive=True)


@pytest.mark.parametrize("status", [404, 500, 200])
def test_an_order_that_spoils_the_list_is_found_by_halves(status: int) -> None:
    exchange = Exchange(42, bad=answer(status))
    told = read_apart(exchange.read, ORDERS)
    assert {order for order, read in told.items() if not read.conclusive} == {42}
    assert set(told) == set(ORDERS)
    assert len(exchange.asked) <= 16


def test_an_exchange_that_is_down_is_asked_three_times() -> None:
    exchange = Exchange(*ORDERS, bad=answer(503))
    told = read_apart(exchange.read, ORDERS)
    assert not any(read.conclusive for read in told.values())
    assert exchange.asked == [100, 50, 50]


@pytest.mark.parametrize(
    "bad", [answer(401), answer(429), Unanswered(error="timeout", sent_at=None, ended_at=at(1))]
)
def test_what_is_no_orders_fault_is_not_asked_again(bad: Reply) -> None:
    exchange = Exchange(42, bad=bad)
    read_apart(exchange.read, ORDERS)
    assert exchange.asked == [100]


def test_two_that_spoil_are_told_apart_by_a_later_round() -> None:
    exchange = Exchange(7, 93, bad=answer(500))
    # One round in twenty has both in one group until that is small: sixty rounds had none in three runs of a hundred.
    rounds = [read_apart(exchange.read, ORDERS) for _ in range(600)]
    assert any(
        all(read.conclusive for order, read in told.items() if order not in {7, 93}) for told in rounds
    )


def test_an_order_whose_reads_fail_takes_no_other_with_it(fleet: Fleet) -> None:
    fleet.exchange.add_orders(*range(1, 21))
    fleet.exchange.script(1, reads=[{"status": 500, "repeat": True}])
    fleet.start(retry_budget="4", confirm_budget="4")
    fleet.queue().cancel_many([{"order_id": n} for n in range(1, 21)])
    jobs = fleet.ends(20)
    assert {jobs[n]["outcome"] for n in range(2, 21)} == {"canceled"}
    assert (jobs[1]["outcome"], jobs[1]["evidence"]) == ("unresolved", "unproven")
