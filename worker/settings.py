"""Every setting, validated at start: environment, `.env`, or files of a secrets directory."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit

from worker.errors import ConfigError
from worker.rate_limit import limits_from
from worker.secret import SecretStr

PREFIX = "CANCELQ_"
ENV_FILE = ".env"
DEMO_EXCHANGE = "https://demo.tradovateapi.com/v1"
# Where container engines put secret files; another folder is named by CANCELQ_SECRETS_DIR.
SECRETS_DIR = "/run/secrets"
LAST_PORT = 65535
# What one login is made of; several of them stand in the file CANCELQ_CREDENTIALS.
LOGIN_PARTS = ("username", "password", "app_id", "app_version", "cid", "sec", "device_id")
YES, NO = {"1", "true", "t", "yes", "y", "on"}, {"0", "false", "f", "no", "n", "off"}


class Endpoint(NamedTuple):
    """Where to listen."""

    host: str
    port: int


def is_header_text(text: str) -> bool:
    """Whether it can go into a header as it is."""
    return re.fullmatch(r"[!-~]+", text) is not None


def is_loopback(host: str) -> bool:
    """Whether it never leaves this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def names_live(exchange_url: str) -> bool:
    """Whether real money is behind this address: anything but a demo host or loopback."""
    host = urlsplit(exchange_url).hostname or ""
    return not is_loopback(host) and not host.startswith("demo.")


# ---------------------------------------------------------------- what a setting's text must be, and is then
# Each reader raises ValueError with what would be right, without the text: it may be a secret.


def read_as(read: Callable[[str], Any], default: Any = None, **about: Any) -> Any:
    """A setting whose text is read so; `about` is for whoever lists the settings."""
    return field(default=default, metadata={"read": read, **about})


def seconds(default: float, low: float, high: float) -> Any:
    """A duration in seconds, bounded on both sides."""
    least, most = timedelta(seconds=low), timedelta(seconds=high)
    right = f"must be a number of seconds from {low:.10g} to {high:.10g}"

    def read(text: str) -> timedelta:
        try:
            span = timedelta(seconds=float(text))
        except (ValueError, OverflowError):
            raise ValueError(right) from None
        if not least <= span <= most:
            raise ValueError(right)
        return span

    return read_as(read, timedelta(seconds=default), bounds=(least, most))


def whole(default: int, low: int, high: int) -> Any:
    """A number without fraction, bounded on both sides."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text.strip()) or not low <= int(text) <= high:
            msg = f"must be an integer from {low} to {high}"
            raise ValueError(msg)
        return int(text)

    return read_as(read, default, bounds=(low, high))


def one_of(*words: str, default: str) -> Any:
    def read(text: str) -> str:
        if text not in words:
            msg = f"must be {' or '.join(map(repr, words))}"
            raise ValueError(msg)
        return text

    return read_as(read, default)


def secret(read: Callable[[str], str] = str) -> Any:
    return read_as(lambda text: SecretStr(read(text)), secret=True)


def _yes_or_no(text: str) -> bool:
    if text.lower() not in YES | NO:
        raise ValueError("must be true or false")
    return text.lower() in YES


def _names_with_commas(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())


def _endpoint(text: str) -> Endpoint:
    """`9464` means this machine only; whoever wants more names the address."""
    host, _, port = text.rpartition(":")
    if (
        not re.fullmatch(r"[0-9]{1,5}", port)
        or int(port) > LAST_PORT
        or not re.fullmatch(r"\[[0-9a-f:]+\]|[\w.-]*", host)
    ):
        raise ValueError("must be a port (0: any free one), or address:port such as 0.0.0.0:9464")
    return Endpoint(host.strip("[]") or "127.0.0.1", int(port))


def _rate_limit(text: str) -> str:
    limits_from(text)
    return text


def _ledger(text: str) -> str:
    """It stands in braces in every key, and in patterns of ACL rules."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        raise ValueError("must be 1 to 64 letters (a to z), digits, dots, hyphens or underscores")
    return text


def _token(text: str) -> str:
    """It goes into a header as it is."""
    if not is_header_text(text):
        raise ValueError("must be visible ASCII characters, without blanks or line ends")
    return text


