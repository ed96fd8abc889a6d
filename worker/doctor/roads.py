"""Whether others on the way to a server could read or change what travels there. Connects to nothing itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from worker.doctor.finding import Finding, ok, warning
from worker.ledger.connection import server_options
from worker.settings import is_loopback


class Road(StrEnum):
    LOCAL = "it stays on this host"
    VERIFIED = "TLS, the server's certificate is verified"
    UNVERIFIED = "TLS, but whoever stands between may show any certificate, and read and change all"
    PLAIN = "no TLS: passwords and cancels can be read on the way"


@dataclass(frozen=True, slots=True)
class Naming:
    """How a server is told which CA signed its certificate."""

    what: str
    mend: str


REDIS = Naming(
    "redis: TLS",
    "CANCELQ_REDIS_URL=rediss://host:6379/0?ssl_ca_certs=/path/to/ca.pem, without ssl_cert_reqs and ssl_check_hostname",
)
DATABASE = Naming(
    "database: TLS", "add sslmode=verify-full&sslrootcert=/path/to/ca.pem to CANCELQ_DATABASE_URL"
)


def road_finding(naming: Naming, road: Road) -> Iterator[Finding]:
    if road in {Road.LOCAL, Road.VERIFIED}:
        yield ok(naming.what, road)
    else:
        yield warning(naming.what, road, f"use {naming.mend}; or let nobody else on that network")


def redis_road(url: str) -> Road:
    """As redis-py and kombu will go."""
    options = server_options(url)
    if url.startswith("rediss:"):
        required = options.get("ssl_cert_reqs", "required") in {"required", "CERT_REQUIRED"}
        return Road.VERIFIED if required and options.get("ssl_check_hostname", True) else Road.UNVERIFIED
    return Road.LOCAL if "path" in options or _is_near(options.get("host", "localhost")) else Road.PLAIN


def database_road(connection: Mapping[str, str], *, encrypted: bool) -> Road:
    """As libpq has gone: `connection` has its parameters, also those of the environment and of its files."""
    if encrypted:
        return Road.VERIFIED if connection["sslmode"] == "verify-full" else Road.UNVERIFIED
    return Road.LOCAL if _is_near(connection["host"]) else Road.PLAIN


def mend_for(said: str, naming: Naming, usual: str) -> str:
    """A certificate that is not believed is mended by naming its CA, or by the name that it was made for."""
    return f"call the server by a name in its certificate; {naming.mend}" if "certificate" in said else usual


def _is_near(host: str) -> bool:
    return is_loopback(host) or host.startswith("/")
