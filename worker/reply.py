"""What came over the wire, before anyone says what it means. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import assert_never


class Transport(StrEnum):
    """How far a request got (the words are public)."""

    ANSWERED = "answered"
    NOT_SENT = "not_sent"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A whole HTTP answer: status, headers and raw body (never decoded, never beyond the cap)."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    truncated: bool = False  # the body was longer than the cap
    revision: int = 0  # of the access token that it was asked with; 0: one that never changes
    sent_at: datetime
    answered_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSent:
    """Certainly no byte of the request left this host."""

    error: str
    withheld: bool = False  # by this side: the login may make no call now


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """Bytes left, no whole answer came: the exchange may have acted."""

    error: str
    sent_at: datetime | None  # None: the process died before it could say
    ended_at: datetime


Reply = Answered | NotSent | Unanswered


def transport_of(reply: Reply) -> Transport:
    match reply:
        case Answered():
            return Transport.ANSWERED
        case NotSent():
            return Transport.NOT_SENT
        case Unanswered():
            return Transport.UNANSWERED
    assert_never(reply)
