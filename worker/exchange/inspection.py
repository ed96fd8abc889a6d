"""Looks at the exchange as a worker would meet it: its name, its door, its token. Reads only, never a POST."""

import socket
import ssl
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from worker.clock import Offset, monotonic, offset, utc_now
from worker.errors import CancelqError
from worker.exchange.client import Exchange
from worker.exchange.line import Timeouts
from worker.exchange.names import NAMES
from worker.exchange.token import Bearer
from worker.exchange.trust import trusted
from worker.job import OrderId
from worker.reply import Answered, Reply
from worker.secret import SecretStr

# Nobody's order: the answer shows what the exchange thinks of the token, not of an order.
NOBODYS_ORDER = OrderId(1)
# Date has whole seconds, and is written before the answer travels.
DATE_ERROR = timedelta(seconds=1)


class Unreachable(CancelqError):
    """No connection to the exchange; `step` says how far it got."""

    def __init__(self, step: str, message: str) -> None:
        super().__init__(message)
        self.step = step


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A connection that could be made: to which address, how fast, and until when its certificate holds."""

    address: str
    took: timedelta
    expires: datetime | None  # None without TLS


def knock(base_url: str, bound: timedelta) -> Door:
    """Look the name up, connect, greet; each step within `bound`. Raises Unreachable."""
    url = urlsplit(base_url)
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    within, began = bound.total_seconds(), monotonic()
    try:
        addresses = NAMES.addresses(host, port, within)
    except (OSError, UnicodeError) as error:
        raise Unreachable("name", f"{host} cannot be looked up: {error}") from error
    family, ip, _ = addresses[0]
    with closing(socket.socket(family, socket.SOCK_STREAM)) as plain:
        plain.settimeout(within)
        try:
            plain.connect((ip, port))
        except OSError as error:
            raise Unreachable("connection", f"{host} ({ip}) port {port}: {error}") from error
        expires = _greet(plain, host) if url.scheme == "https" else None
    return Door(address=f"{ip}:{port}", took=monotonic() - began, expires=expires)


def try_token(base_url: str, token: SecretStr, bound: timedelta) -> Reply:
    """Read an order that is nobody's; the reply tells whether the token is taken."""
    exchange = Exchange(
        base_url,
        Bearer.fixed(token),
        timeouts=Timeouts(connect=bound, read=bound, total=bound),
    )
    try:
        return exchange.orders([NOBODYS_ORDER]).reply
    finally:
        exchange.close()


def clock(reply: Answered) -> Offset | None:
    """How far the exchange's clock is ahead, by its Date header; None without one."""
    try:
        theirs = parsedate_to_datetime(reply.headers["date"])
    except (KeyError, ValueError):
        return None
    aware = theirs if theirs.tzinfo is not None else theirs.replace(tzinfo=UTC)
    # A Date stands for the whole second that it names.
    measured = offset(aware + DATE_ERROR / 2, reply.sent_at, reply.answered_at)
    return Offset(ahead=measured.ahead, error=measured.error + DATE_ERROR)


def _greet(plain: socket.socket, host: str) -> datetime:
    """TLS as requests does it, with the same certificates; gives when the server's own runs out."""
    try:
        with trusted().wrap_socket(plain, server_hostname=host) as guarded:
            certificate = guarded.getpeercert() or {}
    except (OSError, ValueError) as error:
        raise Unreachable("TLS", f"{host}: {error}") from error
    ends = str(certificate.get("notAfter", ""))
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC) if ends else utc_now()
