"""What a reply to a POST means, and what a read shows. Total and pure: reads nothing but its arguments, never raises."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, assert_never

from worker.job import Outcome
from worker.reasons import DEFAULT_TRANSIENT, RULES, Meaning, Rule, RuleName
from worker.reply import Answered, NotSent, Reply, Unanswered

MAX_ID = 2**63 - 1  # the API's ids are int64
MAX_TEXT = 8192  # the API's own limit for failureText
CODES: dict[int, str] = {code: f"http:{code}" for code in (400, 401, 403, 404, 408, 423, 429)}
COMPLAINTS = ("errorText", "violations")
LOCKED_OUT = {423, 429}  # whatever the body says
# No longer than the longest CANCELQ_LOCKOUT: no answer may silence a login for ever.
LONGEST_RETRY_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one attempt's reply means, and which line of the table said so."""

    meaning: Meaning
    rule: RuleName
    reason: str | None = None
    text: str | None = None
    command_id: int | None = None
    ticket: str = ""
    penalty: timedelta | None = None  # p-time, or a lock-out's Retry-After


class Repeated(dict[str, Any]):
    """A JSON object that said something twice, and differently; it has only what it said once."""


def classify(reply: Reply, transient: frozenset[str] = DEFAULT_TRANSIENT) -> Verdict:
    """The verdict on `reply`; `transient` is CANCELQ_TRANSIENT_REASONS."""
    match reply:
        case NotSent():
            return _verdict("transport:not_sent", text=reply.error)
        case Unanswered():
            return _verdict("transport:unanswered", text=reply.error)
        case Answered():
            return _answered(reply, transient)
    assert_never(reply)


def _verdict(rule: str, **facts: Any) -> Verdict:
    line = RULES[RuleName(rule)]
    return Verdict(meaning=line.meaning, rule=line.name, **facts)


def _answered(reply: Answered, transient: frozenset[str]) -> Verdict:
    body = read_object(reply)
    penalty = _penalty(body or {}) if reply.status not in LOCKED_OUT else None
    if penalty is not None:
        return penalty
    if not 200 <= reply.status < 300:
        return _by_code(reply, body or {})
    if body is None:
        return _verdict("body:unreadable", text=_excerpt(reply.body))
    if isinstance(body, Repeated):
        return _verdict("body:repeated-keys", **_facts(body) | {"text": _excerpt(reply.body)})
    return _complaint(body) or _command_result(body, transient)


def _by_code(reply: Answered, body: Mapping[str, Any]) -> Verdict:
    """Anything but 2xx is decided by its code; what the body says is kept as testimony."""
    rule = CODES.get(reply.status) or f"http:{_family(reply.status)}"
    facts = _facts(body)
    text = facts["text"] or _text(body.get("errorText")) or _excerpt(reply.body)
    penalty = _retry_after(reply) if reply.status in LOCKED_OUT else None
    return _verdict(rule, **facts | {"text": text, "penalty": penalty})


