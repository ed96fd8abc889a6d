"""Planted secrets, and a search for them in whatever was left behind, in each way that they could be written."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from psycopg import Connection
    from redis import Redis

# What a password generator may make, and what each syntax on the way must carry: URLs, JSON, base64.
AWKWARD = "/+%:@ "


@dataclass(frozen=True)
class Plant:
    """One secret; `name` says which."""

    name: str
    value: str

    @property
    def in_url(self) -> str:
        return quote(self.value, safe="")

    def ways(self) -> Iterator[bytes]:
        """As it is, quoted for a URL, as JSON, in base64 at each of three offsets."""
        plain = self.value.encode()
        yield from {plain, self.in_url.encode(), quote_plus(self.value).encode(), quote(self.value).encode()}
        yield json.dumps(self.value)[1:-1].encode()
        for offset in range(3):
            # Only the digits that depend on nothing but the secret.
            yield base64.b64encode(bytes(offset) + plain)[4 * bool(offset) : -4]


def leaks(plants: list[Plant], remains: Mapping[str, bytes]) -> list[str]:
    """`secret in place`, for each that stands anywhere."""
    return [
        f"{plant.name} in {place}"
        for plant in plants
        for place, content in remains.items()
        if any(way in content for way in plant.ways())
    ]


def files(folder: Path, *, without: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and without not in path.parents and path != without:
            yield str(path), path.read_bytes()


def command_lines() -> Iterator[tuple[str, bytes]]:
    """Of every process of this machine, as every user may read them."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield str(entry), entry.read_bytes()
        except OSError:
            continue  # ended while we looked


def redis_content(redis: "Redis") -> Iterator[tuple[str, bytes]]:
    """Every key with its value, and what the server remembers of its clients."""
    read = {
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"list": lambda key: redis.lrange(key, 0, -1),
        b"set": redis.smembers,
        b"zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
    }
    for key in redis.scan_iter():
        yield f"Redis key {key!r}", repr((key, read[redis.type(key)](key))).encode()
    for words in (
        ["CLIENT", "LIST"],
        ["SLOWLOG", "GET", "-1"],
        ["ACL", "LOG"],
        ["FUNCTION", "LIST", "WITHCODE"],
    ):
        yield f"Redis {words[0]} {words[1]}", repr(redis.execute_command(*words)).encode()


def database_content(connection: "Connection[tuple[str]]") -> Iterator[tuple[str, bytes]]:
    """Every row of every table and view, and what the server shows of its sessions."""
    names = connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    ).fetchall()
    for name in [*(row[0] for row in names), "pg_stat_activity"]:
        rows = connection.execute(f"SELECT t::text FROM {name} t".encode()).fetchall()
        yield f"table {name}", "\n".join(row[0] for row in rows).encode()
