"""The reason table: every answer a cancel can get → what it means, what we do, how long we wait, and why.

Meanings are the contract's verdicts. Sources: the API page's 33 failure reasons; the classes follow
what other clients of this exchange learned (docs/exchange.md). A new reason is one line here.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import NewType

# Raised with every change of a line below; stamped on every attempt and every verdict.
VERSION = "2026-11.2"

RuleName = NewType("RuleName", str)


class Meaning(StrEnum):
    """The verdict on one attempt (the words are public)."""

    ACCEPTED = "accepted"
    TRANSIENT = "transient"
    THROTTLED = "throttled"
    UNAUTHORIZED = "unauthorized"
    REFUSED = "refused"
    AMBIGUOUS = "ambiguous"


class Action(StrEnum):
    """What follows a verdict."""

    CONFIRM = "confirm"  # read the order until its end is seen
    RETRY = "retry"  # POST again after the wait
    READ = "read"  # read the order before anything else
    TICKET = "ticket"  # wait as told, read, then repeat the same body with the ticket
    LOCK_OUT = "lock_out"  # nobody calls the exchange for CANCELQ_LOCKOUT
    REFUSE = "refuse"  # read the order once more, then say refused


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table; waits double from `first` to `longest`."""

    name: RuleName
    meaning: Meaning
    action: Action
    first: timedelta
    longest: timedelta
    why: str


def _rule(name: str, meaning: Meaning, action: Action, waits: tuple[float, float], why: str) -> Rule:
    return Rule(
        RuleName(name), meaning, action, timedelta(seconds=waits[0]), timedelta(seconds=waits[1]), why
    )


def _transient(name: str, waits: tuple[float, float], why: str) -> Rule:
    return _rule(name, Meaning.TRANSIENT, Action.RETRY, waits, why)


def _ambiguous(name: str, waits: tuple[float, float], why: str) -> Rule:
    return _rule(name, Meaning.AMBIGUOUS, Action.READ, waits, why)


def _refused(name: str, why: str) -> Rule:
    return _rule(name, Meaning.REFUSED, Action.REFUSE, READ_SOON, why)


READ_SOON = (0.1, 5.0)
HOUR = (3600.0, 3600.0)
NOT_FOR_CANCELS = "a place or modify reason; on a cancel an anomaly that a person must see"