def _retry_after(reply: Answered) -> timedelta | None:
    """RFC 9110, 10.2.3: seconds, or a date; None where it says neither."""
    said = reply.headers.get("retry-after", "").strip()
    if re.fullmatch("[0-9]{1,9}", said):
        return min(timedelta(seconds=int(said)), LONGEST_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(said)
        until = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        return min(max(until - reply.answered_at, timedelta(0)), LONGEST_RETRY_AFTER)
    except (ValueError, OverflowError):
        return None


def _facts(body: Mapping[str, Any]) -> dict[str, Any]:
    """TRADOVATE's CommandResult: three optional fields, each None where it is missing or of an odd type."""
    return {
        "reason": _text(body.get("failureReason")),
        "text": _text(body.get("failureText")),
        "command_id": _command_id(body.get("commandId")),
    }


def _family(status: int) -> str:
    return {3: "3xx", 4: "other-4xx", 5: "5xx"}.get(status // 100, "other")


def _penalty(body: Mapping[str, Any]) -> Verdict | None:
    """Nothing was handled, says the exchange; a commandId beside it is kept all the same."""
    ticket, command = body.get("p-ticket"), _command_id(body.get("commandId"))
    if ticket is None and not body.get("p-captcha"):
        return None
    if body.get("p-captcha") or not _can_be_sent(ticket):
        return _verdict("body:p-captcha", text="p-captcha", command_id=command)
    wait = body.get("p-time")
    known = isinstance(wait, int | float) and not isinstance(wait, bool) and 0 <= wait <= 3600
    penalty = timedelta(seconds=wait) if known and wait is not None else timedelta(hours=1)
    text = f"p-time {wait!r}"[:200]
    return _verdict("body:p-ticket", ticket=str(ticket), penalty=penalty, text=text, command_id=command)


def _can_be_sent(ticket: object) -> bool:
    """Back, in JSON: a lone surrogate can't be."""
    return isinstance(ticket, str) and len(ticket) <= MAX_TEXT and not re.search("[\ud800-\udfff]", ticket)


def _complaint(body: Mapping[str, Any]) -> Verdict | None:
    """Validation answers; with a commandId beside them they contradict themselves and fall through."""
    if body.get("commandId") is not None:
        return None
    for key in COMPLAINTS:
        if body.get(key):
            return _verdict(f"body:{key}", text=_excerpt(json.dumps(body[key]).encode()))
    return None


def _command_result(body: Mapping[str, Any], transient: frozenset[str]) -> Verdict:
    """Every mixture of the three fields is possible."""
    facts = _facts(body)
    if facts["reason"] in transient and body.get("commandId") is None:
        return Verdict(meaning=Meaning.TRANSIENT, rule=RuleName(f"reason:{facts['reason']}"), **facts)
    return _verdict(_result_rule(body, facts), **facts)


def _result_rule(body: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    if _odd(body.get("failureReason"), facts["reason"]) or _odd(body.get("failureText"), facts["text"]):
        return "body:unreadable"
    if body.get("commandId") is not None and facts["command_id"] is None:
        return "body:odd-command-id"
    if any(body.get(key) for key in COMPLAINTS):
        return "body:reason-and-command"
    if facts["reason"] in {None, "Success"}:
        return _success_rule(facts)
    if facts["command_id"] is not None:
        return "body:reason-and-command"
    return _reason_rule(facts["reason"], facts["text"])


def _success_rule(facts: Mapping[str, Any]) -> str:
    if facts["text"]:
        return "body:text-without-reason"
    if facts["command_id"] is None:
        return "body:empty-result"
    return "reason:Success" if facts["reason"] else "reason:missing"


def _reason_rule(reason: str, text: str | None) -> str:
    if reason == "UnknownReason" and "access is denied" in (text or "").lower():
        return "body:access-denied"
    name = f"reason:{reason}"
    # A reason that is transient by default but was taken out of CANCELQ_TRANSIENT_REASONS is like an unlisted one.
    known = RuleName(name) in RULES and reason not in DEFAULT_TRANSIENT | {"unlisted", "missing"}
    return name if known else "reason:unlisted"


def read_object(reply: Answered) -> dict[str, Any] | None:
    """The body as a JSON object, or None: hostile depth, numbers and encodings included."""
    found = read_json(reply)
    return found if isinstance(found, dict) else None


def read_json(reply: Answered) -> Any:
    """The body as JSON, or None when it is not."""
    if reply.truncated or reply.headers.get("content-encoding", "identity") != "identity":
        return None
    try:
        return json.loads(reply.body, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Python would let the last of two values win: that would be believing half of a contradiction."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice = {name for name, value in pairs if repr(value) != repr(found[name])}
    return Repeated({name: found[name] for name in found if name not in twice}) if twice else found


def _odd(raw: object, read: object) -> bool:
    return raw is not None and read is None and raw != ""


def _text(raw: object) -> str | None:
    return raw[:MAX_TEXT] if isinstance(raw, str) and raw else None


def _command_id(raw: object) -> int | None:
    is_id = isinstance(raw, int) and not isinstance(raw, bool) and 0 < raw <= MAX_ID
    return raw if is_id and isinstance(raw, int) else None


def _excerpt(body: bytes) -> str | None:
    return body[:500].decode("utf-8", "replace") or None


def rule_of(verdict: Verdict) -> Rule:
    """The table's line; a reason made transient by configuration waits like RiskCheckTimeout."""
    line = RULES.get(verdict.rule)
    if line is not None and line.meaning is verdict.meaning:
        return line
    return RULES[RuleName("reason:RiskCheckTimeout")]


# ------------------------------------------------------------------------------------- what a read means


class OrderState(StrEnum):
    """What a read says about an order, as far as a cancel is concerned."""

    CANCELED = "canceled"
    FILLED = "filled"
    GONE = "gone"
    OPEN = "open"
    CANCELING = "canceling"
    MISSING = "missing"
    UNCLEAR = "unclear"
    UNREAD = "unread"


# Order.ordStatus → state. Completed has no official definition; other clients read it as filled.
ORD_STATUS = {
    "Canceled": OrderState.CANCELED,
    "Filled": OrderState.FILLED,
    "Completed": OrderState.FILLED,
    "Expired": OrderState.GONE,
    "Rejected": OrderState.GONE,
    "Working": OrderState.OPEN,
    "Suspended": OrderState.OPEN,
    "PendingNew": OrderState.OPEN,
    "PendingReplace": OrderState.OPEN,
    "PendingCancel": OrderState.CANCELING,
}
ENDS = {
    OrderState.CANCELED: Outcome.CANCELED,
    OrderState.FILLED: Outcome.FILLED,
    OrderState.GONE: Outcome.GONE,
}


def state_of(statuses: Sequence[object]) -> OrderState:
    """What all rows of one order say together: an end wins over what is open, never over another end."""
    states = {
        ORD_STATUS.get(s, OrderState.UNCLEAR) if isinstance(s, str) else OrderState.UNCLEAR for s in statuses
    }
    told = states & ENDS.keys() or states
    if len(told) == 1:
        return told.pop()
    # Nothing but a Working that nobody contradicts may permit a POST.
    return OrderState.CANCELING if OrderState.CANCELING in told else OrderState.UNCLEAR


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one read of an order showed."""

    state: OrderState
    asked_at: datetime  # ledger clock, before the read was sent
    ord_status: str | None = None
    late_reject: Verdict | None = None  # a reason found in the command's reports
    other_account: str | None = None  # why the order is proved to be of another account than the job's
    throttled: Verdict | None = None  # a penalty or lock-out came instead of an answer
    command_id: int | None = None  # one of our own commands, found at the exchange
    withheld: bool = False  # not asked: the login may make no call now
