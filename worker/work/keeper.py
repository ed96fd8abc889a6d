"""Keeps one login's token fresh for the whole fleet: whoever is there first asks, all others wait for the next revision."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never

import structlog
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential_jitter,
    wait_fixed,
)
from uuid_utils import uuid7

from worker.clock import monotonic
from worker.errors import LeaseLapsed, LedgerUnavailable
from worker.exchange.clients import Clients
from worker.exchange.governor import Governor
from worker.exchange.line import Timeouts
from worker.exchange.token import Bearer, Denied, Desk, Grant, Granted, Penalised, Token, Unclear
from worker.gaps import Gap, reached
from worker.ledger.client import Ledger
from worker.ledger.shelf import Call, Right, Shelf, Shelved
from worker.logins import Credentials
from worker.secret import SecretStr

if TYPE_CHECKING:
    from worker.ledger.sealing import Sealer

log = structlog.get_logger()
# So often a worker looks whether the token is due or somebody else has renewed it.
KEEP_EVERY = timedelta(milliseconds=250)
# The exchange's advice is a quarter of an hour before the end; a short life is renewed at its middle.
RENEW_AHEAD = timedelta(minutes=15)
RENEW_SHARE = 0.85
# Beyond a call's own bound the right to it stays ours for so long.
HOLD_MARGIN = timedelta(seconds=2)
# Tries of one renewal in a row. A login is never repeated at once: each may open a session.
RENEWAL_TRIES = 2
# After a renewal that came to nothing.
RENEWAL_PAUSE = timedelta(seconds=15)
# Before the next login, by the number of those that were made within the hour: the ledger allows five.
LOGIN_PAUSES = tuple(timedelta(seconds=s) for s in (15, 60, 300, 900, 900))
PUT_BOUND = timedelta(seconds=10)
UNSENT_PAUSE = timedelta(seconds=2)
# Whoever only doubts its session leaves the hour's other logins to those who have none …
LOGINS_FOR_DOUBT = 2
# … and does not ask again so soon.
DOUBT_PAUSE = timedelta(minutes=5)
# A token that is so near its end is given up for a login, whatever keeps it from being renewed.
LAST_MOMENT = timedelta(seconds=30)
SAY_AGAIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long one call may take, and what a lock-out is."""

    call: timedelta
    lockout: timedelta


