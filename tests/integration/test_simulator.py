"""The exchange simulator, asked over real sockets."""

import json

import pytest

from tests.parts.exchange import eventually

LATE = {"failureReason": "TooLate"}


def status_of(exchange, order_id):
    return exchange.get(f"/order/item?id={order_id}")[1]["ordStatus"]


def commands_of(exchange, order_id):
    rows = exchange.get(f"/command/deps?masterid={order_id}")[1]
    return [row for row in rows if row["commandType"] == "Cancel"]


def reports_of(exchange, command_id):
    return exchange.get(f"/commandReport/deps?masterid={command_id}")[1]


# what a cancel does


def test_a_working_order_is_canceled_and_its_command_can_be_read(exchange):
    exchange.add_orders(1, account="A", contractId=7, ocoId=2)
    status, said = exchange.post(1, clOrdId="cq-1", isAutomated=True)
    order = exchange.get("/order/item?id=1")[1]
    [command] = commands_of(exchange, 1)
    assert (status, said) == (200, {"commandId": command["id"]})
    assert (order["ordStatus"], order["contractId"], order["ocoId"]) == ("Canceled", 7, 2)
    assert (command["clOrdId"], command["isAutomated"], command["orderId"]) == ("cq-1", True, 1)
    assert exchange.get(f"/command/item?id={command['id']}")[1] == command
    assert [r["commandStatus"] for r in reports_of(exchange, command["id"])] == ["RiskPassed", "AtExecution"]


def test_truth_and_requests_tell_what_happened(exchange):
    exchange.add_orders(1, 2)
    command_id = exchange.post(1)[1]["commandId"]
    truth, [seen] = exchange.truth(), exchange.requests()
    assert truth[1]["posts"] == truth[1]["max_in_flight"] == 1
    assert truth[1]["cancel_effect"]
    assert not truth[1]["pending"]
    assert truth[1]["command_ids"] == [command_id] == [seen["command_id"]]
    assert truth[1]["first_post"] == seen["at"] <= seen["answered_at"]
    assert (truth[2]["posts"], truth[2]["first_post"], truth[2]["ordStatus"]) == (0, None, "Working")
    assert (json.loads(seen["body"]), seen["fate"], seen["status"]) == ({"orderId": 1}, "answered", 200)
    assert exchange.requests(since=seen["seq"]) == []


@pytest.mark.parametrize("status", ["Canceled", "Completed", "Expired", "Filled", "Rejected"])
def test_an_ended_order_takes_no_cancel(exchange, status):
    exchange.add_orders(1, ordStatus=status)
    assert exchange.post(1)[1].items() >= LATE.items()
    assert exchange.truth()[1]["ordStatus"] == status


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("Suspended", None),
        ("PendingNew", "AnotherCommandPending"),
        ("PendingReplace", "AnotherCommandPending"),
        ("Unknown", "UnknownReason"),
    ],
)
def test_an_open_order_that_does_not_work_answers_by_its_state(exchange, status, reason):
    exchange.add_orders(1, ordStatus=status)
    assert exchange.post(1)[1].get("failureReason") == reason


def test_a_second_cancel_while_one_is_pending_is_refused_for_now(exchange):
    exchange.add_orders(1, settle=60)
    exchange.post(1)
    assert exchange.post(1)[1]["failureReason"] == "AnotherCommandPending"
    assert status_of(exchange, 1) == "PendingCancel"
    assert exchange.truth()[1]["pending"]
    assert len(commands_of(exchange, 1)) == 1


@pytest.mark.parametrize(("order_id", "status"), [(404, 404), ("1", 400), (True, 400), (0, 400), (None, 400)])
def test_an_order_that_is_not_there_is_said_so(exchange, order_id, status):
    assert exchange.post(order_id)[0] == status
    assert len(exchange.requests()) == 1


def test_ids_beyond_what_a_double_holds_stay_exact(exchange):
    exchange.add_orders(2**63 - 1)
    exchange.post(2**63 - 1)
    assert exchange.get(f"/order/item?id={2**63 - 1}")[1]["id"] == 2**63 - 1
    assert exchange.truth()[2**63 - 1]["cancel_effect"]


