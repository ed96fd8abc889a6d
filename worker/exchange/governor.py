"""Whether a login may make a call now: asked before every first byte, told of every answer that forbids the next one.

Knows the ledger's word on all lock-outs and what this process saw itself; the ledger is called through `Rulings` only.
A penalty is told to the ledger as well; it holds back claims, not what is in hand.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from worker.errors import LedgerUnavailable, Withheld
from worker.gaps import Gap, reached
from worker.ledger.words import Call, Granted
from worker.policy import Hold
from worker.reasons import Meaning
from worker.reply import Answered, Reply
from worker.verdict import LOCKED_OUT, Verdict, classify

log = structlog.get_logger()
# No first byte leaves later than 0.5 s after a lock-out was read anywhere. The ledger is told at once, each worker
# hears from it every 250 ms; who has not heard for this long asks before it sends.
FRESH = timedelta(milliseconds=350)


class Word(Protocol):
    """What the ledger says of all lock-outs at one moment of its own clock."""

    @property
    def now(self) -> datetime: ...
    @property
    def lockouts(self) -> Mapping[str, datetime]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rulings:
    """How to reach the ledger, and what a throttled answer asks for."""

    now: Callable[[], datetime]  # the ledger's clock
    ask: Callable[[], Word]
    grant: Callable[[str, Call], Granted]  # counts one call of a login, if there is room
    tell: Callable[[str, Hold], object]
    hold_of: Callable[[Verdict], Hold]


@dataclass(frozen=True, slots=True)
class Gate:
    """The governor as one login's client sees it."""

    governor: "Governor"
    login: str

    def require_post(self) -> None:
        self.governor.require_post(self.login)

    def require_read(self) -> None:
        self.governor.require(self.login, Call.READ)

    def require_token(self) -> None:
        self.governor.require(self.login, Call.TOKEN)

    def notice(self, reply: Reply) -> None:
        self.governor.notice(self.login, reply)


class Governor:
    """Shared by all threads of a process."""

    def __init__(self, rulings: Rulings, *, limited: bool, dry_run: bool = False) -> None:
        """`limited`: whether calls are counted at all. `dry_run`: no cancel leaves, whoever decided otherwise."""
        self._rulings = rulings
        self._dry_run = dry_run
        self._limited = limited
        self._asking = threading.Lock()
        self._changing = threading.Lock()
        self._heard_at: datetime | None = None
        self._told: Mapping[str, datetime] = {}
        self._seen: dict[str, datetime] = {}  # by this process itself
        self._untold: list[tuple[str, Hold]] = []  # what the ledger could not be told yet

    def hear(self, word: Word) -> None:
        """The ledger said how all logins stand; an older word than the last changes nothing."""
        with self._changing:
            if self._heard_at is None or word.now >= self._heard_at:
                self._heard_at, self._told = word.now, word.lockouts

    def require_post(self, login: str) -> None:
        """Before a POST, whose call its claim has counted. Withheld: not now, or not in a dry run."""
        if self._dry_run:
            raise Withheld("CANCELQ_DRY_RUN is on: nothing is POSTed")
        self.require_free(login)

    def require_free(self, login: str) -> None:
        """Before any first byte. Withheld: the login may make no call now."""
        if not self._is_fresh():
            with self._asking:
                if not self._is_fresh():
                    word = self._rulings.ask()
                    with self._changing:  # whatever came before: the ledger's clock may have been set back
                        self._heard_at, self._told = word.now, word.lockouts
        until = max(filter(None, (self._told.get(login), self._seen.get(login))), default=None)
        if until is not None and until > self._rulings.now():
            raise Withheld(f"the login {login} is locked out until {until:%Y-%m-%d %H:%M:%S} UTC")

    def gate(self, login: str) -> Gate:
        return Gate(self, login)

    def require(self, login: str, call: Call) -> None:
        """Before any other call, which is counted here. Withheld: not now."""
        if self._limited:
            granted = self._rulings.grant(login, call)
            self.hear(granted)
            if not granted.granted:
                raise Withheld(f"CANCELQ_RATE_LIMIT: the login {login} has no {call} left now")
        self.require_free(login)

    def notice(self, login: str, reply: Reply) -> None:
        """An answer came. A lock-out binds this process at once, and the fleet as soon as it is told."""
        verdict = _throttled(reply)
        if verdict is None:
            return
        hold = self._rulings.hold_of(verdict)
        with self._changing:
            if hold.lockout:
                until = self._rulings.now() + hold.span
                self._seen[login] = max(until, self._seen.get(login, until))
            self._untold.append((login, hold))
        event = "exchange.locked_out" if hold.lockout else "exchange.penalty"
        log.error(event, login=login, span=str(hold.span), rule=verdict.rule)
        self.tell()

    def tell(self) -> None:
        """Tell the ledger what it does not know yet; what fails is told by the next call."""
        while self._untold:
            with self._changing:
                if not self._untold:
                    return
                login, hold = self._untold.pop()
            try:
                self._rulings.tell(login, hold)
            except LedgerUnavailable as error:
                self._untold.append((login, hold))
                log.warning("hold.not_told", login=login, error=str(error))
                return
            reached(Gap.LOCK_OUT_SET)

    def _is_fresh(self) -> bool:
        heard_at = self._heard_at
        return heard_at is not None and abs(self._rulings.now() - heard_at) <= FRESH


def _throttled(reply: Reply) -> Verdict | None:
    """Looked for in the bytes first: most answers are read once only, and some are long."""
    if not isinstance(reply, Answered):
        return None
    if reply.status not in LOCKED_OUT and b'"p-' not in reply.body:
        return None
    verdict = classify(reply)
    return verdict if verdict.meaning is Meaning.THROTTLED else None
