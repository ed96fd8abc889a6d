"""How an answer travels, or does not."""

from tests.parts.answers.case import ACCEPTED, AMBIGUOUS, TRANSIENT, Case, repeated, settled

LOST = {"rule": "transport:unanswered", "transport": "unanswered"}
CASES = (
    Case("plain", [], [ACCEPTED], rule="reason:missing", reason=None),
    Case("many transient", [{"reason": "AnotherCommandPending"}] * 5, [TRANSIENT] * 5 + [ACCEPTED]),
    settled("error after effect", {"status": 500, "effect": "before"}),
    settled("late effect", {"status": 500, "effect": "after", "effect_delay": 0.4}),
    settled("dropped after effect", {"drop": "after"}, **LOST),
    repeated("dropped before effect", {"drop": "before"}, **LOST),
    settled("reset after effect", {"reset": "after"}, **LOST),
    repeated("reset before effect", {"reset": "before"}, **LOST),
    settled("cut body", {"cut_body": 5}, **LOST),
    settled("too long a length", {"content_length": 5000}, **LOST),
    settled("too short a length", {"content_length": 3}, rule="body:unreadable"),
    settled("dripped head", {"drip": {"bytes_per_second": 10, "part": "headers"}}, heard=False, **LOST),
    settled("dripped body", {"drip": {"bytes_per_second": 10, "part": "body"}}, heard=False, **LOST),
    settled("slow", {"delay": 4}, heard=False, **LOST),
    repeated("garbage", {"garbage": True}, **LOST),
    settled("huge", {"body_bytes": 1_000_000}, rule="body:unreadable", heard=False),
    settled("said to be gzip", {"gzip": True}, rule="body:unreadable"),
    repeated("a redirect away", {"location": "http://127.0.0.1:1/v1/order/cancelorder"}, rule="http:3xx"),
    Case("ticket", [{"p-ticket": "t1", "p-time": 0.3}], ["throttled", ACCEPTED], rule="body:p-ticket"),
    Case("settles slowly", [{"settle": 1.5}], [ACCEPTED], evidence="order_read Canceled"),
    Case("filled after", [{"fill_after": True}], [ACCEPTED], "filled", "order_read Filled", filled=4),
    repeated("suspended", {"reason": "TooLate"}, order={"ordStatus": "Suspended"}),
    Case("completed", [], [AMBIGUOUS], "filled", "order_read Completed", order={"ordStatus": "Completed"}),
    Case("rejected", [], [AMBIGUOUS], "gone", "order_read Rejected", order={"ordStatus": "Rejected"}),
)
