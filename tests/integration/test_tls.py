"""TLS to Redis, database and exchange: spoken everywhere, and only with whom the configuration trusts."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from kombu import Connection
from redis import Redis
from redis.exceptions import RedisError

from tests.parts.databases import PostgresServer
from tests.parts.exchange import Exchange, eventually
from tests.parts.fleet import Fleet
from tests.parts.ledger import Door
from tests.parts.tls import Authority
from worker import CancelQueue, NotStored
from worker.app.doorbell import TRANSPORT
from worker.audit.engine import answering, open_engine
from worker.doctor.examine import examine
from worker.doctor.finding import Finding
from worker.errors import AuditUnavailable, ConfigError, LedgerUnavailable
from worker.exchange import client, inspection
from worker.exchange.line import Timeouts
from worker.exchange.token import Bearer
from worker.ledger.client import Ledger
from worker.ledger.connection import broker_settings
from worker.reply import NotSent
from worker.secret import SecretStr
from worker.settings import settings_from

BOUND = timedelta(seconds=5)


@dataclass(frozen=True)
class Doors:
    """Where each server is met under TLS, as a client is told."""

    redis: int
    database: int
    exchange: int
    ca: Path

    def redis_url(self, host: str = "localhost") -> str:
        return f"rediss://{host}:{self.redis}/0?ssl_ca_certs={quote(str(self.ca))}"

    def database_url(self, name: str, host: str = "localhost") -> str:
        return f"postgresql://postgres@{host}:{self.database}/{name}?sslrootcert={quote(str(self.ca))}"

    def exchange_url(self, host: str = "localhost") -> str:
        return f"https://{host}:{self.exchange}/v1"


@pytest.fixture
def secured(
    open_door: Callable[..., int],
    redis_url: str,
    postgres: PostgresServer,
    exchange: Exchange,
    authority: Authority,
) -> Doors:
    return Doors(
        redis=open_door(urlsplit(redis_url).path),
        database=open_door(str(postgres.folder / ".s.PGSQL.5432"), asks_first=True),
        exchange=open_door(exchange.port),
        ca=authority.file,
    )


@pytest.fixture
def audit_name(postgres: PostgresServer, postgres_template: str, ledger_name: str) -> str:
    postgres.run(f"CREATE DATABASE {ledger_name} TEMPLATE {postgres_template}")
    return ledger_name


def test_a_cancel_is_proven_with_tls_on_every_road(
    make_fleet: Callable[..., Fleet],
    secured: Doors,
    audit_name: str,
    redis_url: str,
    exchange: Exchange,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exchange.add_orders(1)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(secured.ca))
    fleet = make_fleet(secured.redis_url(), audit_name, secured.database_url(audit_name))
    worker = fleet.fork(exchange_url=secured.exchange_url()).when_ready()
    receipt = fleet.queue().cancel(order_id=1)
    assert fleet.wait_for_end(receipt.job_id)["outcome"] == "canceled"
    # By its bell: of work that is found without one the bell stays.
    with Redis.from_url(redis_url, decode_responses=True) as redis:
        eventually(lambda: Door(redis, fleet.ledger).bells() == [], what="a bell that was heard")
    assert worker.terminate() == 0, worker.said()


def redis_says(url: str) -> str:
    with pytest.raises(LedgerUnavailable) as caught, Ledger(url, "any", timeout=BOUND) as ledger:
        ledger.ping()
    return str(caught.value)


def producer_says(url: str) -> str:
    with pytest.raises(NotStored) as caught, CancelQueue(url, "any", bound=BOUND) as queue:
        queue.cancel(order_id=1)
    return str(caught.value)


def celery_says(url: str) -> str:
    """Of the bells' own channel, which is kombu's and not ours."""
    made = broker_settings(url, TRANSPORT)
    with (
        pytest.raises(RedisError) as caught,
        Connection(made["broker_url"], ssl=made["broker_use_ssl"]) as connection,
    ):
        connection.channel().client.ping()
    return str(caught.value)


def database_says(url: str) -> str:
    engine = open_engine(url)
    with pytest.raises(AuditUnavailable) as caught, answering(engine), engine.connect():
        pass
    return str(caught.value)


def exchange_says(url: str) -> str:
    bounds = Timeouts(connect=BOUND, read=BOUND, total=BOUND)
    exchange = client.Exchange(url, Bearer.fixed(SecretStr("token")), timeouts=bounds)
    reply = exchange.cancel(b'{"orderId": 1}', client.no_permit)
    exchange.close()
    assert isinstance(reply, NotSent)
    return reply.error


def doctor_says(url: str) -> str:
    with pytest.raises(inspection.Unreachable) as caught:
        inspection.knock(url, BOUND)
    return str(caught.value)


ROADS: dict[Callable[[str], str], Callable[..., str]] = {
    redis_says: Doors.redis_url,
    producer_says: Doors.redis_url,
    celery_says: Doors.redis_url,
    database_says: lambda doors, host="localhost": doors.database_url("postgres", host),
    exchange_says: Doors.exchange_url,
    doctor_says: Doors.exchange_url,
}


def test_a_server_certified_by_a_stranger_is_refused_on_every_road(
    secured: Doors, stranger: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(stranger.file))
    misled = replace(secured, ca=stranger.file)
    for says, url in ROADS.items():
        assert "certificate verify failed" in says(url(misled)), says.__name__


def test_a_certificate_for_another_name_is_refused_on_every_road(
    secured: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(secured.ca))
    for says, url in ROADS.items():
        said = says(url(secured, "127.0.0.1"))
        assert "127.0.0.1" in said, says.__name__
        assert "certificate" in said, says.__name__


def findings(doors: Doors, host: str = "localhost") -> dict[str, Finding]:
    """By what they are about; the last of each."""
    settings = settings_from(
        {
            "redis_url": doors.redis_url(host),
            "database_url": doors.database_url("postgres", host),
            "exchange_url": doors.exchange_url(host),
        }
    )
    return {finding.what: finding for finding in examine(settings)}


def test_the_doctor_says_whose_certificate_is_believed_and_how_to_name_a_ca(
    secured: Doors, stranger: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(secured.ca))
    sound = findings(secured)
    assert {sound["redis: TLS"].grade, sound["redis"].grade, sound["exchange: connection"].grade} == {"ok"}
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(stranger.file))
    misled = findings(replace(secured, ca=stranger.file))
    for what, name in {
        "redis": "ssl_ca_certs",
        "database": "sslrootcert",
        "exchange: TLS": "REQUESTS_CA_BUNDLE",
    }.items():
        assert misled[what].grade == "failed", what
        assert name in str(misled[what].mend), what


def test_a_bundle_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nothing.pem"))
    with pytest.raises(
        ConfigError, match=r"REQUESTS_CA_BUNDLE: no CA certificates can be read from .*nothing"
    ):
        exchange_says("https://localhost/v1")
