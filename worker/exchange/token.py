"""Asks the exchange for access tokens and holds the present one. Decides neither when to ask nor who does."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from requests import Request

from worker.clock import monotonic
from worker.exchange.governor import Gate
from worker.exchange.line import Line, Timeouts
from worker.exchange.wire import Wire
from worker.logins import Credentials
from worker.reasons import Action, Meaning
from worker.reply import Answered, NotSent, Reply
from worker.secret import SecretStr
from worker.settings import is_header_text
from worker.verdict import Verdict, classify, read_object, rule_of

LOGIN, RENEWAL = "/auth/accesstokenrequest", "/auth/renewaccesstoken"
BODY_CAP = 64 * 1024
# The exchange's own, for an answer that does not say when its token ends.
USUAL_LIFE = timedelta(minutes=90)
LONGEST_LIFE = timedelta(days=7)
# Answers that say that a session is not there; any other failure may be the exchange's own trouble.
NO_SESSION = frozenset({400, 401, 403, 404})
# An evicted session meets time-outs and errors, as a troubled exchange does: so many in a row, for so long,
# are worth one question.
DOUBTFUL_ANSWERS = 5
DOUBTFUL_FOR = timedelta(seconds=5)
# A token that was given so lately is not asked about again: renewals are limited to 15 an hour.
SETTLED_AFTER = timedelta(minutes=4)
MOST_TEXT = 200
# Whoever has no token looks again so soon, and at the latest.
SHORTEST_WAIT, LONGEST_WAIT = timedelta(milliseconds=250), timedelta(seconds=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One bearer token; a higher revision is newer. `ends` is on this host's monotonic clock."""

    value: SecretStr
    revision: int = 0
    ends: timedelta = timedelta.max


class Bearer:
    """One login's token as this process knows it; thread-safe."""

    def __init__(self, token: Token | None = None, *, renewable: bool = True) -> None:
        self._token = token
        self._renewable = renewable
        self._lock = threading.Lock()
        self._refused = -1  # the revision that a read was refused with
        self._is_questioned = False  # a cancel met 400
        self._renewed_at: timedelta | None = None  # the last time that another token took its place
        self._bad = 0  # answers in a row that an evicted session gets as well
        self._good_at = self._settled_at = monotonic()
        self._missed_at: timedelta | None = None  # since when there is none
        self._next_try = timedelta(0)

    @classmethod
    def fixed(cls, value: SecretStr) -> "Bearer":
        """A token that somebody else renews."""
        return cls(Token(value=value), renewable=False)

    def token(self) -> Token | None:
        """The token to send with, None while there is none that may be taken."""
        token = self._token
        if token is not None and token.revision != self._refused and monotonic() < token.ends:
            return token
        self._missed_at = self._missed_at or monotonic()
        return None

    def take(self, token: Token) -> None:
        with self._lock:
            self._renewed_at = monotonic() if self._token is not None else None
            self._token, self._refused, self._bad, self._missed_at = token, -1, 0, None
            self._is_questioned = False
            self._good_at = self._settled_at = monotonic()

    def heard(self, token: Token, reply: Reply, *, read: bool) -> None:
        """What a call under `token` met. Only a read's 401 speaks of the token: a cancel's may speak of the order.

        A cancel's 400 may mean either, and is worth one renewal, unless there has just been one.
        """
        if not self._renewable or not isinstance(reply, Answered):
            return
        with self._lock:
            if token is not self._token:
                return
            if reply.status == 400 and not read:
                self._is_questioned = (
                    self._renewed_at is None or monotonic() - self._renewed_at >= SETTLED_AFTER
                )
            if reply.status == 401 or (reply.status == 400 and self._is_old()):
                self._refused = token.revision if read else self._refused
            elif reply.status == 408 or reply.status >= 500:
                self._bad += 1
            else:
                self._bad, self._good_at = 0, monotonic()

    def _is_old(self) -> bool:
        """An expired token may meet 400 as well; a new one that does was not what was wrong."""
        return monotonic() - self._settled_at >= SETTLED_AFTER

    @property
    def is_refused(self) -> bool:
        return self._token is not None and self._token.revision == self._refused

    @property
    def is_doubtful(self) -> bool:
        """Whether the session may have been evicted, which no single answer says."""
        long_enough = monotonic() - self._good_at >= DOUBTFUL_FOR and self._is_old()
        return self._bad >= DOUBTFUL_ANSWERS and long_enough

    def question(self) -> bool:
        """Whether a cancel's 400 is to be answered by a renewal; true once."""
        with self._lock:
            questioned, self._is_questioned = self._is_questioned, False
        return questioned

    def asked(self) -> None:
        """The doubt was put to the exchange; no other one for a while, whatever it said."""
        self._settled_at = monotonic()

    def expect(self, wait: timedelta) -> None:
        """Nobody asks for a token before that."""
        self._next_try = monotonic() + wait

    @property
    def patience(self) -> timedelta:
        """How long to wait for a token: as long again as it has been missing, and until somebody may ask for one."""
        now = monotonic()
        missing = now - (self._missed_at or now)
        return min(max(missing, self._next_try - now, SHORTEST_WAIT), LONGEST_WAIT)


