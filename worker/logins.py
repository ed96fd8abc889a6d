"""The exchange's logins and which accounts each of them serves. Knows their secrets; never speaks to the exchange."""

import os
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from worker.errors import ConfigError
from worker.job import DEFAULT_LOGIN
from worker.secret import SecretStr
from worker.settings import LOGIN_PARTS, Settings, is_header_text

FILE = "CANCELQ_CREDENTIALS"
MOST_FILE_BYTES = 1024 * 1024
# What a file may say of a login; the exchange's own limits of length stand beside each.
LENGTHS = {"username": 64, "password": 64, "app_id": 64, "app_version": 64, "cid": 64}
LENGTHS |= {"sec": 8192, "device_id": 64, "access_token": 8192}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What an access token is asked for with."""

    username: str
    password: SecretStr
    app_id: str | None = None
    app_version: str | None = None
    cid: str | None = None
    sec: SecretStr | None = None
    device_id: str = ""  # one and the same on all hosts: the exchange approves devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One user of the exchange: either a token that somebody else renews, or what tokens are asked for with."""

    name: str
    accounts: frozenset[str] = field(default_factory=frozenset)  # none: all that no other login names
    token: SecretStr | None = None
    credentials: Credentials | None = None

    @property
    def lane(self) -> str:
        """What the ledger calls it: the login of all accounts that nobody names is its default one."""
        if not self.accounts:
            return DEFAULT_LOGIN
        return self.name if self.name != DEFAULT_LOGIN else f"{DEFAULT_LOGIN}="


def lanes(logins: Sequence[Login]) -> dict[str, str]:
    """Account → lane, of all accounts that are named."""
    return {account: login.lane for login in logins for account in login.accounts}


def logins_from(settings: Settings) -> tuple[Login, ...]:
    """Every login that is configured, at least one; ConfigError says what is missing or contradicts itself."""
    if settings.credentials is not None:
        return _from_file(settings.credentials)
    said = {name: _plain(getattr(settings, name)) for name in (*LOGIN_PARTS, "access_token")}
    found = {name: value for name, value in said.items() if value is not None}
    if not found:
        raise ConfigError(
            "CANCELQ_ACCESS_TOKEN is not set, nor is CANCELQ_USERNAME with CANCELQ_PASSWORD, nor CANCELQ_CREDENTIALS; "
            "the exchange needs a bearer token"
        )
    return (_login(DEFAULT_LOGIN, found, say=lambda key: f"CANCELQ_{key.upper()}"),)


def login_of(logins: Sequence[Login], account: str) -> Login | None:
    """Who acts for `account`: the login that names it, else the one that names none; None if nobody does."""
    named = next((login for login in logins if account in login.accounts), None)
    return named or next((login for login in logins if not login.accounts), None)


def secrets_in(logins: Sequence[Login]) -> set[str]:
    """All that must never be shown."""
    parts = [part for login in logins for part in (login.token, *_secret_parts(login.credentials))]
    return {part.get_secret_value() for part in parts if part is not None}


def _secret_parts(credentials: Credentials | None) -> tuple[SecretStr | None, ...]:
    return (credentials.password, credentials.sec) if credentials is not None else ()


def _plain(value: str | SecretStr | None) -> str | None:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


# -------------------------------------------------------------------------------------------------- file


def _from_file(path: Path) -> tuple[Login, ...]:
    tables = _tables(path)
    logins = tuple(_from_table(name, table) for name, table in tables.items())
    if not logins:
        raise ConfigError(f"{FILE}: {path} names no login; right would be a table such as [main]")
    open_ones = [login.name for login in logins if not login.accounts]
    if len(open_ones) > 1:
        raise ConfigError(
            f"{FILE}: {' and '.join(open_ones)} name no accounts; only one login may serve all others"
        )
    owners: dict[str, str] = {}
    for login in logins:
        for account in sorted(login.accounts):
            if owners.setdefault(account, login.name) != login.name:
                raise ConfigError(
                    f"{FILE}: the account {account} is named by {owners[account]} and {login.name}"
                )
    return logins


