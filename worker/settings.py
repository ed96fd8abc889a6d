"""Every setting, validated at start: environment, `.env`, or files of a secrets directory."""

import os
import re
from collections.abc import Callable
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from dotenv import dotenv_values
from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from worker.errors import ConfigError

PREFIX = "CANCELQ_"
ENV_FILE = ".env"
DEMO_EXCHANGE = "https://demo.tradovateapi.com/v1"
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
# Where container engines put secret files; another folder is named by CANCELQ_SECRETS_DIR.
SECRETS_DIR = "/run/secrets"


def _plain_seconds(value: object) -> object:
    """`2.5` means seconds; pydantic alone would read the text as an ISO duration and refuse it."""
    try:
        return timedelta(seconds=float(value)) if isinstance(value, str) else value
    except (ValueError, OverflowError):
        raise ValueError("must be a number of seconds") from None


Seconds = Annotated[timedelta, BeforeValidator(_plain_seconds)]


def seconds(default: float, low: float, high: float) -> Any:
    """A duration setting in seconds, bounded on both sides."""
    return Field(timedelta(seconds=default), ge=timedelta(seconds=low), le=timedelta(seconds=high))


def _split(text: str) -> SplitResult | None:
    """The parts of an address; None if it has none, or if its host or port can't be."""
    try:
        url = urlsplit(text)
        possible = url.scheme and (url.port is None or url.port > 0)
    except ValueError:
        return None
    return url if possible else None


def _is_redis(url: SplitResult) -> bool:
    return url.scheme in {"redis", "rediss"} or (url.scheme == "unix" and url.path not in {"", "/"})


def _is_web(url: SplitResult) -> bool:
    return url.scheme in {"http", "https"} and bool(url.hostname)


def _is_database(url: SplitResult) -> bool:
    return url.scheme.partition("+")[0] in {"postgresql", "postgres", "sqlite"}


def names_live(exchange_url: str) -> bool:
    """Whether real money is behind this address: anything but a demo host or loopback."""
    host = urlsplit(exchange_url).hostname or ""
    return host not in LOOPBACK and not host.startswith("demo.")


ADDRESSES: dict[str, tuple[Callable[[SplitResult], bool], str]] = {
    "alert_url": (_is_web, "https://host/path"),
    "redis_url": (_is_redis, "redis://host:6379/0, rediss://host:6379/0 or unix:///path/to/socket"),
    "database_url": (_is_database, "postgresql://user:password@host/database or sqlite:///path/to/file"),
}