def test_a_partly_filled_order_ends_canceled_with_its_fills(exchange):
    exchange.script(1, {"partial_fill": 3}, qty=10)
    exchange.post(1)
    row = exchange.truth()[1]
    assert (row["ordStatus"], row["filled_qty"]) == ("Canceled", 3)
    assert [fill["qty"] for fill in exchange.get("/fill/deps?masterid=1")[1]] == [3]


def test_an_event_ends_an_order_by_itself(exchange):
    exchange.add_orders(1, events=[{"after": 0.05, "fill": 1}, {"after": 0.1, "ordStatus": "Filled"}])
    exchange.wait_for(1, ordStatus="Filled", filled_qty=4, pending=False)


def test_a_planned_event_changes_nothing_yet(exchange):
    exchange.add_orders(1, ordStatus="Suspended", events=[{"after": 60, "ordStatus": "Working"}])
    assert exchange.truth()[1].items() >= {"ordStatus": "Suspended", "pending": True}.items()


def test_a_fill_that_comes_before_the_cancel_wins(exchange):
    exchange.add_orders(1, settle=60)
    command_id = exchange.post(1)[1]["commandId"]
    exchange.script(1, events=[{"ordStatus": "Filled"}])
    row = exchange.truth()[1]
    assert row.items() >= {"ordStatus": "Filled", "cancel_effect": False, "pending": False}.items()
    assert reports_of(exchange, command_id)[-1]["rejectReason"] == "TooLate"


def test_a_scheduled_cancel_waits_for_its_time(exchange):
    exchange.add_orders(1)
    assert "commandId" in exchange.post(1, activationTime="2099-01-01T00:00:00Z")[1]
    row = exchange.truth()[1]
    assert (row["ordStatus"], row["cancel_effect"], row["pending"]) == ("Working", False, True)


def test_an_unlucky_cancel_is_accepted_and_the_order_filled(exchange):
    exchange.script(1, {"fill_after": True})
    command_id = exchange.post(1)[1]["commandId"]
    assert exchange.truth()[1].items() >= {"ordStatus": "Filled", "cancel_effect": False}.items()
    assert reports_of(exchange, command_id)[-1]["rejectReason"] == "TooLate"


def test_an_order_that_fills_first_is_too_late_to_cancel(exchange):
    exchange.script(1, {"fill_first": True})
    assert exchange.post(1)[1].items() >= LATE.items()
    assert exchange.truth()[1]["ordStatus"] == "Filled"


def test_a_late_reject_leaves_the_order_working(exchange):
    exchange.script(1, {"late_reject": "RiskCheckTimeout"})
    command_id = exchange.post(1)[1]["commandId"]
    last = reports_of(exchange, command_id)[-1]
    assert (last["commandStatus"], last["rejectReason"]) == ("ExecutionRejected", "RiskCheckTimeout")
    assert status_of(exchange, 1) == "Working"
    assert exchange.post(1)[1]["commandId"] > command_id
    assert exchange.truth()[1]["cancel_effect"]


# what is read, and when


def test_reads_lag_and_writes_do_not(exchange):
    exchange.add_orders(1, read_lag=60)
    command_id = exchange.post(1)[1]["commandId"]
    assert status_of(exchange, 1) == "Working"
    assert commands_of(exchange, 1) == []
    assert reports_of(exchange, command_id) == []
    assert exchange.get(f"/command/item?id={command_id}")[0] == 404
    assert exchange.truth()[1]["ordStatus"] == "Canceled"
    assert exchange.post(1)[1].items() >= LATE.items()


def test_what_was_hidden_by_the_lag_is_shown_after_it_in_order(exchange):
    exchange.add_orders(1, read_lag=0.2, settle=0.1)
    exchange.post(1)
    shown = []
    eventually(lambda: shown.append(status_of(exchange, 1)) or shown[-1] == "Canceled")
    assert shown == sorted(shown, key=["Working", "PendingCancel", "Canceled"].index)


def test_items_may_miss_some_and_lists_go_by_account(exchange):
    exchange.add_orders({"from": 1, "count": 3, "account": "A"}, {"id": 9, "account": "B"})
    [a, b] = exchange.get("/account/list")[1]
    items = exchange.get("/order/items?ids=1,9,404")[1]
    assert [row["id"] for row in items] == [1, 9]
    assert (a["name"], b["name"]) == ("A", "B")
    assert [row["id"] for row in exchange.get(f"/order/deps?masterid={b['id']}")[1]] == [9]
    assert len(exchange.get("/order/list")[1]) == 4
    assert exchange.get("/order/item?id=x")[0] == 400


