"""What a producer gets back for each request, and how a request is written. No I/O."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Required, TypedDict
from uuid import uuid4

from worker.clock import iso, utc_now


class Fate(StrEnum):
    """What became of a request at the door (the words are public)."""

    ACCEPTED = "accepted"
    JOINED = "joined"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    NOT_STORED = "not_stored"
    UNKNOWN = "unknown"
    SPOOLED = "spooled"  # one of the two before, kept in a file of this host until it can be sent on


STORED = frozenset({Fate.ACCEPTED, Fate.JOINED, Fate.DUPLICATE})


class Wish(TypedDict, total=False):
    """The fields of one request; times without offset are UTC, a deadline may be a number of seconds."""

    order_id: Required[int | str]
    account: str
    cl_ord_id: str
    activation_time: datetime | timedelta | str
    custom_tag50: str
    is_automated: bool
    requested_by: str
    request_id: str
    priority: str
    deadline: datetime | timedelta | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The fate of one request; `durability` is what was proved, never more."""

    request_id: str
    status: Fate
    job_id: str | None = None
    durability: str | None = None
    error: str | None = None
    account: str | None = None
    order_id: int | None = None

    @property
    def is_stored(self) -> bool:
        return self.status in STORED

    @classmethod
    def from_reply(cls, text: str, request_id: str, *, replicated: bool = False) -> "Receipt":
        """Read the ledger's answer; a refusal may come before the ledger has read the request's id.

        `replicated`: after it was given, a replica had all that this connection wrote. A duplicate wrote nothing.
        """
        reply = json.loads(text)
        proved = reply.get("durability")
        replicated = replicated and reply["status"] != Fate.DUPLICATE
        return cls(
            request_id=reply.get("requestId") or request_id,
            status=Fate(reply["status"]),
            job_id=reply.get("jobId"),
            durability="replicated" if replicated and proved == "fsynced" else proved,
            error=reply.get("error"),
            account=reply.get("account"),
            order_id=reply.get("orderId"),
        )

    def to_dict(self) -> dict[str, object]:
        """The contract's reply form; what is not known is left out."""
        reply = {
            "jobId": self.job_id,
            "requestId": self.request_id,
            "status": self.status.value,
            "account": self.account,
            "orderId": self.order_id,
            "durability": self.durability,
            "error": self.error,
        }
        return {name: value for name, value in reply.items() if value is not None}

    def to_json(self) -> str:
        return json.dumps(self.to_dict())


@dataclass(frozen=True, slots=True)
class Letter:
    """One request as it goes to the ledger, or why it cannot go."""

    request_id: str
    text: str = ""
    fault: str | None = None

    def returned(self, status: Fate, error: str) -> Receipt:
        return Receipt(request_id=self.request_id, status=status, error=error)

    def pinned(self, now: datetime) -> str:
        """The text with a deadline that counts from `now`, whenever it is sent."""
        try:
            fields = json.loads(self.text, object_pairs_hook=_without_repeats)
            seconds = fields.get("deadline")
            if isinstance(seconds, bool) or not isinstance(seconds, int | float):
                return self.text
            return json.dumps(fields | {"deadline": iso(now + timedelta(seconds=seconds))})
        except (ValueError, OverflowError):
            return self.text  # as it is, for the ledger to refuse


NAMES = {
    "order_id": "orderId",
    "account": "account",
    "cl_ord_id": "clOrdId",
    "activation_time": "activationTime",
    "custom_tag50": "customTag50",
    "is_automated": "isAutomated",
    "requested_by": "requestedBy",
    "request_id": "requestId",
    "priority": "priority",
    "deadline": "deadline",
}
# The ledger refuses longer ones; here it saves parsing them.
LONGEST_LINE = 16384
# One for all: `json.dumps` makes an encoder for each call that forbids NaN.
_ENCODE = json.JSONEncoder(allow_nan=False).encode
TOO_LONG = f"the request is longer than {LONGEST_LINE} bytes"


def _without_repeats(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Python would keep the last of two values, and so mend what must be refused."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a repeated key")
    return fields


def new_request_id() -> str:
    return str(uuid4())


def write_letter(wish: Mapping[str, object]) -> Letter:
    """Write a request in the API's names; the ledger itself judges the values."""
    given = {name: value for name, value in wish.items() if value is not None}
    request_id = given.setdefault("request_id", new_request_id())
    try:
        text = "{" + ",".join(_field(name, value) for name, value in given.items()) + "}"
    except ValueError as error:
        return Letter(str(request_id), fault=str(error))
    return Letter(str(request_id), text, TOO_LONG if len(text) > LONGEST_LINE else None)


def _field(name: str, value: object) -> str:
    if name not in NAMES:
        raise ValueError(f"{name}: is not a field of a request; there are {', '.join(NAMES)}")
    try:
        return f'"{NAMES[name]}":{_ENCODE(_plain(name, value))}'
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{NAMES[name]}: cannot be sent: {error}") from None


def _plain(name: str, value: object) -> object:
    """Times as text; a timedelta counts from now."""
    match value:
        case timedelta() if name == "deadline":
            return value.total_seconds()
        case timedelta():
            return iso(utc_now() + value)
        case datetime():
            return iso(value if value.tzinfo else value.replace(tzinfo=UTC))
        case _:
            return value


def read_letter(line: bytes) -> Letter:
    """Take a request that is JSON already, as it is, and add the request id if there is none."""
    own_id = new_request_id()
    if len(line) > LONGEST_LINE:
        return Letter(own_id, fault=TOO_LONG)
    try:
        text = line.decode().strip()
        fields = json.loads(text)
    except UnicodeDecodeError:
        return Letter(own_id, fault="the request is not valid UTF-8")
    except (ValueError, RecursionError):
        return Letter(own_id, fault="the request is not a JSON object")
    if not isinstance(fields, dict):
        return Letter(own_id, fault="the request is not a JSON object")
    if "requestId" in fields:
        return Letter(str(fields["requestId"]), text)
    comma = "," if fields else ""
    return Letter(own_id, f'{{"requestId":"{own_id}"{comma}{text[1:]}')
