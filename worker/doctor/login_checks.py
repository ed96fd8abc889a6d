"""Each login: is its token taken, and where none is there yet, is one given. Never a session beside the workers' own."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta

from worker.clock import utc_now
from worker.doctor.finding import Finding, failed, skipped
from worker.embedded.places import is_known, redis_place
from worker.errors import CancelqError, ConfigError
from worker.exchange.clients import clients
from worker.exchange.line import Timeouts
from worker.job import DEFAULT_LOGIN
from worker.ledger.client import Ledger
from worker.logins import Login, logins_from
from worker.policy import policy_from
from worker.secret import SecretStr
from worker.settings import Settings
from worker.work.borrowed import NoToken, borrowed
from worker.work.governing import governor_of
from worker.work.keeper import keepers

LEDGER_BOUND = timedelta(seconds=1)
CALL_BOUND = timedelta(seconds=3)
CREDENTIALS_MEND = "see the login's user, password, cid and sec; each failed login counts, five an hour"


def configured(settings: Settings) -> tuple[Login, ...] | Finding:
    try:
        return logins_from(settings)
    except ConfigError as error:
        return failed(
            "exchange: token", f"{error}: no worker starts", "set one way to log in, see docs/operating.md"
        )


def is_misconfigured(settings: Settings) -> bool:
    """Whether a worker would refuse these settings; all else can be looked at without a login."""
    return isinstance(configured(settings), Finding)


def name_of(login: Login) -> str:
    return "exchange: token" if login.name == DEFAULT_LOGIN else f"exchange: token of {login.name}"


def token_of(login: Login, settings: Settings) -> Iterator[Finding | SecretStr]:
    """The token to try, or why there is none. Asked for only where no worker has one, and left there for them."""
    what = name_of(login)
    if login.token is not None:
        yield login.token
        return
    if not is_known(settings):
        yield skipped(what, "no ledger to keep a token in yet: the first worker logs in")
        return
    with ExitStack() as opened:
        try:
            url = opened.enter_context(redis_place(settings))
            ledger = opened.enter_context(Ledger(url, settings.ledger, timeout=LEDGER_BOUND))
            ledger.require_owner(settings.exchange_url)
            yield from _kept(login, settings, ledger)
        except CancelqError as error:
            yield skipped(what, f"not tried: {error}")


def _kept(login: Login, settings: Settings, ledger: Ledger) -> Iterator[Finding | SecretStr]:
    """The workers' token, or a new one for them."""
    with suppress(NoToken):
        yield borrowed(login, settings, ledger)
        return
    _ask(login, settings, ledger)
    try:
        yield borrowed(login, settings, ledger)
    except NoToken as error:
        wait = ledger.shelf(login.lane).look().wait
        yield failed(
            name_of(login), f"{error}; the next try is in {wait.total_seconds():.0f} s", CREDENTIALS_MEND
        )


def _ask(login: Login, settings: Settings, ledger: Ledger) -> None:
    """As a worker does, under the same right and the same limits."""
    bounds = Timeouts(connect=CALL_BOUND, read=CALL_BOUND, total=CALL_BOUND)
    policy = policy_from(settings, lambda: 0.0)
    governor = governor_of(ledger, policy, utc_now, limited=bool(settings.rate_limit))
    exchanges = clients(settings.exchange_url, [login], bounds)
    with ExitStack() as opened:
        opened.callback(exchanges.close)
        for keeper in keepers(exchanges, ledger, governor, timeouts=bounds, lockout=settings.lockout):
            opened.callback(keeper.close)
            keeper.keep()
