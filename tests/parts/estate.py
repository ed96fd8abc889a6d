"""An estate whose every part is behind a planted secret, and a day on it on which all goes wrong that can."""

import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from redis import Redis

from tests.parts.databases import PostgresServer
from tests.parts.exchange import Exchange, running_exchange
from tests.parts.plants import (
    AWKWARD,
    Plant,
)
from tests.parts.receiver import Receiver, receiving
from tests.parts.tls import Authority, Door
from tests.parts.understudy import Understudy
from tests.parts.up import Up, settings_for
from worker.audit.migrating import migrate
from worker.embedded.valkey import ensure

ROLES = Path(__file__).parents[2] / "deploy/roles.sql"
USER, DATABASE = "planted", "estate"


def planted(name: str, awkward: str = AWKWARD) -> Plant:
    return Plant(name, f"{secrets.token_hex(8)}{awkward}{secrets.token_hex(8)}")


class Plants:
    """What must never be seen; the wrong ones are somebody's right ones elsewhere."""

    def __init__(self) -> None:
        self.token = planted("token", "/+%:@")
        self.redis = planted("Redis' password")
        self.database = planted("database's password")
        self.alert = planted("alert address", "")
        self.wrong_token = planted("wrong token", "/+%:@")
        self.wrong_password = planted("wrong password")

    def all(self) -> list[Plant]:
        return list(vars(self).values())


@dataclass
class Estate:
    """All parts, each behind its secret, and what they left behind."""

    folder: Path
    plants: Plants
    doors: Mapping[str, Door]
    addresses: Mapping[str, str]
    environment: Mapping[str, str]
    exchange: Exchange
    receiver: Receiver
    redis: "Redis"
    database: "psycopg.Connection[Any]"
    opened: ExitStack

    def up(self) -> Up:
        """`cancelq up`, with its log and all that Celery's events say kept."""
        log = self.folder / "up.out"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker", "up"],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.opened.callback(process.wait)
        self.opened.callback(process.kill)
        return Up(process, self.folder / "home", log, self.environment)

    def cancelq(self, *arguments: str, **settings: str) -> Understudy:
        """One command beside the others; what it says goes into a file."""
        changed = {f"CANCELQ_{name.upper()}": value for name, value in settings.items()}
        log = self.folder / f"{'-'.join(arguments)}-{secrets.token_hex(4)}.out"
        return Understudy(arguments, {**self.environment, **changed}, log, None)

    def address(self, of: str, password: Plant) -> str:
        return self.addresses[of].replace("PASSWORD", password.in_url)

    def outcomes(self) -> int:
        return int(self.database.execute("SELECT count(*) FROM outcomes").fetchall()[0][0])


@contextmanager
def estate(folder: Path, authority: Authority, postgres: PostgresServer) -> Iterator[Estate]:
    """TLS doors before Valkey, PostgreSQL and the exchange, a login behind each, and `cancelq up` with Flower."""
    plants = Plants()
    with ExitStack() as opened:
        valkey = opened.enter_context(ensure(folder / "valkey"))
        exchange = opened.enter_context(running_exchange())
        receiver = opened.enter_context(receiving())
        redis = opened.enter_context(Redis.from_url(valkey.url))
        redis.execute_command("ACL", "SETUSER", USER, "on", f">{plants.redis.value}", "~*", "&*", "+@all")
        context = authority.server("localhost")
        doors = {
            "redis_url": Door(context, urlsplit(valkey.url).path),
            "database_url": Door(context, f"{postgres.folder}/.s.PGSQL.5432", asks_first=True),
            "exchange_url": Door(context, exchange.port),
        }
        for door in doors.values():
            opened.enter_context(door)
        database = opened.enter_context(_database(postgres, plants))
        addresses = {
            "redis_url": f"rediss://{USER}:PASSWORD@localhost:{doors['redis_url'].port}/0?ssl_ca_certs={authority.file}",
            "database_url": f"postgresql://{USER}:PASSWORD@localhost:{doors['database_url'].port}/{DATABASE}"
            f"?sslrootcert={authority.file}",
        }
        secret_files = {
            "access_token": plants.token.value,
            "redis_url": addresses["redis_url"].replace("PASSWORD", plants.redis.in_url),
            "database_url": addresses["database_url"].replace("PASSWORD", plants.database.in_url),
            "alert_url": f"http://127.0.0.1:{receiver.server.server_port}/T0/{plants.alert.value}",
        }
        (folder / "secrets").mkdir(mode=0o700)
        for name, value in secret_files.items():
            (folder / "secrets" / f"cancelq_{name}").write_text(f"{value}\n")
        environment = settings_for(
            folder / "home",
            access_token=None,
            secrets_dir=str(folder / "secrets"),
            exchange_url=f"https://localhost:{doors['exchange_url'].port}/v1",
            retry_budget="5",
            confirm_budget="5",
        ) | {"REQUESTS_CA_BUNDLE": str(authority.file)}
        yield Estate(
            folder, plants, doors, addresses, environment, exchange, receiver, redis, database, opened
        )


@contextmanager
def _database(postgres: PostgresServer, plants: Plants) -> Iterator["psycopg.Connection[Any]"]:
    """A writer of roles.sql whom only a password lets in; gives the owner's connection."""
    access = postgres.folder / "cluster" / "pg_hba.conf"
    access.write_text(f"local all {USER} scram-sha-256\n{access.read_text()}")
    postgres.run(f"CREATE DATABASE {DATABASE}", "SELECT pg_reload_conf()")
    migrate(postgres.url(DATABASE))
    with psycopg.connect(postgres.url(DATABASE), autocommit=True) as owner:
        owner.execute(ROLES.read_bytes())
        owner.execute(
            f"CREATE ROLE {USER} LOGIN PASSWORD '{plants.database.value}' IN ROLE cancelq_writer".encode()
        )
        yield owner
    postgres.run(f"DROP DATABASE {DATABASE} WITH (FORCE)", f"DROP ROLE {USER}")
