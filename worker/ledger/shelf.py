"""Where the workers of a ledger find one login's token, and who of them may fetch the next. Never sees it in clear."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum, StrEnum
from typing import Any

from worker.clock import monotonic, span_micros
from worker.ledger.encoding import storable


class Call(StrEnum):
    """The calls for a token, as the ledger counts them."""

    LOGIN = "login"
    RENEWAL = "renewal"
    UNSENT = "unsent"  # a login or renewal of which no byte left


class Right(IntEnum):
    """What became of a wish to make a call."""

    GIVEN = 1
    ANOTHERS = 0  # somebody else makes it, or has made it
    SPENT = -1  # the hour's calls are


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelved:
    """How a login's token stands; spans count from `asked_at` (monotonic, before the look)."""

    asked_at: timedelta
    revision: int
    sealed: str
    seal: str  # whose secrets open it
    renew_in: timedelta
    ends_in: timedelta
    wait: timedelta  # nobody may ask for a token before that
    ticket: str
    trouble: str
    logins: int  # in the last hour


class Shelf:
    """One login's token in the ledger. Errors: LedgerUnavailable."""

    def __init__(self, call: Callable[..., Any], login: str) -> None:
        self._call = call
        self._login = login

    def look(self) -> Shelved:
        asked_at = monotonic()
        now, revision, sealed, seal, *times, ticket, trouble, logins = self._call(
            "cancelq_token", self._login
        )
        renew_in, ends_in, wait = (timedelta(microseconds=int(time) - int(now)) for time in times)
        return Shelved(
            asked_at=asked_at,
            revision=int(revision),
            sealed=sealed,
            seal=seal,
            renew_in=renew_in,
            ends_in=ends_in,
            wait=max(wait, timedelta(0)),
            ticket=ticket,
            trouble=trouble,
            logins=logins,
        )

    def take(self, keeper: str, call: Call, *, revision: int, hold: timedelta) -> Right:
        """Ask for the right to make one call within `hold`."""
        return Right(self._call("cancelq_token_take", self._login, keeper, span_micros(hold), revision, call))

    def put(
        self, keeper: str, sealed: tuple[str, str], *, revision: int, renew_in: timedelta, ends_in: timedelta
    ) -> int:
        """Store the token that follows `revision`, as (text, seal); its revision, 0 if another one came before it."""
        spans = (span_micros(renew_in), span_micros(ends_in))
        return int(self._call("cancelq_token_put", self._login, keeper, revision, *sealed, *spans))

    def fail(self, keeper: str, call: Call, *, wait: timedelta, trouble: str, ticket: str = "") -> timedelta:
        """No token came of it: give the right back; how long nobody asks again."""
        asked = (self._login, keeper, span_micros(wait), storable(trouble), storable(ticket), call)
        now, next_try = self._call("cancelq_token_fail", *asked)
        return timedelta(microseconds=int(next_try) - int(now))
