"""Every answer a cancel can get has exactly one meaning."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.parts.answers.reasons import PUBLISHED
from worker.reasons import RULES, TABLE, Action, Meaning
from worker.reply import Answered, NotSent, Unanswered
from worker.verdict import Verdict, classify, rule_of

NOW = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
TRANSIENT = {"AnotherCommandPending", "RiskCheckTimeout", "ExecutionProviderUnavailable"}
AMBIGUOUS = {"SessionClosed", "TooLate", "UnknownReason", "OtherExecutionRelated", "ParentRejected"}


def answered(body: object, status: int = 200, **more: object) -> Answered:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answered(status=status, body=raw, sent_at=NOW, answered_at=NOW, **more)  # type: ignore[arg-type]


def meaning_of_reason(reason: str) -> Meaning:
    if reason == "Success":
        return Meaning.AMBIGUOUS  # without a commandId nothing was proven
    if reason in TRANSIENT:
        return Meaning.TRANSIENT
    return Meaning.AMBIGUOUS if reason in AMBIGUOUS else Meaning.REFUSED


def test_the_api_page_has_33_reasons_and_each_has_its_line() -> None:
    assert len(PUBLISHED) == 33
    assert {f"reason:{reason}" for reason in PUBLISHED} <= RULES.keys()


@pytest.mark.parametrize("reason", PUBLISHED)
def test_each_reason_means_what_the_contract_says(reason: str) -> None:
    assert classify(answered({"failureReason": reason})).meaning is meaning_of_reason(reason)


@pytest.mark.parametrize("reason", [*PUBLISHED, "BrandNew"])
def test_a_reason_beside_a_command_is_ambiguous_and_keeps_the_command(reason: str) -> None:
    verdict = classify(answered({"failureReason": reason, "commandId": 7}))
    expected = Meaning.ACCEPTED if reason == "Success" else Meaning.AMBIGUOUS
    assert (verdict.meaning, verdict.command_id) == (expected, 7)


SHAPES: list[tuple[str, object, int, Meaning, str]] = [
    ("success", {"commandId": 62539}, 200, Meaning.ACCEPTED, "reason:missing"),
    (
        "explicit success",
        {"failureReason": "Success", "commandId": 1},
        200,
        Meaning.ACCEPTED,
        "reason:Success",
    ),
    (
        "nulls",
        {"failureReason": None, "failureText": None, "commandId": 5},
        201,
        Meaning.ACCEPTED,
        "reason:missing",
    ),
    (
        "empty text",
        {"failureReason": "", "failureText": "", "commandId": 5},
        200,
        Meaning.ACCEPTED,
        "reason:missing",
    ),
    ("largest id", {"commandId": 2**63 - 1}, 200, Meaning.ACCEPTED, "reason:missing"),
    ("too large an id", {"commandId": 2**63}, 200, Meaning.AMBIGUOUS, "body:odd-command-id"),
    ("zero id", {"commandId": 0}, 200, Meaning.AMBIGUOUS, "body:odd-command-id"),
    ("fractional id", {"commandId": 1.5}, 200, Meaning.AMBIGUOUS, "body:odd-command-id"),
    ("boolean id", {"commandId": True}, 200, Meaning.AMBIGUOUS, "body:odd-command-id"),
    ("text id", {"commandId": "12"}, 200, Meaning.AMBIGUOUS, "body:odd-command-id"),
    (
        "text beside a command",
        {"commandId": 5, "failureText": "hm"},
        200,
        Meaning.AMBIGUOUS,
        "body:text-without-reason",
    ),
    ("nothing", {}, 200, Meaning.AMBIGUOUS, "body:empty-result"),
    ("unlisted", {"failureReason": "BrandNew"}, 200, Meaning.AMBIGUOUS, "reason:unlisted"),
    ("named like a row", {"failureReason": "missing"}, 200, Meaning.AMBIGUOUS, "reason:unlisted"),
    ("odd reason", {"failureReason": 7}, 200, Meaning.AMBIGUOUS, "body:unreadable"),
    (
        "transient with odd id",
        {"failureReason": "RiskCheckTimeout", "commandId": "x"},
        200,
        Meaning.AMBIGUOUS,
        "body:odd-command-id",
    ),
    (
        "no permission",
        {"failureReason": "UnknownReason", "failureText": "Access is denied"},
        200,
        Meaning.REFUSED,
        "body:access-denied",
    ),
    ("ticket", {"p-ticket": "t", "p-time": 3}, 200, Meaning.THROTTLED, "body:p-ticket"),
    ("captcha", {"p-ticket": "t", "p-time": 3, "p-captcha": True}, 200, Meaning.THROTTLED, "body:p-captcha"),
    ("odd ticket", {"p-ticket": 7}, 200, Meaning.THROTTLED, "body:p-captcha"),
    ("error text", {"errorText": "bad", "ok": False}, 200, Meaning.REFUSED, "body:errorText"),
    ("violations", {"violations": [{"description": "x"}]}, 200, Meaning.REFUSED, "body:violations"),
    (
        "error text beside a command",
        {"errorText": "bad", "commandId": 3},
        200,
        Meaning.AMBIGUOUS,
        "body:reason-and-command",
    ),
    (
        "violations beside a command",
        {"violations": [{"description": "x"}], "commandId": 3},
        200,
        Meaning.AMBIGUOUS,
        "body:reason-and-command",
    ),
    ("empty complaints", {"errorText": "", "violations": []}, 200, Meaning.AMBIGUOUS, "body:empty-result"),
    ("ticket in a 403", {"p-ticket": "t", "p-time": 3}, 403, Meaning.THROTTLED, "body:p-ticket"),
    ("ticket in a 429", {"p-ticket": "t", "p-time": 3}, 429, Meaning.THROTTLED, "http:429"),
    ("empty ticket", {"p-ticket": "", "p-time": 3}, 200, Meaning.THROTTLED, "body:p-ticket"),
    ("no ticket", {"p-ticket": None, "p-captcha": False}, 200, Meaning.AMBIGUOUS, "body:empty-result"),
    ("captcha without ticket", {"p-captcha": True}, 200, Meaning.THROTTLED, "body:p-captcha"),
    ("endless ticket", {"p-ticket": "t" * 9000}, 200, Meaning.THROTTLED, "body:p-captcha"),
    ("two ids", b'{"commandId":1,"commandId":2}', 200, Meaning.AMBIGUOUS, "body:repeated-keys"),
    ("an id and a truth", b'{"commandId":1,"commandId":true}', 200, Meaning.AMBIGUOUS, "body:repeated-keys"),
    ("one id twice", b'{"commandId":1,"commandId":1}', 200, Meaning.ACCEPTED, "reason:missing"),
    ("two tickets", b'{"p-ticket":"a","p-ticket":"b"}', 200, Meaning.AMBIGUOUS, "body:repeated-keys"),
    ("a list", [], 200, Meaning.AMBIGUOUS, "body:unreadable"),
    ("no JSON", b"<html>", 200, Meaning.AMBIGUOUS, "body:unreadable"),
    ("empty", b"", 200, Meaning.AMBIGUOUS, "body:unreadable"),
    ("deep", b"[" * 100_000, 200, Meaning.AMBIGUOUS, "body:unreadable"),
    ("long number", b'{"commandId":' + b"9" * 5000 + b"}", 200, Meaning.AMBIGUOUS, "body:unreadable"),
    ("bad UTF-8", b'{"failureReason":"\xff"}', 200, Meaning.AMBIGUOUS, "body:unreadable"),
    ("lone surrogate", b'{"failureReason":"\\ud800"}', 200, Meaning.AMBIGUOUS, "reason:unlisted"),
    ("redirect", b"", 307, Meaning.AMBIGUOUS, "http:3xx"),
    ("malformed", b"", 400, Meaning.REFUSED, "http:400"),
    ("token", "Access is denied", 401, Meaning.UNAUTHORIZED, "http:401"),
    ("forbidden", b"", 403, Meaning.REFUSED, "http:403"),
    ("not found", b"", 404, Meaning.AMBIGUOUS, "http:404"),
    ("time-out", b"", 408, Meaning.AMBIGUOUS, "http:408"),
    ("conflict", {"failureReason": "TooLate"}, 409, Meaning.AMBIGUOUS, "http:other-4xx"),
    ("warning", b"", 423, Meaning.THROTTLED, "http:423"),
    ("lock-out", b"", 429, Meaning.THROTTLED, "http:429"),
    ("internal", b"Internal Server Error, error id: 1", 500, Meaning.AMBIGUOUS, "http:5xx"),
    ("gateway", b"", 502, Meaning.AMBIGUOUS, "http:5xx"),
    ("unavailable", b"", 503, Meaning.AMBIGUOUS, "http:5xx"),
    ("odd code", b"", 700, Meaning.AMBIGUOUS, "http:other"),
]


@pytest.mark.parametrize(("name", "body", "status", "meaning", "rule"), SHAPES, ids=[s[0] for s in SHAPES])
def test_each_body_shape_and_code_has_its_line(
    name: str, body: object, status: int, meaning: Meaning, rule: str
) -> None:
    verdict = classify(answered(body, status))
    assert (verdict.meaning, verdict.rule) == (meaning, rule)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"commandId": 9, "failureReason": "TooLate"}, 200),
        ({"commandId": 9, "errorText": "x"}, 200),
        ({"commandId": 9, "p-ticket": "t", "p-time": 1}, 200),
        ({"commandId": 9, "p-captcha": True}, 200),
        (b'{"commandId":9,"failureReason":"TooLate","failureReason":"Success"}', 200),
        *(({"commandId": 9}, status) for status in (302, 400, 401, 403, 404, 409, 423, 429, 503, 700)),
    ],
)
def test_a_command_id_is_kept_whatever_stands_beside_it(body: object, status: int) -> None:
    assert classify(answered(body, status)).command_id == 9


def test_a_compressed_or_truncated_body_is_not_read() -> None:
    assert (
        classify(answered({"commandId": 1}, headers={"content-encoding": "gzip"})).rule == "body:unreadable"
    )
    assert classify(answered({"commandId": 1}, truncated=True)).rule == "body:unreadable"


def test_the_wire_decides_where_no_answer_came() -> None:
    assert classify(NotSent(error="refused")).meaning is Meaning.TRANSIENT
    assert classify(Unanswered(error="reset", sent_at=NOW, ended_at=NOW)).meaning is Meaning.AMBIGUOUS


def test_a_ticket_brings_its_wait_and_an_odd_wait_is_an_hour() -> None:
    told = classify(answered({"p-ticket": "t", "p-time": 2.5}))
    assert (told.ticket, told.penalty) == ("t", timedelta(seconds=2.5))
    for odd in ("soon", None, True, -1, 1e9, float("nan"), float("inf"), [], {}):
        assert classify(answered({"p-ticket": "t", "p-time": odd})).penalty == timedelta(hours=1), odd


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7200", 7200),
        (" 5 ", 5),
        ("999999999", 86400),
        ("Mon, 23 Nov 2026 21:00:00 GMT", 3600),
        ("Mon, 23 Nov 2026 21:00:00 -0000", 3600),
        ("Sun, 22 Nov 2026 21:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400),
        *((odd, None) for odd in ("", "-1", "1e3", "soon", "9" * 5000, "Mon, 99 Nov 2026 21:00:00 GMT")),
    ],
)
def test_a_lock_out_brings_what_retry_after_says(said: str, seconds: int | None) -> None:
    headers = {"retry-after": said}
    for status in (423, 429):
        verdict = classify(answered(b"", status, headers=headers))
        assert verdict.penalty == (None if seconds is None else timedelta(seconds=seconds))
    assert classify(answered(b"", 503, headers=headers)).penalty is None


def test_configuration_alone_says_which_reasons_are_transient() -> None:
    chosen = frozenset({"TooLate", "BrandNew"})
    assert classify(answered({"failureReason": "TooLate"}), chosen).meaning is Meaning.TRANSIENT
    assert classify(answered({"failureReason": "BrandNew"}), chosen).meaning is Meaning.TRANSIENT
    assert classify(answered({"failureReason": "AnotherCommandPending"}), chosen).meaning is Meaning.AMBIGUOUS


def test_every_verdict_finds_a_line_of_its_own_meaning() -> None:
    made = Verdict(meaning=Meaning.TRANSIENT, rule=next(r.name for r in TABLE if r.name == "reason:TooLate"))
    assert rule_of(made).action is Action.RETRY
    assert all(rule_of(Verdict(meaning=rule.meaning, rule=rule.name)) == rule for rule in TABLE)


def test_the_table_s_names_are_unique_and_each_line_says_why() -> None:
    assert len(RULES) == len(TABLE)
    assert all(rule.why and rule.first <= rule.longest for rule in TABLE)