def _path_of_credentials(text: str) -> Path:
    """In a secrets folder the file itself may stand in the setting's place: then its text must not be shown."""
    if not text or len(text) > 1024 or re.search(r'[\n="]', text):
        raise ValueError(
            "must be the path of a file, not its text; name that file otherwise, and its path here"
        )
    return Path(text)


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


def _address(fits: Callable[[SplitResult], bool], right: str) -> Callable[[str], str]:
    """Only what it is an address of; whoever connects knows the rest."""

    def read(text: str) -> str:
        url = _split(text)
        if url is None or not fits(url):
            msg = f"must be {right}"
            raise ValueError(msg)
        return text

    return read


def _exchange(text: str) -> str:
    url = _split(text.rstrip("/"))
    if url is None or not re.fullmatch(r"https?://[!-~]+/v1", url.geturl()) or url.query or url.fragment:
        msg = f"must be a base URL that ends in /v1, such as {DEMO_EXCHANGE}"
        raise ValueError(msg)
    if url.username or url.password:
        raise ValueError("must not carry credentials; use CANCELQ_ACCESS_TOKEN")
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise ValueError("plain http is allowed to loopback only; use https")
    return url.geturl()


# -------------------------------------------------------------------------------------------- the settings

REDIS = _address(_is_redis, "redis://host:6379/0, rediss://host:6379/0 or unix:///path/to/socket")
DATABASE = _address(_is_database, "postgresql://user:password@host/database or sqlite:///path/to/file")
WEBHOOK = _address(_is_web, "https://host/path")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The configuration of one process. Durations are seconds when written as text."""

    redis_url: SecretStr | None = secret(REDIS)
    database_url: SecretStr | None = secret(DATABASE)
    home: Path = read_as(Path, Path(".cancelq"))
    ledger: str = read_as(_ledger, "cancelq")
    exchange_url: str = read_as(_exchange, DEMO_EXCHANGE)
    access_token: SecretStr | None = secret(_token)
    username: str | None = read_as(str)
    password: SecretStr | None = secret()
    app_id: str | None = read_as(str)
    app_version: str | None = read_as(str)
    cid: str | None = read_as(str)
    sec: SecretStr | None = secret()
    device_id: str | None = read_as(str)
    credentials: Path | None = read_as(_path_of_credentials)
    concurrency: int = whole(64, 1, 512)
    connect_timeout: timedelta = seconds(2, 0.05, 60)
    read_timeout: timedelta = seconds(5, 0.05, 60)
    total_timeout: timedelta = seconds(8, 0.1, 120)
    lease: timedelta = seconds(2.25, 1, 60)
    transient_reasons: frozenset[str] = read_as(
        _names_with_commas,
        frozenset({"AnotherCommandPending", "RiskCheckTimeout", "ExecutionProviderUnavailable"}),
    )
    max_attempts: int = whole(20, 1, 1000)
    retry_budget: timedelta = seconds(60, 0, 7 * 86400)
    confirm: Literal["on", "off"] = one_of("on", "off", default="on")
    confirm_budget: timedelta = seconds(60, 1, 7 * 86400)
    rate_limit: str = read_as(_rate_limit, "5000/h")
    lockout: timedelta = seconds(3600, 1, 86400)
    dedupe_life: timedelta = seconds(86400, 1, 30 * 86400)
    alert_url: SecretStr | None = secret(WEBHOOK)
    audit_down: Literal["journal", "hold"] = one_of("journal", "hold", default="journal")
    dry_run: bool = read_as(_yes_or_no, default=False)
    metrics_port: Endpoint | None = read_as(_endpoint)
    log: Literal["json", "text"] = one_of("json", "text", default="text")

    @property
    def is_live(self) -> bool:
        return names_live(self.exchange_url)

    @property
    def environment(self) -> str:
        """What every audit row carries to say which exchange it speaks of."""
        return self.exchange_url


FIELDS = {setting.name: setting for setting in fields(Settings)}
SECRET = frozenset(name.upper() for name, setting in FIELDS.items() if setting.metadata.get("secret"))
KNOWN = frozenset(name.upper() for name in FIELDS) | {"SECRETS_DIR"}


def settings_from(texts: Mapping[str, str]) -> Settings:
    """The settings of these texts, by name (`redis_url`), all others as they are by default.

    A ConfigError names every setting that is wrong and what would be right.
    """
    found: dict[str, Any] = {}
    faults: list[str] = []
    for name, text in texts.items():
        try:
            found[name] = FIELDS[name].metadata["read"](text)
        except ValueError as error:
            faults.append(f"{PREFIX}{name.upper()}: {error}")
    settings = Settings(**found)
    if faults := faults or list(_contradictions(settings)):
        raise ConfigError("; ".join(faults))
    return settings


def _contradictions(settings: Settings) -> Iterator[str]:
    if settings.total_timeout < max(settings.connect_timeout, settings.read_timeout):
        yield "CANCELQ_TOTAL_TIMEOUT must be at least CANCELQ_CONNECT_TIMEOUT and CANCELQ_READ_TIMEOUT"
    parts = [name for name in LOGIN_PARTS if getattr(settings, name) is not None][:1]
    ways = [name for name in ("access_token", "credentials") if getattr(settings, name) is not None]
    if len(named := [f"{PREFIX}{name.upper()}" for name in ways + parts]) > 1:
        yield f"{' and '.join(named)} contradict each other: there is one way to log in"


# ---------------------------------------------------------------------------------------- where they stand


def load_settings() -> Settings:
    """Read and validate everything; a ConfigError names the setting and what would be right."""
    secrets = Path(os.environ.get(PREFIX + "SECRETS_DIR", SECRETS_DIR))
    if PREFIX + "SECRETS_DIR" in os.environ and not secrets.is_dir():
        raise ConfigError(f"{PREFIX}SECRETS_DIR: no such folder: {secrets}")
    files = {path.name: path for path in _files_in(secrets)}
    written = _written()
    _refuse_unknown({name.upper() for name in {*os.environ, *written, *files}})
    # What stands further to the right counts.
    texts = _ours(files, _text_of) | _ours(written) | _ours(os.environ)
    return settings_from(texts)


def _ours(found: Mapping[str, Any], read: Callable[[Any], Any] = lambda text: text) -> dict[str, str]:
    """Texts by the settings' names; a line of `.env` without `=` sets nothing."""
    names = {name: name.upper().removeprefix(PREFIX) for name in found if name.upper().startswith(PREFIX)}
    texts = {short.lower(): read(found[name]) for name, short in names.items() if short.lower() in FIELDS}
    return {name: text for name, text in texts.items() if text is not None}


