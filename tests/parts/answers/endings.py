"""What the order's reads show: reports, fills, an order that is missing, another's, or contradicts itself."""

from tests.parts.answers.case import (
    ACCEPTED,
    AMBIGUOUS,
    REFUSED,
    TRANSIENT,
    Case,
    refused,
    repeated,
    settled,
    unresolved,
)

LATE = {"reason": "TooLate"}
DONE = {"status": 500, "effect": "before"}  # canceled, and nothing but a read can tell
LOCKED = {"late_reject": "TradingLocked"}
WORKING = {"ordStatus": "Working"}
OLDER = {"rejectReason": "TradingLocked", "timestamp": "2020-01-01T00:00:00.000Z"}
NEWER = {"rejectReason": "RiskCheckTimeout", "timestamp": "2099-01-01T00:00:00.000Z"}
NEVER = [{"not_found": True}]


def shows(*rows: dict, repeat: int | bool = 1) -> dict:
    """The order's next reads show this instead."""
    return {"reads": [{"shows": list(rows), "repeat": repeat}]}


def reports(*rows: dict) -> dict:
    return {"reads": [{"of": "report", "shows": list(rows), "repeat": True}]}


def fills(**step: object) -> dict:
    return {"filled": 2, "reads": [{"of": "fill", "repeat": True, **step}]}


