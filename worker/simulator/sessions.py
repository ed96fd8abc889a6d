"""Users, their sessions and tokens: only so many sessions of a user live, the oldest makes room. Knows no HTTP."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .moments import now

# What our own tokens begin with: any other one was made elsewhere, and is let in as ever.
MARK = "sim-"
# Failed logins count for so long.
HOUR = 3600.0
WRONG = "Incorrect username or password. Please try again, noting that passwords are case-sensitive."


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who may log in; `accounts` are all that it sees, None for every account."""

    name: str
    password: str
    sec: str | None = None
    accounts: frozenset[str] | None = None


@dataclass(slots=True)
class Session:
    """One login: its tokens with their ends. A renewal adds a token, the older ones run out by themselves."""

    user: str
    tokens: dict[str, float] = field(default_factory=dict)
    evicted: bool = False

    def lives(self) -> bool:
        return not self.evicted and any(end > now() for end in self.tokens.values())


class Standing(StrEnum):
    """What a token is worth."""

    LIVE = "live"
    EXPIRED = "expired"
    EVICTED = "evicted"
    FOREIGN = "foreign"  # made elsewhere


@dataclass(slots=True)
class Sessions:
    """All sessions of all users. Without any user everybody may log in."""

    life: float = 5400.0
    most: int = 2
    most_failed: int = 5
    users: Mapping[str, User] = field(default_factory=dict)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("logins", "renewals", "failed", "evicted", "most_alive"), 0)
    )
    _failed: list[float] = field(default_factory=list)
    _all: list[Session] = field(default_factory=list)

    def standing(self, token: str) -> Standing:
        if not token.startswith(MARK):
            return Standing.FOREIGN
        session = self._of(token)
        if session is not None and session.evicted:
            return Standing.EVICTED
        alive = session is not None and session.tokens[token] > now()
        return Standing.LIVE if alive else Standing.EXPIRED

    def accounts(self, token: str) -> frozenset[str] | None:
        """The accounts that this token shows; None for all."""
        session = self._of(token)
        user = self.users.get(session.user) if session is not None else None
        return user.accounts if user is not None else None

    def locked(self) -> bool:
        """Whether too many logins failed within the hour."""
        self._failed = [at for at in self._failed if at > now() - HOUR]
        return len(self._failed) >= self.most_failed

    def log_in(self, body: Mapping[str, Any]) -> tuple[str, float] | None:
        """A new session's token and its end; the user's oldest session ends if there are too many. None: refused."""
        user = self.users.get(str(body.get("name")))
        right = (
            user is not None and body.get("password") == user.password and user.sec in {None, body.get("sec")}
        )
        if self.users and not right:
            self.counts["failed"] += 1
            self._failed.append(now())
            return None
        self.counts["logins"] += 1
        session = Session(str(body.get("name")))
        self._all.append(session)
        token = self._token_for(session)
        alive = [other for other in self._all if other.user == session.user and other.lives()]
        for oldest in alive[: -self.most]:
            oldest.evicted = True
            self.counts["evicted"] += 1
        self.counts["most_alive"] = max(self.counts["most_alive"], len(alive))
        return token

    def renew(self, token: str) -> tuple[str, float] | None:
        """A new token of the same session; None where this one is worth nothing."""
        session = self._of(token)
        if session is None or self.standing(token) is not Standing.LIVE:
            return None
        self.counts["renewals"] += 1
        return self._token_for(session)

    def expire(self) -> None:
        """Every token ends now."""
        for session in self._all:
            session.tokens = dict.fromkeys(session.tokens, now())

    def _of(self, token: str) -> Session | None:
        return next((session for session in self._all if token in session.tokens), None)

    def _token_for(self, session: Session) -> tuple[str, float]:
        token, end = MARK + secrets.token_hex(24), now() + self.life
        session.tokens[token] = end
        return token, end