class Settings(BaseSettings):
    """The configuration of one process. Durations are seconds when written as text."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=ENV_FILE, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    redis_url: SecretStr | None = None
    database_url: SecretStr | None = None
    home: Path = Path(".cancelq")
    ledger: str = "cancelq"
    exchange_url: str = DEMO_EXCHANGE
    access_token: SecretStr | None = None
    concurrency: int = Field(64, ge=1, le=512)
    connect_timeout: Seconds = seconds(2, 0.05, 60)
    read_timeout: Seconds = seconds(5, 0.05, 60)
    total_timeout: Seconds = seconds(8, 0.1, 120)
    lease: Seconds = seconds(2.5, 1, 60)
    transient_reasons: Annotated[frozenset[str], NoDecode] = frozenset(
        {"AnotherCommandPending", "RiskCheckTimeout", "ExecutionProviderUnavailable"}
    )
    max_attempts: int = Field(20, ge=1, le=1000)
    retry_budget: Seconds = seconds(60, 0, 7 * 86400)
    confirm: Literal["on", "off"] = "on"
    confirm_budget: Seconds = seconds(60, 1, 7 * 86400)
    lockout: Seconds = seconds(3600, 1, 86400)
    dedupe_life: Seconds = seconds(86400, 1, 30 * 86400)
    alert_url: SecretStr | None = None
    dry_run: bool = False
    log: Literal["json", "text"] = "text"

    @field_validator("transient_reasons", mode="before")
    @classmethod
    def _comma_list(cls, value: object) -> object:
        if isinstance(value, str):
            return frozenset(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("ledger")
    @classmethod
    def _ledger(cls, value: str) -> str:
        """It stands in braces in every key, and in patterns of ACL rules."""
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
            raise ValueError("must be 1 to 64 letters (a to z), digits, dots, hyphens or underscores")
        return value

    @field_validator("redis_url", "database_url", "alert_url")
    @classmethod
    def _address(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """Only what it is an address of; whoever connects knows the rest."""
        fits, right = ADDRESSES[str(info.field_name)]
        url = _split(value.get_secret_value()) if value is not None else None
        if value is not None and (url is None or not fits(url)):
            msg = f"must be {right}"
            raise ValueError(msg)
        return value

    @field_validator("access_token")
    @classmethod
    def _token(cls, value: SecretStr | None) -> SecretStr | None:
        """It goes into a header as it is."""
        if value is not None and not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("must be visible ASCII characters, without blanks or line ends")
        return value

    @field_validator("exchange_url")
    @classmethod
    def _exchange(cls, value: str) -> str:
        url = _split(value.rstrip("/"))
        if url is None or not re.fullmatch(r"https?://[!-~]+/v1", url.geturl()) or url.query or url.fragment:
            msg = f"must be a base URL that ends in /v1, such as {DEMO_EXCHANGE}"
            raise ValueError(msg)
        if url.username or url.password:
            raise ValueError("must not carry credentials; use CANCELQ_ACCESS_TOKEN")
        if url.scheme == "http" and url.hostname not in LOOPBACK:
            raise ValueError("plain http is allowed to loopback only; use https")
        return url.geturl()

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        if self.total_timeout < max(self.connect_timeout, self.read_timeout):
            raise ValueError(
                "CANCELQ_TOTAL_TIMEOUT must be at least CANCELQ_CONNECT_TIMEOUT and CANCELQ_READ_TIMEOUT"
            )
        return self

    @property
    def is_live(self) -> bool:
        return names_live(self.exchange_url)

    @property
    def environment(self) -> str:
        """What every audit row carries to say which exchange it speaks of."""
        return self.exchange_url


# Named by the contract, not built yet: refused rather than silently ignored.
NOT_YET = frozenset(
    {"USERNAME", "PASSWORD", "APP_ID", "APP_VERSION", "CID", "SEC", "DEVICE_ID", "CREDENTIALS"}
    | {"RATE_LIMIT", "METRICS_PORT"}
)
KNOWN = frozenset(name.upper() for name in Settings.model_fields) | {"SECRETS_DIR"}


def load_settings() -> Settings:
    """Read and validate everything; a ConfigError names the setting and what would be right."""
    secrets = Path(os.environ.get(PREFIX + "SECRETS_DIR", SECRETS_DIR))
    if PREFIX + "SECRETS_DIR" in os.environ and not secrets.is_dir():
        raise ConfigError(f"{PREFIX}SECRETS_DIR: no such folder: {secrets}")
    folder = secrets if secrets.is_dir() else None
    _refuse_unknown(_names(folder))
    try:
        return Settings(_secrets_dir=folder)  # type: ignore[call-arg]
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(e["loc"], e["msg"]) for e in error.errors())) from None
    except SettingsError as error:
        raise ConfigError(f"{PREFIX}SECRETS_DIR: {error}; its files must be readable as UTF-8") from error


def _explain(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"{PREFIX}{str(location[0]).upper()}: {message}" if location else message


def _names(secrets: Path | None) -> set[str]:
    """Whatever is set, wherever it is set."""
    try:
        filed = set(dotenv_values(ENV_FILE) if Path(ENV_FILE).is_file() else ())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{ENV_FILE} is not UTF-8 text") from error
    listed = {path.name for path in secrets.iterdir()} if secrets is not None else set()
    return {name.upper() for name in {*os.environ, *filed, *listed}}


def _refuse_unknown(names: set[str]) -> None:
    for name in sorted(names):
        key = name.removeprefix(PREFIX)
        if key == name or key in KNOWN:
            continue
        if key in NOT_YET:
            raise ConfigError(f"{name} is not supported by this version of cancelq; unset it")
        near = get_close_matches(key, KNOWN, n=1)
        hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
        raise ConfigError(f"{name} is not a setting of cancelq{hint}")
