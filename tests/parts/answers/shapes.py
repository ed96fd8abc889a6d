"""HTTP codes and body shapes: each once, whatever sense it makes."""

from collections.abc import Iterator
from typing import Any

from tests.parts.answers.case import ACCEPTED, AMBIGUOUS, Case, refused, repeated, settled

UNREADABLE = "body:unreadable"
ODD_ID = "body:odd-command-id"


BARE = {
    "http:3xx": (300, 301, 302, 303, 304, 305, 307, 308),
    "http:404": (404,),
    "http:408": (408,),
    "http:other-4xx": (
        402,
        405,
        406,
        407,
        409,
        410,
        411,
        413,
        414,
        415,
        416,
        417,
        418,
        *range(421, 423),
        *range(424, 429),
        431,
        451,
        499,
    ),
    "http:5xx": (500, 501, 502, 503, 504, 505, 507, 508, 511, 520, 521, 522, 524, 525, 526, 530, 599),
    "http:other": (600, 700, 999),
}


def codes() -> Iterator[Case]:
    """Nothing was canceled; 423 and 429 lock everybody out and have a test of their own."""
    for code in (201, 202, 203, 206):
        said = {"status": code, "reply": {"commandId": 5}, "effect": "before"}
        yield Case(f"{code} with a command", [said], [ACCEPTED], rule="reason:missing")
    for code in (200, 201, 202, 204, 205):
        yield repeated(f"{code} and no body", {"status": code, "text": ""}, rule=UNREADABLE)
    for rule, bare in BARE.items():
        away = {"location": "/v1/order/cancelorder", "text": ""} if rule == "http:3xx" else {}
        yield from (repeated(str(code), {"status": code, **away}, rule=rule) for code in bare)
    for code in (400, 403):
        yield refused(str(code), {"status": code}, rule=f"http:{code}", evidence=f"reply http:{code}")
    for promise in (100, 102, 103):  # of another answer, which does not come
        post = {"status": promise}
        yield repeated(str(promise), post, rule="transport:unanswered", transport="unanswered", heard=False)


def codes_with_bodies() -> Iterator[Case]:
    """The code decides; what the body says is kept."""
    late = {"failureReason": "TooLate"}
    yield repeated("409 TooLate", {"status": 409, "reply": late}, rule="http:other-4xx", reason="TooLate")
    done = {"status": 409, "reply": late, "effect": "before"}
    yield settled("409 TooLate, done", done, rule="http:other-4xx", reason="TooLate")
    busy = {"status": 503, "reply": {"failureReason": "ExecutionProviderUnavailable"}}
    yield repeated(
        "503 with a transient reason", busy, rule="http:5xx", reason="ExecutionProviderUnavailable"
    )
    yield settled(
        "500 with a command", {"status": 500, "reply": {"commandId": 9}, "effect": "before"}, rule="http:5xx"
    )
    yield refused("403 with a command", {"status": 403, "reply": {"commandId": 9}}, rule="http:403")
    yield refused("400 in JSON", {"status": 400, "reply": {"errorText": "no"}}, evidence="reply http:400: no")
    yield repeated(
        "502 in HTML", {"status": 502, "text": "<html><h1>Bad Gateway</h1></html>"}, rule="http:5xx"
    )
    ticket = [{"status": 403, "reply": {"p-ticket": "t", "p-time": 0}}]
    yield Case("403 with a ticket", ticket, ["throttled", ACCEPTED], rule="body:p-ticket")
    told = [{"status": 200, "reply": {"p-ticket": "t", "p-time": 0, "commandId": 9}, "effect": "before"}]
    yield Case("a ticket and a command", told, ["throttled"], rule="body:p-ticket")


def no_objects() -> Iterator[Case]:
    """Texts in a 2xx that are no JSON object."""
    texts = {
        "an empty list": "[]",
        "null": "null",
        "a JSON text": '"it works"',
        "a number": "42",
        "true": "true",
        "HTML": "<!doctype html><title>200</title>",
        "truncated JSON": '{"commandId":12',
        "two objects": '{"commandId":1}{"commandId":1}',
        "blanks": " \r\n ",
        "deep lists": "[" * 30_000,
        "deep objects": '{"a":' * 10_000,
        "a number without end": '{"commandId":' + "9" * 5_000 + "}",
        "no UTF-8": '{"failureReason":"\udcff"}',
        "single quotes": "{'commandId':1}",
    }
    for name, text in texts.items():
        yield repeated(name, {"text": text}, rule=UNREADABLE, heard=text.isprintable())


