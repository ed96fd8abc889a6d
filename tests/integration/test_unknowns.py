"""A lost answer, through a real worker: what is asked, what is kept of it, and how long nobody knew."""

from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet
from tests.parts.ledger import NO_TIME
from worker.clock import utc_now


def test_a_lost_answer_is_found_among_the_orders_commands_and_has_its_time(plain_fleet: Fleet) -> None:
    fleet, exchange = plain_fleet, plain_fleet.exchange
    late = {"reads": [{"of": "order", "shows": {"ordStatus": "Working"}, "repeat": 3}]}
    exchange.add_orders({"id": 1, **late}, {"id": 2, **late}, 3)
    for order in (1, 2):
        exchange.script(order, {"drop": "after"})
    exchange.script(3, {"drop": "before"})
    fleet.fork().when_ready()
    jobs = {
        order: fleet.queue().cancel(order_id=order, **({"cl_ord_id": "mine"} if order == 2 else {}))
        for order in (1, 2, 3)
    }
    ends = fleet.ends(3)
    assert {row["outcome"] for row in ends.values()} == {"canceled"}
    assert [len(exchange.requests(order)) for order in jobs] == [1, 1, 2]
    read = {
        order: [
            row
            for row in fleet.table("reads")
            if str(row["job_id"]) == jobs[order].job_id and row["kind"] == "command"
        ]
        for order in jobs
    }
    assert [(row[0]["found"], row[0]["status"] is not None) for row in read.values()] == [
        (True, True),
        (True, True),
        (False, False),
    ]


def test_a_command_of_an_earlier_cancel_under_the_same_label_is_not_taken_for_this_one(
    plain_fleet: Fleet,
) -> None:
    """The earlier one was rejected; a person has mended that and asked again, and the POST was lost."""
    fleet, exchange = plain_fleet, plain_fleet.exchange
    exchange.add_orders(1)
    exchange.script(1, {"late_reject": "TradingLocked", "quiet": True}, {"drop": "before"})
    fleet.fork().when_ready()
    first = fleet.queue().cancel(order_id=1, cl_ord_id="mine").job_id
    assert fleet.wait_for_end(str(first))["evidence"] == "command_report TradingLocked"
    second = fleet.queue().cancel(order_id=1, cl_ord_id="mine").job_id
    end = fleet.wait_for_end(str(second))
    assert (end["outcome"], end["attempts"]) == ("canceled", 2)


def test_the_ledger_tells_since_when_an_answer_is_missing(plain_fleet: Fleet) -> None:
    fleet, exchange = plain_fleet, plain_fleet.exchange
    exchange.add_orders({"id": 1, "reads": [{"status": 500, "repeat": 4}]})
    exchange.script(1, {"drop": "after"})
    fleet.fork().when_ready()
    before = utc_now()
    fleet.queue().cancel(order_id=1)
    ledger = fleet.ledger_client()
    since = eventually(lambda: ledger.sweep(NO_TIME).oldest_unknown, what="an unknown")
    assert before < since < utc_now()
    fleet.ends(1)
    assert ledger.sweep(NO_TIME).oldest_unknown is None
