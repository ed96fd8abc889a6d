"""How cancelq talks to Redis: never longer than told, never twice, never with a password in a message."""

from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, SSLConnection, parse_url
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from worker.errors import ConfigError

WRONG_URL = (
    "CANCELQ_REDIS_URL: must be redis://, rediss:// or unix:// with valid options, "
    "such as redis://localhost:6379/0"
)


def open_pool(
    url: str, *, connect_timeout: timedelta, timeout: timedelta, decode: bool = True
) -> ConnectionPool:
    """Connections that give up after one try; what the URL says about time-outs and retries does not count."""
    options = server_options(url) | {
        "socket_connect_timeout": connect_timeout.total_seconds(),
        "socket_timeout": timeout.total_seconds(),
        # redis-py repeats ten times by itself, also a call that may have been executed.
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "retry_on_error": [],
        # No greeting: a connection costs no round trip before the first command (AUTH and SELECT apart).
        "protocol": 2,
        "driver_info": None,
        "decode_responses": decode,
    }
    if issubclass(options.get("connection_class", object), SSLConnection):
        # A round trip takes in the tickets that TLS 1.3 sends unasked: redis-py calls a connection with them "not ready".
        options.setdefault("client_name", "cancelq")
    pool = ConnectionPool(**options)
    try:
        pool.connection_class(**pool.connection_kwargs)  # connects to nothing, but knows its options
    except TypeError as error:
        raise ConfigError(WRONG_URL) from error
    return pool


def open_client(url: str, *, timeout: timedelta) -> "Redis":
    return Redis(connection_pool=open_pool(url, connect_timeout=timeout, timeout=timeout))


def server_options(url: str) -> dict[str, Any]:
    """What redis-py reads out of an address; ConfigError if that is nothing."""
    try:
        parts = urlsplit(url)
        is_known = parts.scheme in {"redis", "rediss", "unix"} and parts.port != 0
        options: dict[str, Any] | None = parse_url(url) if is_known else None  # type: ignore[no-untyped-call]
    except ValueError:
        options = None
    if options is None:
        raise ConfigError(WRONG_URL)
    return options


def broker_settings(url: str, transport: str = "redis") -> dict[str, Any]:
    """The same server for Celery, with the same verification: left to itself kombu verifies no certificate."""
    options = server_options(url)
    login = quote(options.get("username") or "", safe="")
    if options.get("password"):
        login += ":" + quote(options["password"], safe="")
    at, database = f"{login}@" if login else "", options.get("db", 0)
    if "path" in options:
        return {"broker_url": f"{transport}+socket://{at}{quote(options['path'])}?virtual_host={database}"}
    host = options.get("host", "localhost")
    place = f"{f'[{host}]' if ':' in host else host}:{options.get('port', 6379)}"
    settings: dict[str, Any] = {"broker_url": f"{transport}://{at}{place}/{database}"}
    if urlsplit(url).scheme == "rediss":
        tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
        settings["broker_use_ssl"] = {"ssl_cert_reqs": "required", **tls}
    return settings


def address(url: str) -> str:
    """The server's address as a person may read it: without user and password."""
    server_options(url)
    parts = urlsplit(url.replace("#", "%23"))  # in a password it would begin a fragment, and show the rest
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    return f"{parts.scheme}://{parts.hostname or 'localhost'}:{parts.port or 6379}{parts.path}"


def is_error_reply(error: RedisError) -> bool:
    """Whether the server itself said no; redis-py makes connection errors of some of its answers."""
    return isinstance(error, ResponseError) or error.status_code is not None


def lacks_functions(error: RedisError) -> bool:
    return is_error_reply(error) and "function not found" in str(error).lower()