class Keeper:
    """`keep` is a duty: it looks, and asks for a token if one is due and nobody else does."""

    def __init__(
        self, login: str, desk: Desk, bearer: Bearer, *, shelf: Shelf, sealer: "Sealer", bounds: Bounds
    ) -> None:
        self.login = login
        self._desk = desk
        self._bearer = bearer
        self._shelf = shelf
        self._sealer = sealer
        self._bounds = bounds
        self._known = 0  # the revision that the bearer has
        self._foreign = ""  # the seal of a token that these credentials do not open
        self._say_at = timedelta(0)
        self._renewals = Retrying(
            retry=retry_if_result(lambda grant: isinstance(grant, Unclear) and grant.sent),
            stop=stop_after_attempt(RENEWAL_TRIES),
            wait=wait_exponential_jitter(multiplier=0.2, max=2, jitter=0.2),
            retry_error_callback=_last,
        )
        # Repeating a put that did arrive changes nothing, and a token that is not put is a session lost.
        self._puts = Retrying(
            retry=retry_if_exception_type(LedgerUnavailable),
            stop=stop_after_delay(PUT_BOUND.total_seconds()),
            wait=wait_fixed(0.2),
            reraise=True,
        )

    def close(self) -> None:
        self._desk.close()

    def keep(self) -> None:
        """One look, and what it asks for."""
        shelved = self._shelf.look()
        self._adopt(shelved)
        due = self._due(shelved)
        self._bearer.expect(shelved.wait)
        if due is None:
            return
        if shelved.wait > timedelta(0):
            self._say(due, shelved)
        elif due is Call.LOGIN:
            self._log_in(str(uuid7()), shelved)
        else:
            self._renew(str(uuid7()), shelved)

    def _adopt(self, shelved: Shelved) -> None:
        """Take over what another worker has put there."""
        if shelved.revision == self._known or not shelved.sealed:
            return
        token = self._sealer.open(shelved.sealed, shelved.revision)
        if token is None:
            self._disown(shelved)
            return
        self._foreign, self._known = "", shelved.revision
        ends = shelved.asked_at + shelved.ends_in
        self._bearer.take(Token(value=token, revision=shelved.revision, ends=ends))
        log.info("token.taken", login=self.login, revision=shelved.revision)

    def _disown(self, shelved: Shelved) -> None:
        if self._foreign != shelved.seal:
            self._foreign = shelved.seal
            log.error(
                "token.foreign",
                login=self.login,
                mend="another worker keeps this login with other credentials; give all workers the same",
            )

    def _due(self, shelved: Shelved) -> Call | None:
        """What has to be asked for. A token of other credentials is respected by whoever held one of its own before."""
        ended = shelved.ends_in <= timedelta(0)
        if not shelved.sealed or ended or (self._foreign and not self._known):
            return Call.LOGIN
        if self._foreign:
            return None
        asked_for = self._bearer.question() or self._bearer.is_refused or self._bearer.is_doubtful
        return Call.RENEWAL if asked_for or shelved.renew_in <= timedelta(0) else None

    def _say(self, due: Call, shelved: Shelved) -> None:
        if due is Call.LOGIN and monotonic() >= self._say_at:
            self._say_at = monotonic() + SAY_AGAIN
            log.error("token.none", login=self.login, trouble=shelved.trouble, next_try_in=str(shelved.wait))

    # ------------------------------------------------------------------------------------------- calls

    def _renew(self, keeper: str, shelved: Shelved) -> None:
        token = self._sealer.open(shelved.sealed, shelved.revision)
        if token is None:
            return
        hopeless = self._is_hopeless(shelved)
        grant = self._renewals(self._ask, keeper, Call.RENEWAL, shelved, partial(self._desk.renew, token))
        if isinstance(grant, Denied) or (hopeless and (isinstance(grant, Unclear) or grant is Right.SPENT)):
            log.warning("token.not_renewed", login=self.login, trouble=str(grant))
            self._log_in(keeper, shelved)
        elif not isinstance(grant, Right):
            self._settle(keeper, Call.RENEWAL, shelved, grant)

    def _is_hopeless(self, shelved: Shelved) -> bool:
        """Whether the session is so surely gone, or so soon, that a renewal without a clear answer leads to a login."""
        doubtful = self._bearer.is_doubtful and shelved.logins < LOGINS_FOR_DOUBT
        return self._bearer.is_refused or doubtful or shelved.ends_in <= LAST_MOMENT

    def _log_in(self, keeper: str, shelved: Shelved) -> None:
        grant = self._ask(keeper, Call.LOGIN, shelved, partial(self._desk.log_in, shelved.ticket))
        if not isinstance(grant, Right):
            self._settle(keeper, Call.LOGIN, shelved, grant)

    def _ask(
        self, keeper: str, call: Call, shelved: Shelved, ask: Callable[[Callable[[], None]], Grant]
    ) -> Grant | Right:
        """One call, by right and within it; what was said, or why there is no right to ask."""
        hold = self._bounds.call + HOLD_MARGIN
        until = monotonic() + hold
        right = self._shelf.take(keeper, call, revision=shelved.revision, hold=hold)
        if right is not Right.GIVEN:
            return right
        reached(Gap.GRANT_DUE)
        grant = ask(partial(_in_time, until))
        reached(Gap.GRANTED)
        return grant

    def _settle(self, keeper: str, call: Call, shelved: Shelved, grant: Grant) -> None:
        match grant:
            case Granted():
                self._put(keeper, call, shelved, grant)
            case Penalised(wait=wait, ticket=ticket) if wait is not None:
                self._fail(keeper, call, wait=wait, trouble=grant.text, ticket=ticket)
            case Penalised():
                self._fail(keeper, call, wait=self._bounds.lockout, trouble=grant.text)
            case Unclear(sent=False):
                wait = UNSENT_PAUSE if call is Call.LOGIN else self._pause(call, shelved)
                self._fail(keeper, Call.UNSENT, wait=wait, trouble=grant.text)
            case Denied() | Unclear():
                self._fail(keeper, call, wait=self._pause(call, shelved), trouble=grant.text)
            case _:
                assert_never(grant)

    def _pause(self, call: Call, shelved: Shelved) -> timedelta:
        if call is Call.RENEWAL:
            return DOUBT_PAUSE if self._bearer.is_doubtful else RENEWAL_PAUSE
        return LOGIN_PAUSES[min(shelved.logins, len(LOGIN_PAUSES) - 1)]

    def _put(self, keeper: str, call: Call, shelved: Shelved, grant: Granted) -> None:
        sealed = (self._sealer.close(grant.token, shelved.revision + 1), self._sealer.seal)
        revision = self._puts(
            self._shelf.put,
            keeper,
            sealed,
            revision=shelved.revision,
            renew_in=renew_in(grant.life),
            ends_in=grant.life,
        )
        reached(Gap.SHELVED)
        log.info("token.put", login=self.login, call=str(call), revision=revision, life=str(grant.life))
        self._adopt(self._shelf.look())

    def _fail(self, keeper: str, call: Call, *, wait: timedelta, trouble: str, ticket: str = "") -> None:
        wait = self._shelf.fail(keeper, call, wait=wait, trouble=trouble, ticket=ticket)
        self._bearer.asked()
        self._bearer.expect(wait)
        log.error("token.failed", login=self.login, call=str(call), trouble=trouble, next_try_in=str(wait))


def renew_in(life: timedelta) -> timedelta:
    """Well before the end: `renewaccesstoken` works only while the token does."""
    return min(life * RENEW_SHARE, max(life - RENEW_AHEAD, life / 2))


def _in_time(until: timedelta) -> None:
    """The permit before the first byte."""
    if monotonic() >= until:
        raise LeaseLapsed("another worker may be asking for the token by now")


def _last(state: RetryCallState) -> Any:
    return state.outcome.result() if state.outcome is not None else None


def keepers(
    clients: Clients, ledger: Ledger, governor: Governor, *, timeouts: Timeouts, lockout: timedelta
) -> list[Keeper]:
    """One for each login whose tokens are asked for."""
    bounds = Bounds(call=timeouts.total, lockout=lockout)
    return [
        Keeper(
            login.name,
            Desk(clients.base_url, login.credentials, timeouts, governor.gate(login.lane)),
            clients.by_name[login.name].bearer,
            shelf=ledger.shelf(login.lane),
            sealer=sealer_of(login.credentials, (clients.base_url, ledger.name, login.name)),
            bounds=bounds,
        )
        for login in clients.logins
        if login.credentials is not None
    ]


def sealer_of(credentials: Credentials, place: tuple[str, str, str]) -> "Sealer":
    """The key that every worker with these credentials makes, for this (exchange, ledger, login)."""
    # cryptography: 6 MB of every worker whose token somebody else renews
    from worker.ledger.sealing import Sealer  # noqa: PLC0415

    sec = credentials.sec.get_secret_value() if credentials.sec is not None else ""
    secret = SecretStr(f"{credentials.password.get_secret_value()}\0{sec}")
    return Sealer(secret, " ".join((*place, credentials.username)))
