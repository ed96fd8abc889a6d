"""The exchange: can it be reached, is the token taken, what time does it think it is. Reads only."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit

from worker.clock import utc_now
from worker.doctor.finding import Check, Finding, each, failed, ok, skipped, warning
from worker.doctor.login_checks import configured, name_of, token_of
from worker.doctor.moments import clock_finding, milliseconds
from worker.exchange import inspection
from worker.logins import Login
from worker.reply import Answered, NotSent, Reply, Unanswered
from worker.settings import Settings, is_loopback
from worker.verdict import read_json
from worker.work.borrowed import locked_out

BOUND = timedelta(seconds=2)
CERTIFICATE_MARGIN = timedelta(days=7)
MEND = "see that this host may reach the exchange, and that CANCELQ_EXCHANGE_URL is right"
MENDS = {
    "name": "see the host's name in CANCELQ_EXCHANGE_URL, and this host's DNS",
    "connection": "see that the exchange runs there, and that no firewall stands between",
    "TLS": "see this host's clock, and that nothing between re-signs the connection; "
    "a CA of your own is named in REQUESTS_CA_BUNDLE",
}
TOKEN_MEND = "set CANCELQ_ACCESS_TOKEN to a fresh token of this exchange (live and demo have their own), or credentials"  # noqa: S105


def look(settings: Settings) -> Iterator[Finding]:
    yield which(settings)
    if settings.alert_url is not None:
        yield alerts(settings.alert_url.get_secret_value())
    logins = configured(settings)
    if isinstance(logins, Finding):
        yield logins
    try:
        door = inspection.knock(settings.exchange_url, BOUND)
    except inspection.Unreachable as error:
        yield failed(f"exchange: {error.step}", str(error), MENDS[error.step])
        if not isinstance(logins, Finding):
            yield skipped("exchange: token", "not tried, as there is no connection")
        return
    yield from connection(door)
    if isinstance(logins, Finding):
        return
    checks: list[Check] = [(name_of(login), partial(_login, login, settings)) for login in logins]
    yield from each(checks, MEND)


def _login(login: Login, settings: Settings) -> Iterator[Finding]:
    if (trouble := locked_out(settings)) is not None:
        yield skipped(name_of(login), f"not tried: {trouble}")
        return
    for found in token_of(login, settings):
        if isinstance(found, Finding):
            yield found
        else:
            yield from answer(inspection.try_token(settings.exchange_url, found, BOUND), name_of(login))


def which(settings: Settings) -> Finding:
    if settings.is_live:
        return ok("exchange", f"LIVE: {settings.exchange_url}, real orders")
    simulated = is_loopback(urlsplit(settings.exchange_url).hostname or "")
    return ok("exchange", f"{'on this host' if simulated else 'demo'}: {settings.exchange_url}")


def alerts(url: str) -> Finding:
    """Whether whoever is to be alerted can be reached; nothing is POSTed there."""
    try:
        door = inspection.knock(url, BOUND)
    except inspection.Unreachable as error:
        mend = "see CANCELQ_ALERT_URL, and whether its host runs; cancels go on without"
        return warning("alerts", str(error), mend)
    return ok("alerts", f"{door.address} can be reached")


def connection(door: inspection.Door) -> Iterator[Finding]:
    what = "exchange: connection"
    yield ok(what, f"{door.address} after {milliseconds(door.took)}{'' if door.expires is None else ', TLS'}")
    if door.expires is not None and door.expires - utc_now() < CERTIFICATE_MARGIN:
        yield warning(what, f"its certificate ends at {door.expires:%Y-%m-%d %H:%M} UTC", "tell the exchange")


def answer(reply: Reply, what: str = "exchange: token") -> Iterator[Finding]:
    """What a read of nobody's order says about token, penalties and clock."""
    match reply:
        case NotSent(error=error):
            yield failed(what, f"a read could not be sent: {error}", MEND)
        case Unanswered(error=error):
            mend = "try again; the exchange may be in maintenance"
            yield failed(what, f"a read was not answered within {BOUND.seconds} s: {error}", mend)
        case Answered():
            yield _judged(reply, what)
            ahead = inspection.clock(reply)
            yield (
                clock_finding("exchange: clock", ahead)
                if ahead is not None
                else skipped("exchange: clock", "the answer carries no Date")
            )


def _judged(reply: Answered, what: str) -> Finding:
    took = milliseconds(reply.answered_at - reply.sent_at)
    match reply.status:
        case 401 | 403:
            return failed(what, f"is not taken (HTTP {reply.status})", TOKEN_MEND)
        case 423 | 429:
            mend = "stop every program that uses this login for an hour; each call may start the hour anew"
            return failed("exchange: penalty", f"locked out (HTTP {reply.status})", mend)
        case status if status >= 500:
            return failed(
                "exchange: answer", f"HTTP {status}", "try again; the exchange may be in maintenance"
            )
        case 404:
            # Some say that a missing session looks like this as well; the list of orders did not tell more.
            return warning(what, "HTTP 404 for one order and for a list: taken, or no session", TOKEN_MEND)
        case status if 200 <= status < 300:
            return _penalty(reply) or ok(what, f"taken, a read takes {took}")
        case status:
            return failed(
                "exchange: answer", f"HTTP {status}", "see that CANCELQ_EXCHANGE_URL ends in the API's /v1"
            )


def _penalty(reply: Answered) -> Finding | None:
    body = read_json(reply)
    if isinstance(body, dict) and "p-ticket" in body:
        captcha = ", and asks for a captcha" if body.get("p-captcha") else ""
        mend = "let the login rest; workers wait by themselves"
        return warning("exchange: penalty", f"asks for {body.get('p-time')} s of patience{captcha}", mend)
    return None