def test_a_thousand_ids_fit_into_one_read(exchange):
    exchange.add_orders({"from": 10**15, "count": 1000})
    ids = ",".join(str(10**15 + i) for i in range(1000))
    assert len(exchange.get(f"/order/items?ids={ids}")[1]) == 1000


def test_reads_fail_as_scripted(exchange):
    reads = [{"status": 500}, {"not_found": 2}, {"reply": {"id": 1}}, {"of": "report", "status": 429}]
    exchange.script(1, reads=reads)
    asked = [exchange.get("/order/item?id=1") for _ in range(4)]
    assert [status for status, _ in asked] == [500, 404, 404, 200]
    assert asked[-1][1] == {"id": 1}
    command_id = exchange.post(1)[1]["commandId"]
    assert exchange.get(f"/commandReport/ldeps?masterids={command_id}")[0] == 429
    assert len(exchange.get(f"/commandReport/ldeps?masterids={command_id},1")[1]) == 2


def test_a_missing_order_is_left_out_of_the_batch(exchange):
    exchange.add_orders(1, 2)
    exchange.script(1, reads=[{"not_found": True}])
    assert [row["id"] for row in exchange.get("/order/items?ids=1,2")[1]] == [2]


# what is answered


@pytest.mark.parametrize(
    ("step", "status", "said"),
    [
        ({"reply": {}}, 200, {}),
        ({"reply": {"errorText": "no", "ok": False}}, 200, {"errorText": "no", "ok": False}),
        ({"reply": {"violations": [{"constraint": "x"}]}}, 200, {"violations": [{"constraint": "x"}]}),
        ({"reason": "Odd", "failure_text": ""}, 200, {"failureReason": "Odd", "failureText": ""}),
        ({"text": "<html>"}, 200, "<html>"),
        ({"status": 502, "text": "bad gateway"}, 502, "bad gateway"),
        ({"status": 307, "location": "/v1/order/item"}, 307, ""),
        ({"location": "http://127.0.0.1:1/"}, 302, ""),
        ({"status": 429}, 429, ""),
        ({"status": 423}, 423, ""),
        ({"status": 408}, 408, ""),
        ({"status": 403}, 403, ""),
        ({"status": 401}, 401, "Access is denied"),
    ],
)
def test_a_scripted_answer_comes_as_written_and_cancels_nothing(exchange, step, status, said):
    exchange.script(1, step)
    assert exchange.post(1) == (status, said)
    assert exchange.truth()[1]["ordStatus"] == "Working"
    assert "commandId" in exchange.post(1)[1]


def test_a_500_names_an_error_id(exchange):
    exchange.script(1, {"status": 500})
    status, text = exchange.post(1)
    assert status == 500
    assert text.startswith("Internal Server Error, error id: ")


def test_a_reason_can_hide_a_cancel_that_was_done(exchange):
    exchange.script(1, {"reason": "UnknownReason", "effect": True, "with_command": True})
    said = exchange.post(1)[1]
    assert (said["failureReason"], said["commandId"]) == ("UnknownReason", commands_of(exchange, 1)[0]["id"])
    assert exchange.truth()[1]["cancel_effect"]


def test_a_500_can_come_after_the_cancel(exchange):
    exchange.script(1, {"status": 500, "effect": "before"})
    assert exchange.post(1)[0] == 500
    assert exchange.truth()[1]["cancel_effect"]


def test_a_500_can_come_before_the_cancel(exchange):
    exchange.script(1, {"status": 500, "effect": "after", "effect_delay": 60})
    exchange.script(2, {"status": 500, "effect": "after", "effect_delay": 0})
    assert [exchange.post(order_id)[0] for order_id in (1, 2)] == [500, 500]
    exchange.wait_for(2, cancel_effect=True, pending=False)
    assert exchange.truth()[1].items() >= {"cancel_effect": False, "pending": True}.items()


def test_steps_are_repeated_as_often_as_said(exchange):
    exchange.script(1, {"reason": "RiskCheckTimeout", "repeat": 2}, {"status": 403, "repeat": True})
    assert [exchange.post(1)[0] for _ in range(5)] == [200, 200, 403, 403, 403]