def odd_fields() -> Iterator[Case]:
    """JSON objects whose fields are of odd types."""
    for said in ("text", "", 1.5, 1.0, -1, 0, 2**63, True, False, [7], {"id": 7}):
        yield repeated(f"commandId {said!r}", {"reply": {"commandId": said}}, rule=ODD_ID, heard=False)
    for name, text in {"NaN": "NaN", "Infinity": "-Infinity", "exponent": "1e400"}.items():
        yield repeated(f"commandId {name}", {"text": f'{{"commandId":{text}}}'}, rule=ODD_ID)
    for said in ([], ["TooLate"], 7, {"a": 1}, True):
        yield repeated(f"failureReason {said!r}", {"reply": {"failureReason": said}}, rule=UNREADABLE)
    for said in ([], 7, True):
        both = {"failureReason": "TooLate", "failureText": said}
        yield repeated(f"failureText {said!r}", {"reply": both}, rule=UNREADABLE, reason="TooLate")
    nothing = {"failureReason": "", "failureText": "", "commandId": None}
    yield repeated("nothing in each field", {"reply": nothing}, rule="body:empty-result")
    yield repeated(
        "empty complaints", {"reply": {"errorText": "", "violations": []}}, rule="body:empty-result"
    )
    yield repeated("a text alone", {"reply": {"failureText": "hm"}}, rule="body:text-without-reason")
    for said in ("no such thing", 7, {"a": 1}):
        yield refused(f"errorText {said!r}", {"reply": {"errorText": said}}, rule="body:errorText")
    for said in ([{"description": "x"}], {"a": 1}, "x"):
        yield refused(f"violations {said!r}", {"reply": {"violations": said}}, rule="body:violations")
    for key in ("errorText", "violations"):
        both = {"reply": {key: "x", "commandId": 5}, "effect": "before"}
        yield settled(f"{key} beside a command", both, rule="body:reason-and-command")


def odd_texts() -> Iterator[Case]:
    """Texts that a database, Redis or a terminal would choke on."""
    told: dict[str, Any] = {
        "a lone surrogate": ('"\\ud800"', "\\ud800"),
        "NUL": ('"a\\u0000b"', "a\\x00b"),
        "line ends": ('"a\\r\\nb\\u2028c"', "a\r\nb\u2028c"),
        "emoji": ('"\\ud83d\\ude00"', "😀"),
    }
    for name, (text, kept) in told.items():
        said = f'{{"failureReason":"AccountClosed","failureText":{text}}}'
        yield refused(f"failureText with {name}", {"text": said}, evidence=f"reply AccountClosed: {kept}")
        yield repeated(f"failureReason with {name}", {"text": f'{{"failureReason":{text}}}'}, reason=kept)
    long = {"failureReason": "AccountClosed", "failureText": "x" * 9_000}
    yield refused("a failureText of 9,000 letters", {"reply": long}, evidence="reply AccountClosed: xxx")
    yield repeated(
        "a failureReason of 9,000 letters", {"reply": {"failureReason": "x" * 9_000}}, reason="x" * 8_192
    )
    marked = {"text": '\ufeff{"commandId":5}', "effect": "before"}
    yield Case("a byte order mark", [marked], [ACCEPTED], rule="reason:missing", heard=False)
    denied = {"reason": "UnknownReason", "failure_text": "ACCESS IS DENIED for you"}
    yield refused("access denied", denied, rule="body:access-denied", evidence="reply UnknownReason: ACCESS")


def repeated_keys() -> Iterator[Case]:
    """Python would take the last value; the two contradict each other."""
    twice = {"text": '{"commandId":5,"commandId":6}', "effect": "before"}
    yield settled("two commands", twice, rule="body:repeated-keys")
    told = {
        "text": '{"failureReason":"AccountClosed","failureReason":"Success","commandId":5}',
        "effect": "before",
    }
    yield settled("two reasons", told, rule="body:repeated-keys", reason=None, heard=False)
    same = {"text": '{"commandId":5,"commandId":5}', "effect": "before"}
    yield Case("one command said twice", [same], [ACCEPTED], rule="reason:missing", heard=False)


CASES = (
    *codes(),
    *codes_with_bodies(),
    *no_objects(),
    *odd_fields(),
    *odd_texts(),
    *repeated_keys(),
    Case("401 once", [{"status": 401}], ["unauthorized", ACCEPTED], rule="http:401"),
    Case("401 twice", [{"status": 401}] * 2, ["unauthorized"] * 2, "refused", "reply http:401"),
    settled("done, but the answer is no object", {"text": "[]", "effect": "before"}, rule=UNREADABLE),
    Case(
        "nothing said twice", [{"reply": {}}] * 2, [AMBIGUOUS, AMBIGUOUS, ACCEPTED], rule="body:empty-result"
    ),
)