TABLE: tuple[Rule, ...] = (
    # The 33 failure reasons.
    _rule(
        "reason:Success", Meaning.ACCEPTED, Action.CONFIRM, READ_SOON, "with a commandId: taken, not yet done"
    ),
    _transient("reason:AnotherCommandPending", (0.03, 2.0), "another command of this order is in flight"),
    _transient("reason:RiskCheckTimeout", (0.3, 3.0), "the risk check did not answer in time"),
    _transient(
        "reason:ExecutionProviderUnavailable", (2.0, 30.0), "the route is down; it comes back by itself"
    ),
    _ambiguous(
        "reason:SessionClosed", (30.0, 300.0), "the order may rest or expire: read at once, POST slowly"
    ),
    _ambiguous("reason:TooLate", READ_SOON, "three facts in one word: filled, canceled, or never open"),
    _ambiguous("reason:UnknownReason", (0.5, 10.0), "says nothing; the order tells"),
    _ambiguous("reason:OtherExecutionRelated", (0.5, 10.0), "the execution side objects; the order tells"),
    _ambiguous("reason:ParentRejected", (0.5, 10.0), "the child is probably dead already; the order tells"),
    _refused("reason:TradingLocked", "the account is locked; a person must unlock it"),
    _refused("reason:LiquidationOnly", "a cancel should pass here; if not, a person must look"),
    _refused(
        "reason:LiquidationOnlyBeforeExpiration", "a cancel should pass here; if not, a person must look"
    ),
    _refused("reason:Unauthorized", "this login may not touch this order"),
    _refused("reason:AccountClosed", "the account is closed"),
    _refused("reason:ExecutionProviderNotConfigured", "no route is configured for the account"),
    _refused("reason:Unsupported", "this order can't be canceled this way"),
    _refused("reason:MultipleAccountPlanRequired", "the subscription lacks this"),
    _refused("reason:KeyInformationDocumentRequired", "the user must accept a document first"),
    _refused(
        "reason:SSFRiskDisclosureAcknowledgmentRequired", "the user must acknowledge a disclosure first"
    ),
    _refused("reason:SSFNFAComplianceRequired", "a compliance step of the user is missing"),
    _refused("reason:SSFNFAComplianceRequiredJointOnly", "a compliance step of a joint owner is missing"),
    _refused("reason:InvalidContract", NOT_FOR_CANCELS),
    _refused("reason:InvalidPrice", NOT_FOR_CANCELS),
    _refused("reason:AdvancedTrailingStopUnsupported", NOT_FOR_CANCELS),
    _refused("reason:TrailingStopNonOrderQtyModify", NOT_FOR_CANCELS),
    _refused("reason:BackMonthProhibited", NOT_FOR_CANCELS),
    _refused("reason:MaxOrderQtyIsNotSpecified", NOT_FOR_CANCELS),
    _refused("reason:MaxOrderQtyLimitReached", NOT_FOR_CANCELS),
    _refused("reason:MaxPosLimitMisconfigured", NOT_FOR_CANCELS),
    _refused("reason:MaxPosLimitReached", NOT_FOR_CANCELS),
    _refused("reason:MaxTotalPosLimitReached", NOT_FOR_CANCELS),
    _refused("reason:NoQuote", NOT_FOR_CANCELS),
    _refused("reason:NotEnoughLiquidity", NOT_FOR_CANCELS),
    # Everything a reason can be beside those.
    _ambiguous("reason:unlisted", (0.5, 10.0), "a word this table does not know; never a blind retry"),
    _rule(
        "reason:missing",
        Meaning.ACCEPTED,
        Action.CONFIRM,
        READ_SOON,
        "a commandId and no reason is how success looks",
    ),
    # Body shapes.
    _ambiguous("body:empty-result", READ_SOON, "neither a reason nor a commandId, such as {}"),
    _ambiguous("body:reason-and-command", READ_SOON, "a command exists and a reason or complaint was given"),
    _ambiguous("body:text-without-reason", READ_SOON, "a failureText without a reason"),
    _ambiguous("body:repeated-keys", READ_SOON, "one key with two values: which of them counts is unknown"),
    _ambiguous("body:odd-command-id", READ_SOON, "a commandId that is no integer from 1 to 2^63-1"),
    _ambiguous("body:unreadable", READ_SOON, "not a JSON object, too long, too deep, or of odd types"),
    _rule(
        "body:p-ticket",
        Meaning.THROTTLED,
        Action.TICKET,
        (1.0, 3600.0),
        "not handled; wait p-time, repeat with the ticket",
    ),
    _rule(
        "body:p-captcha",
        Meaning.THROTTLED,
        Action.LOCK_OUT,
        HOUR,
        "not handled; no program can solve the captcha",
    ),
    _refused("body:errorText", "the request itself was refused"),
    _refused("body:violations", "the request violates a constraint"),
    _refused("body:access-denied", "UnknownReason with 'Access is denied' is a missing permission"),
    # HTTP codes.
    _ambiguous("http:3xx", READ_SOON, "no redirect is followed with a cancel in hand"),
    _refused("http:400", "malformed, or a token that a renewal did not mend"),
    _rule(
        "http:401",
        Meaning.UNAUTHORIZED,
        Action.READ,
        (1.0, 30.0),
        "the token is not taken; one more try after a read",
    ),
    _refused("http:403", "inaccessible for this login"),
    _ambiguous("http:404", READ_SOON, "unknown order, wrong endpoint or no session: the order tells"),
    _ambiguous("http:408", (0.5, 10.0), "a time-out of the exchange or an evicted session"),
    _rule("http:423", Meaning.THROTTLED, Action.LOCK_OUT, HOUR, "the warning before a lock-out"),
    _rule("http:429", Meaning.THROTTLED, Action.LOCK_OUT, HOUR, "locked out; each further call extends it"),
    _ambiguous("http:other-4xx", (0.5, 10.0), "undocumented for a cancel"),
    _ambiguous("http:5xx", (0.5, 10.0), "often a time-out inside the exchange: it may have acted"),
    _ambiguous("http:other", (0.5, 10.0), "no meaning is known"),
    # The wire.
    _transient("transport:not_sent", (0.1, 5.0), "no byte left; read before the next POST all the same"),
    _ambiguous("transport:unanswered", READ_SOON, "bytes left, no answer came: the one true unknown"),
)

RULES: dict[RuleName, Rule] = {rule.name: rule for rule in TABLE}
DEFAULT_TRANSIENT = frozenset(
    rule.name.removeprefix("reason:")
    for rule in TABLE
    if rule.meaning is Meaning.TRANSIENT and rule.name.startswith("reason:")
)