REPORTS = (
    Case(
        "a report before the order shows anything",
        [LOCKED | {"quiet": True}],
        [ACCEPTED],
        "refused",
        "command_report TradingLocked",
    ),
    Case(
        "a report on an order that is shown late",
        [LOCKED],
        [ACCEPTED],
        "refused",
        "command_report TradingLocked",
        order={"reads": [{"not_found": 1}]},  # two in a row, far enough apart, would be an end
    ),
    Case(
        "a report on an older command",
        [LOCKED | {"quiet": True, "settle": 60}, {"settle": 0}],  # told once the second one is taken up
        [ACCEPTED, ACCEPTED],
        evidence="order_read Canceled",
        order=shows(WORKING, repeat=11),
    ),
    Case("a report without a reason", [{"late_reject": ""}], [ACCEPTED, ACCEPTED]),
    Case("a report that names a success", [{"late_reject": "Success"}], [ACCEPTED, ACCEPTED]),
    Case(
        "a rejected command of an order that is seen filled",
        [LOCKED | {"quiet": True}],
        [ACCEPTED],
        "filled",
        "order_read Filled",
        order={
            "reads": [{"shows": WORKING, "repeat": 3}, {"shows": {"ordStatus": "Filled"}, "repeat": True}]
        },
    ),
    Case(
        "the newer of two reports, listed last",
        [LOCKED],
        [ACCEPTED, ACCEPTED],
        order=reports(OLDER, NEWER),
    ),
    Case(
        "the newer of two reports, listed first",
        [LOCKED],
        [ACCEPTED, ACCEPTED],
        order=reports(NEWER, OLDER),
    ),
    Case(
        "a report without permission",
        [LOCKED],
        [ACCEPTED],
        "refused",
        "command_report UnknownReason",
        order=reports({"rejectReason": "UnknownReason", "text": "Access is denied"}),
    ),
    Case(
        "reports that are read at the second try",
        [LOCKED],
        [ACCEPTED],
        "refused",
        "command_report TradingLocked",
        order={"reads": [{"of": "report", "status": 500}]},
    ),
)
FILLS = (
    Case("filled in part, then canceled", [{"partial_fill": 1}], [ACCEPTED], filled=1),
    Case("never filled", [], [ACCEPTED], filled=0),
    settled("filled in part, canceled before", LATE, order={"ordStatus": "Canceled", "filled": 3}, filled=3),
    Case(
        "filled in part, then all", [{"partial_fill": 1, "fill_after": True}], [ACCEPTED], "filled", filled=4
    ),
    Case(
        "filled in part, expired",
        [LATE],
        [AMBIGUOUS],
        "gone",
        order={"ordStatus": "Expired", "filled": 3},
        filled=3,
    ),
    refused("filled in part, refused", {"reason": "TradingLocked"}, order={"filled": 2}, filled=2),
    Case(
        "filled in part, rejected in a report",
        [LOCKED],
        [ACCEPTED],
        "refused",
        "command_report",
        order={"filled": 2},
        filled=2,
    ),
    unresolved(
        "filled in part, unresolved",
        [{"reason": "SessionClosed"}],
        [AMBIGUOUS],
        "seen_working Working",
        order={"filled": 1},
        filled=1,
    ),
    Case("fills that were taken back", [], [ACCEPTED], order=fills(shows={"active": False}), filled=0),
    Case("a fill that was taken back", [], [ACCEPTED], order=fills(shows=[{}, {"active": False}]), filled=2),
    Case("two fills", [], [ACCEPTED], order=fills(shows=[{}, {"qty": 1}]), filled=3),
    Case("a fill of odd quantity", [], [ACCEPTED], order=fills(shows=[{}, {"qty": 1.5}]), filled=None),
    Case("a fill without quantity", [], [ACCEPTED], order=fills(shows={"qty": None}), filled=None),
    Case(
        "fills that are read at the second try", [], [ACCEPTED], order=fills(status=500, repeat=1), filled=2
    ),
)
MISSING = (
    Case(
        "unknown order",
        [],
        [AMBIGUOUS],
        "refused",
        "order_not_found",
        known=False,
        rule="http:404",
        filled=None,
    ),
    Case(
        "accepted and missing",
        [],
        [ACCEPTED],
        "unresolved",
        "order_not_found",
        order={"reads": NEVER},
        filled=None,
    ),
    Case(
        "too late and missing", [LATE], [AMBIGUOUS], "unresolved", "order_not_found", order={"reads": NEVER}
    ),
    Case(
        "too late in a 409 and missing",
        [{"status": 409, "reply": {"failureReason": "TooLate"}}],
        [AMBIGUOUS],
        "unresolved",
        "order_not_found",
        order={"reads": NEVER},
    ),
    Case(
        "unanswered and missing",
        [{"drop": "before"}],
        [AMBIGUOUS],
        "unresolved",
        "order_not_found",
        order={"reads": NEVER},
        transport="unanswered",
    ),
    Case(
        "refused and missing",
        [{"reason": "TradingLocked"}],
        [REFUSED],
        "refused",
        "order_not_found",
        order={"reads": NEVER},
    ),
    Case(
        "failed and missing",
        [{"status": 500}],
        [AMBIGUOUS],
        "refused",
        "order_not_found",
        order={"reads": NEVER},
    ),
    repeated("missing once", LATE, order={"reads": [{"not_found": 1}]}),
    settled("missing until it is canceled", DONE, order={"reads": [{"not_found": 1}]}),
)
ASKED = {"request": {"account": "DEMO1"}}
OTHER = {"order": {"account": "DEMO2"}}
ACCOUNTS = (
    Case(
        "another's order",
        [LATE],
        [AMBIGUOUS],
        "refused",
        "other_account the order is of DEMO2, not of DEMO1",
        **ASKED,
        **OTHER,
    ),
    Case(
        "another's order, canceled all the same",
        [],
        [ACCEPTED],
        "canceled",
        "order_read Canceled: the order is of DEMO2, not of DEMO1",
        **ASKED,
        **OTHER,
    ),
    Case(
        "another's order, accepted without effect",
        [{"reply": {"commandId": 88}}],
        [ACCEPTED],
        "refused",
        "other_account",
        **ASKED,
        **OTHER,
    ),
    Case(
        "another's order, refused",
        [{"reason": "Unauthorized"}],
        [REFUSED],
        "refused",
        "other_account",
        **ASKED,
        **OTHER,
    ),
    Case(
        "another's order, filled",
        [{"reason": "TooLate", "fill_first": True}],
        [AMBIGUOUS],
        "filled",
        "order_read Filled: the order is of DEMO2",
        **ASKED,
        **OTHER,
    ),
    Case(
        "an account by another's number",
        [LATE],
        [AMBIGUOUS],
        "refused",
        "other_account",
        request={"account": "1002"},
    ),
    Case(
        "a name that is no account of the login",
        [LATE],
        [AMBIGUOUS],
        "refused",
        "other_account the order is of DEMO1, not of mine",
        request={"account": "mine"},
    ),
    repeated(
        "one's own order by name", LATE, **OTHER, request={"account": "DEMO2"}, evidence="order_read Canceled"
    ),
    repeated("one's own order by number", LATE, **OTHER, request={"account": "1002"}),
    repeated("an account of an odd type", LATE, **ASKED, order=shows({"accountId": "x"}, repeat=3)),
    repeated(
        "an account that nobody lists",
        LATE,
        request={"account": "mine"},
        order=shows({"accountId": 999}, repeat=3),
    ),
)
BOTH_ENDS = ({"ordStatus": "Canceled"}, {"ordStatus": "Filled"})
CONTRADICTIONS = (
    Case("working after the end", [DONE], [AMBIGUOUS], order=shows(WORKING, repeat=2)),
    settled(
        "canceled and working in one list",
        DONE,
        order=shows({}, WORKING),
        evidence="order_read Canceled",  # ", Working" as well, unless it was read alone
    ),
    settled("two ends in one list, then one", DONE, order=shows(*BOTH_ENDS), evidence="order_read Canceled"),
    unresolved(
        "two ends in every list",
        [DONE],
        [AMBIGUOUS],
        "unproven Canceled, Filled",
        order=shows(*BOTH_ENDS, repeat=True),
    ),
    settled("pending and working in one list", DONE, order=shows({"ordStatus": "PendingCancel"}, WORKING)),
    unresolved(
        "pending for ever",
        [],
        [TRANSIENT] * 4,
        "seen_working PendingCancel",
        order={"ordStatus": "PendingCancel"},
    ),
    unresolved("unknown for ever", [], [AMBIGUOUS], "unproven Unknown", order={"ordStatus": "Unknown"}),
    unresolved(
        "a state of the future",
        [DONE],
        [AMBIGUOUS],
        "unproven Halted",
        order=shows({"ordStatus": "Halted"}, repeat=True),
    ),
    unresolved(
        "working for ever",
        [{"reason": "RiskCheckTimeout"}, {"reason": "SessionClosed"}],
        [TRANSIENT, AMBIGUOUS],
        "seen_working Working",
    ),
    settled("no state", DONE, order=shows({"ordStatus": None})),
    settled("a state of an odd type", DONE, order=shows({"ordStatus": 7})),
    settled("another order's id", DONE, order=shows({"id": 999_999})),
    settled("an id of an odd type", DONE, order=shows({"id": "x"})),
)
CASES = (*REPORTS, *FILLS, *MISSING, *ACCOUNTS, *CONTRADICTIONS)