# ------------------------------------------------------------------------------------------------ answers


@dataclass(frozen=True, slots=True)
class Granted:
    """A token and how long it lives."""

    token: SecretStr
    life: timedelta


@dataclass(frozen=True, slots=True)
class Denied:
    """The exchange says no: to these credentials, or to this session."""

    text: str


@dataclass(frozen=True, slots=True)
class Penalised:
    """Not handled: wait, then ask again with the ticket. No wait: a lock-out."""

    text: str
    wait: timedelta | None
    ticket: str = ""


@dataclass(frozen=True, slots=True)
class Unclear:
    """No answer that says anything; `sent` if a session may have come of it all the same."""

    text: str
    sent: bool


Grant = Granted | Denied | Penalised | Unclear


class Desk:
    """The exchange's two calls for a token of one login."""

    def __init__(
        self, base_url: str, credentials: Credentials, timeouts: Timeouts, gate: Gate | None = None
    ) -> None:
        self._gate = gate
        self._base = base_url
        self._credentials = credentials
        self._total = timeouts.total
        self._line = Line(timeouts)

    def close(self) -> None:
        self._line.close()

    def log_in(self, ticket: str, permit: Callable[[], None]) -> Grant:
        """A new session; the exchange may end the oldest one for it."""
        return self._ask("POST", LOGIN, {}, self._body(ticket), permit)

    def renew(self, token: SecretStr, permit: Callable[[], None]) -> Grant:
        """A new token of the same session."""
        bearer = {"Authorization": f"Bearer {token.get_secret_value()}"}
        return self._ask("GET", RENEWAL, bearer, None, permit)

    def _body(self, ticket: str) -> bytes:
        known, sec = self._credentials, self._credentials.sec
        fields = {
            "name": known.username,
            "password": known.password.get_secret_value(),
            "appId": known.app_id,
            "appVersion": known.app_version,
            "deviceId": known.device_id,
            "cid": known.cid,
            "sec": sec.get_secret_value() if sec is not None else None,
            "p-ticket": ticket or None,
        }
        return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()

    def _ask(
        self, method: str, path: str, extra: Mapping[str, str], body: bytes | None, permit: Callable[[], None]
    ) -> Grant:
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "cancelq",
            **extra,
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = Request(method, self._base + path, headers=headers, data=body).prepare()

        def last_check() -> None:
            if self._gate is not None:
                self._gate.require_token()
            permit()

        reply = self._line.send(request, Wire(last_check, self._total), BODY_CAP)
        if self._gate is not None:
            self._gate.notice(reply)
        grant = granted(reply)
        return grant if isinstance(grant, Granted) else replace(grant, text=self._shown(grant.text))

    def _shown(self, text: str) -> str:
        """An answer might repeat what it was asked with."""
        for secret in (self._credentials.password, self._credentials.sec):
            text = text.replace(secret.get_secret_value(), "***") if secret is not None else text
        return text[:MOST_TEXT]


def granted(reply: Reply) -> Grant:
    """What an answer to either call means."""
    if not isinstance(reply, Answered):
        return Unclear(reply.error, sent=not isinstance(reply, NotSent))
    verdict = classify(reply)
    if verdict.meaning is Meaning.THROTTLED:
        return _penalised(verdict)
    body = read_object(reply) or {}
    if reply.status in NO_SESSION or body.get("errorText"):
        return Denied(str(body.get("errorText") or f"HTTP {reply.status}"))
    token = body.get("accessToken")
    if not 200 <= reply.status < 300 or not isinstance(token, str) or not is_header_text(token):
        return Unclear(f"HTTP {reply.status} without a token", sent=True)
    life = _life(body.get("expirationTime"), reply)
    if life <= timedelta(0):
        return Unclear("a token that has ended already; is this host's clock right?", sent=True)
    return Granted(SecretStr(token), min(life, LONGEST_LIFE))


def _penalised(verdict: Verdict) -> Penalised:
    if rule_of(verdict).action is Action.TICKET:
        return Penalised(verdict.text or "p-ticket", verdict.penalty, verdict.ticket)
    return Penalised(str(verdict.rule), None)


def _life(end: object, reply: Answered) -> timedelta:
    """By the exchange's own clock where the answer carries it: this host's may be wrong."""
    try:
        at = datetime.fromisoformat(str(end))
    except ValueError:
        return USUAL_LIFE
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - _sent(reply)


def _sent(reply: Answered) -> datetime:
    try:
        date: Any = parsedate_to_datetime(reply.headers["date"])
    except (KeyError, ValueError):
        return reply.answered_at
    aware: datetime = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return aware
