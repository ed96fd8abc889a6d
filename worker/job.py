"""The nouns: one wish to cancel one order, and what the ledger remembers about it. No I/O."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, NewType

import orjson

JobId = NewType("JobId", str)
ClaimId = NewType("ClaimId", str)
OrderId = NewType("OrderId", int)
# The one login of a configuration that names none, and the ledger's name of whoever serves all other accounts.
DEFAULT_LOGIN = "default"


class Priority(StrEnum):
    URGENT = "urgent"
    NORMAL = "normal"


class State(StrEnum):
    """What a status answer says (the words are public)."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    PARKED = "parked"
    RECONCILING = "reconciling"
    CONFIRMING = "confirming"
    CLOSING = "closing"
    DONE = "done"


class Step(StrEnum):
    """What the next holder of a job has to do."""

    POST = "post"
    RECONCILE = "reconcile"
    CONFIRM = "confirm"
    CLOSE = "close"


class Outcome(StrEnum):
    """What became of the order (the words are public)."""

    CANCELED = "canceled"
    FILLED = "filled"
    GONE = "gone"
    REFUSED = "refused"
    ACCEPTED = "accepted"
    UNRESOLVED = "unresolved"


class Evidence(StrEnum):
    """What an outcome rests on (the words are public)."""

    ORDER_READ = "order_read"
    COMMAND_REPORT = "command_report"
    REPLY = "reply"
    SEEN_WORKING = "seen_working"
    ORDER_NOT_FOUND = "order_not_found"
    OTHER_ACCOUNT = "other_account"
    DEADLINE = "deadline"
    DRY_RUN = "dry_run"  # read only: nothing was to be POSTed
    UNPROVEN = "unproven"  # budgets spent without one conclusive read


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequest:
    """What a producer asked for; `deadline` and `activation_time` may widen while joiners come in."""

    account: str
    order_id: OrderId
    request_id: str
    requested_by: str | None = None
    cl_ord_id: str | None = None
    activation_time: datetime | None = None
    custom_tag50: str | None = None
    is_automated: bool = True
    priority: Priority = Priority.NORMAL
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstWish:
    """What the job's own request said before a joiner widened it; for the audit, never for the work."""

    priority: Priority
    deadline: datetime | None
    activation_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Joiner:
    """A later request for the same open (account, order); it shares the job's outcome."""

    request_id: str
    requested_by: str | None
    priority: Priority
    deadline: datetime | None
    requested_at: datetime
    activation_time: datetime | None = None


class Steering(StrEnum):
    """What an operator may do with a whole ledger (the words are public)."""

    PAUSE = "pause"
    RESUME = "resume"
    DRAIN = "drain"


class MassStep(StrEnum):
    """What goes on record of a mass cancel (the words are public)."""

    BEGUN = "cancel_all"
    ENDED = "cancel_all_end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """That an operator steered the ledger or asked for a mass cancel: who, when, and why if it was said."""

    id: str
    kind: Steering | MassStep
    by: str
    because: str | None
    at: datetime


class Memory(NamedTuple):
    """What the decisions remember between two claims of one job; the ledger stores it unread, as JSON.

    A tuple, as the job is: some ten copies of each are made per cancel, and a dataclass of so many fields is five times as slow.
    """

    pursuit: str = ""  # the verdict that is being followed up, "" before the first reply
    refusal: str = ""  # the final reason, once the exchange refused
    transient_replies: int = 0  # in a row, since the last read
    transients: int = 0  # transient replies in a row, reads in between or not: waits grow with them
    unauthorized: int = 0  # 401s so far
    turned_away: int = 0  # 401s in a row
    command_id: int | None = None  # the latest that an answer carried
    first_sent_at: int | None = None  # µs; the first byte of the first POST
    accepted: bool = False  # any attempt was accepted
    maybe_acted: bool = False  # any attempt was accepted, TooLate or unanswered
    under_way: bool = False  # a command of ours may still act: accepted or unanswered, and not rejected since
    last_answer_at: int | None = None  # µs, ledger clock; when the last POST ended
    proof_since: int | None = None  # µs, ledger clock; when proving began
    first_claim_at: int | None = None  # µs, ledger clock; the retry budget counts from here
    not_before: int | None = None  # µs, ledger clock; a closed session: no POST earlier
    stood_still: int = 0  # µs of the login's holds that the two times above were moved by
    held_back: int = 0  # µs of pause that the second one was moved by
    waiting_since: int | None = None  # µs, ledger clock; for an access token, which no budget counts
    ran_dry: int = 0  # µs of waiting for the reads' budget that the first one was moved by
    token_floor: int = 0  # no POST with an access token of an earlier revision
    armed_for: int | None = None  # µs; the activation time of the latest accepted POST
    filled_qty: int | None = None  # contracts that filled before the end, once that was read
    reads: int = 0  # reads in a row that proved nothing
    missing: int = 0  # reads in a row that did not find the order
    seen_open: bool = False  # the last conclusive read showed the order open
    ticket: str = ""  # p-ticket to send with the next POST
    story_due: int | None = (
        None  # µs, ledger clock; when last some rows of a holder that lost it couldn't be read
    )
    ticket_of: int = 0  # the attempt whose body it was given for …
    ticket_armed: int | None = None  # … and that body's activation time, µs
    shut_outs: int = 0  # closed sessions that POSTs met; they count as no attempts
    unknown_since: int | None = None  # µs, ledger clock; an unanswered POST, and no read of the order since

    def to_json(self) -> str:
        return orjson.dumps(self._asdict()).decode()

    @classmethod
    def from_json(cls, text: str | None) -> "Memory":
        """Unknown keys (of a newer program) are dropped, missing ones get their default."""
        if not text:
            return cls()
        stored: dict[str, Any] = orjson.loads(text)
        return cls(**{key: value for key, value in stored.items() if key in _REMEMBERED})


_REMEMBERED = frozenset(Memory._fields)


class Job(NamedTuple):
    """One wish to cancel one order, as claimed from the ledger."""

    id: JobId
    request: CancelRequest
    enqueued_at: datetime
    step: Step
    attempts: int  # POSTs that have a start row
    joiners: int = 0
    first_wish: FirstWish | None = None  # None: the request still is as it came
    lapsed: bool = False  # an earlier holder lost it: SQL may know more than the ledger
    lost_by: tuple[
        str, ...
    ] = ()  # the chains of those that lost it since it was given back; "?": nobody can say
    recorded: bool = False  # its row is known to be in the database that all share, attempts or not
    redrive_of: JobId | None = None
    outcome: Outcome | None = None  # decided already, when step is CLOSE
    evidence: str | None = None
    memory: Memory = Memory()
    login: str = DEFAULT_LOGIN  # whose calls it makes, as the ledger knows it
    calls: int | None = None  # POSTs that this claim may make; None: as many as it likes