def _files_in(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        if PREFIX + "SECRETS_DIR" not in os.environ:
            return []  # a container's engine made it for others
        raise ConfigError(f"{PREFIX}SECRETS_DIR: {folder} must be readable: {error.strerror}") from error


def _text_of(path: Path) -> str | None:
    """A file's text without the line end that editors leave; a folder is none."""
    try:
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{PREFIX}SECRETS_DIR: {path} must be readable as UTF-8") from error


def _written() -> dict[str, str | None]:
    """What stands in `.env`."""
    if not Path(ENV_FILE).is_file():
        return {}
    from dotenv import dotenv_values  # noqa: PLC0415  # most processes have no such file

    try:
        return dotenv_values(ENV_FILE, interpolate=False)  # a password may have a "${"
    except UnicodeDecodeError as error:
        raise ConfigError(f"{ENV_FILE} is not UTF-8 text") from error
    except OSError as error:
        raise ConfigError(f"{ENV_FILE} must be readable: {error.strerror}") from error


def secret_files() -> list[Path]:
    """The files that somebody keeps secrets in; those of a container's engine are its own business."""
    named = os.environ.get(PREFIX + "SECRETS_DIR")
    filed = [path for path in (_files_in(Path(named)) if named else ()) if _is_secret(path.name)]
    if any(_is_secret(name) for name in _written()):
        filed.append(Path(ENV_FILE))
    return sorted(filed)


def _is_secret(name: str) -> bool:
    return name.upper().removeprefix(PREFIX) in SECRET and name.upper().startswith(PREFIX)


def _refuse_unknown(names: set[str]) -> None:
    for name in sorted(names):
        key = name.removeprefix(PREFIX)
        if key == name or key in KNOWN:
            continue
        from difflib import get_close_matches  # noqa: PLC0415  # hardly ever needed

        near = get_close_matches(key, KNOWN, n=1)
        hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
        raise ConfigError(f"{name} is not a setting of cancelq{hint}")
