"""A login's token for a look from beside the workers: theirs, never a session of one's own."""

from contextlib import ExitStack, suppress
from datetime import timedelta

from worker.embedded.places import is_known, redis_place
from worker.errors import CancelqError
from worker.ledger.client import Ledger
from worker.logins import Login, login_of, logins_from
from worker.secret import SecretStr
from worker.settings import Settings
from worker.work.keeper import sealer_of

BOUND = timedelta(seconds=1)


class NoToken(CancelqError):
    """There is none to borrow; says why."""


def token_for(account: str, settings: Settings) -> SecretStr:
    """The token of the login that acts for the account; NoToken, ConfigError or LedgerUnavailable say why there is none."""
    login = login_of(logins_from(settings), account)
    if login is None:
        raise NoToken(f"no login serves the account {account}")
    if (trouble := locked_out(settings)) is not None:
        raise NoToken(trouble)
    if login.token is not None:
        return login.token
    if not is_known(settings):
        raise NoToken("no worker has logged in yet")
    with ExitStack() as opened:
        url = opened.enter_context(redis_place(settings))
        return borrowed(login, settings, opened.enter_context(Ledger(url, settings.ledger, timeout=BOUND)))


def locked_out(settings: Settings) -> str | None:
    """Why no login of this ledger may be used now, if one is locked out; None also where no ledger can be asked."""
    if is_known(settings):
        with suppress(CancelqError), ExitStack() as opened:
            url = opened.enter_context(redis_place(settings))
            ledger = opened.enter_context(Ledger(url, settings.ledger, timeout=BOUND))
            if (until := ledger.survey().locked_out_until) is not None:
                return f"locked out until {until:%Y-%m-%d %H:%M:%S} UTC, and a call within it may lengthen it"
    return None


def borrowed(login: Login, settings: Settings, ledger: Ledger) -> SecretStr:
    """What the workers of this ledger keep for the login."""
    shelved = ledger.shelf(login.lane).look()
    if login.credentials is None or not shelved.sealed or shelved.ends_in <= timedelta(0):
        raise NoToken(shelved.trouble or "no worker has logged in yet")
    place = (settings.exchange_url, ledger.name, login.name)
    token = sealer_of(login.credentials, place).open(shelved.sealed, shelved.revision)
    if token is None:
        raise NoToken("the workers keep this login with other credentials")
    return token