def _tables(path: Path) -> Mapping[str, Any]:
    """The file's tables. It is looked at once it is open, so that what was looked at is what is read."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IRWXO:
                raise ConfigError(f"{FILE}: {path} can be used by others; right would be: chmod 600 {path}")
            text = file.read(MOST_FILE_BYTES + 1)
        if len(text) > MOST_FILE_BYTES:
            raise ConfigError(
                f"{FILE}: {path} is longer than {MOST_FILE_BYTES} bytes; that is no list of logins"
            )
        return tomllib.loads(text.decode())
    except OSError as error:
        raise ConfigError(f"{FILE}: {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        # Not `from`: the parser quotes what it met, which may be half a password.
        raise ConfigError(f"{FILE}: {path} is not a TOML file in UTF-8") from None


def _from_table(name: str, table: Any) -> Login:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        raise ConfigError(
            f"{FILE}: [{name[:80]}]: a login's name is 1 to 64 letters, digits, dots, hyphens, underscores"
        )
    if not isinstance(table, dict):
        raise ConfigError(f"{FILE}: {name} must be a table, such as [{name}]")
    unknown = sorted(table.keys() - LENGTHS.keys() - {"accounts"})
    if unknown:
        known = ", ".join(["accounts", *sorted(LENGTHS)])
        raise ConfigError(f"{FILE}: [{name}] {unknown[0]}: unknown; right would be one of: {known}")
    accounts = table.get("accounts", [])
    if not isinstance(accounts, list) or not all(isinstance(a, str) and 0 < len(a) <= 64 for a in accounts):
        raise ConfigError(f"{FILE}: [{name}] accounts: must be a list of texts of 1 to 64 characters")
    if "accounts" in table and not accounts:
        raise ConfigError(
            f"{FILE}: [{name}] accounts: is empty; leave it out to serve all that no other login names"
        )
    found = {key: value for key, value in table.items() if key != "accounts"}
    return _login(name, found, accounts=frozenset(accounts), say=lambda key: f"{FILE}: [{name}] {key}")


def _login(name: str, found: Mapping[str, Any], *, say: Any, accounts: frozenset[str] = frozenset()) -> Login:
    """A login as told; `say` names a key for whoever has to mend it."""
    for key, value in found.items():
        if not isinstance(value, str) or not 0 < len(value) <= LENGTHS[key]:
            raise ConfigError(f"{say(key)}: must be a text of 1 to {LENGTHS[key]} characters")
    if "access_token" in found:
        return Login(name=name, accounts=accounts, token=_sole_token(found, say))
    for key, other in (("username", "password"), ("password", "username"), ("cid", "sec"), ("sec", "cid")):
        if other not in found and (key in found or key in {"username", "password"}):
            raise ConfigError(f"{say(other)} is missing; it is needed beside {key}")
    return Login(name=name, accounts=accounts, credentials=_credentials(found))


def _sole_token(found: Mapping[str, str], say: Any) -> SecretStr:
    beside = sorted(found.keys() - {"access_token"})
    if beside:
        raise ConfigError(f"{say(beside[0])}: contradicts {say('access_token')}; set one of them")
    if not is_header_text(found["access_token"]):
        raise ConfigError(
            f"{say('access_token')}: must be visible ASCII characters, without blanks or line ends"
        )
    return SecretStr(found["access_token"])


def _credentials(found: Mapping[str, str]) -> Credentials:
    """An unnamed device gets a name that is the same wherever this user logs in."""
    known: dict[str, Any] = {"device_id": str(uuid5(NAMESPACE_URL, f"cancelq:{found['username']}")), **found}
    for key in known.keys() & {"password", "sec"}:
        known[key] = SecretStr(known[key])
    return Credentials(**known)