def test_a_penalty_ends_with_its_ticket_and_the_same_body_only(exchange):
    exchange.script(1, {"p-ticket": "t", "p-time": 0})
    ticket = {"p-ticket": "t"}
    first, without, other = exchange.post(1), exchange.post(1), exchange.post(1, clOrdId="x", **ticket)
    assert first == without == other == (200, {"p-ticket": "t", "p-time": 0})
    assert "commandId" in exchange.post(1, clOrdId="x", **ticket)[1]


def test_a_penalty_with_captcha_or_too_early_goes_on(exchange):
    exchange.script(1, {"p-ticket": "t", "p-time": 60, "p-captcha": True})
    said = [exchange.post(1, **fields)[1] for fields in ({}, {"p-ticket": "t"})]
    assert said == [{"p-ticket": "t", "p-time": 60, "p-captcha": True}] * 2
    assert exchange.truth()[1]["ordStatus"] == "Working"


# what a read shows instead


def test_a_read_can_show_an_order_changed_or_twice(exchange):
    canceled = {"ordStatus": "Canceled", "admin": None}
    exchange.add_orders(
        {"id": 1, "reads": [{"shows": canceled}, {"shows": [{}, {"ordStatus": "Filled"}]}]}, 2
    )
    [first, other] = exchange.get("/order/items?ids=1,2")[1]
    rows = exchange.get("/order/items?ids=1,2")[1]
    assert (first["ordStatus"], "admin" in first, other["ordStatus"]) == ("Canceled", False, "Working")
    assert [(row["id"], row["ordStatus"]) for row in rows] == [(1, "Working"), (1, "Filled"), (2, "Working")]
    assert status_of(exchange, 1) == "Working"


def test_a_fill_can_be_shown_as_taken_back(exchange):
    exchange.add_orders({"id": 1, "filled": 2, "reads": [{"of": "fill", "shows": {"active": False}}]})
    [first], [second] = (exchange.get("/fill/ldeps?masterids=1")[1] for _ in range(2))
    assert (first["active"], second["active"], first["qty"]) == (False, True, 2)


def test_a_quiet_late_reject_is_seen_in_the_report_only(exchange):
    exchange.script(1, {"late_reject": "TradingLocked", "quiet": True, "settle": 60})
    command_id = exchange.post(1)[1]["commandId"]
    assert (status_of(exchange, 1), reports_of(exchange, command_id)) == ("Working", [])
    exchange.script(2, {"late_reject": "TradingLocked", "quiet": True})
    [report] = reports_of(exchange, exchange.post(2)[1]["commandId"])
    assert (report["rejectReason"], report["commandStatus"], status_of(exchange, 2)) == (
        "TradingLocked",
        "ExecutionRejected",
        "Working",
    )


def test_what_a_read_shows_must_be_an_object(exchange):
    status, said = exchange._ask("POST", "/sim/orders", [{"id": 1, "reads": [{"shows": []}]}])
    assert (status, "shows" in said["error"]) == (400, True)


def test_an_order_that_is_placed_later_is_unknown_until_then(exchange):
    exchange.add_orders({"from": 1, "count": 3, "every": 0.2}, {"id": 9, "after": 3600}, account="A")
    assert exchange.get("/order/item?id=9")[0] == exchange.post(9)[0] == 404
    assert 9 not in exchange.truth()
    ids = eventually(
        lambda: found if len(found := listed(exchange)) == 3 else None, what="the last of the three"
    )
    assert ids == [1, 2, 3]


def listed(exchange) -> list[int]:
    return [row["id"] for row in exchange.get("/order/deps?masterid=1001")[1]]


def test_a_step_spoils_the_next_list_of_orders(exchange):
    exchange.add_orders(1)
    exchange.lists({"status": 404}, {"reply": []})
    assert [exchange.get("/order/list")[0], listed(exchange), listed(exchange)] == [404, [], [1]]


def test_a_contract_is_found_by_its_name(exchange):
    exchange.contracts(ESZ6=3001)
    assert exchange.get("/contract/find?name=ESZ6") == (200, {"id": 3001, "name": "ESZ6"})
    assert exchange.get("/contract/find?name=NQZ6")[0] == 404
