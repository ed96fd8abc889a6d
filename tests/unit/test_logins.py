"""Logins: which are configured, whom each serves, what is refused, and that no secret is shown."""

from pathlib import Path
from typing import Any

import pytest

from worker.errors import ConfigError
from worker.logins import Credentials, Login, login_of, logins_from, secrets_in
from worker.settings import Settings, settings_from

SECRET = "hunter2"
TWO = """
[alpha]
accounts = ["DEMO1", "DEMO2"]
username = "alice"
password = "hunter2"
cid = "8"
sec = "s3cret"
[beta]
access_token = "t0ken"
"""


def settings(**given: Any) -> Settings:
    return settings_from({name: str(value) for name, value in given.items()})


def filed(folder: Path, text: str | bytes, mode: int = 0o600) -> Settings:
    path = folder / "logins.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return settings(credentials=path)


def refusal(configured: Settings) -> str:
    with pytest.raises(ConfigError) as refused:
        logins_from(configured)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None or SECRET not in repr(refused.value.__cause__)
    return str(refused.value)


def test_a_token_alone_is_one_login_that_serves_every_account() -> None:
    (login,) = logins_from(settings(access_token=SECRET))
    assert (login.name, login.accounts) == ("default", frozenset())
    assert login_of((login,), "any account") is login


def test_a_device_has_the_same_name_on_every_host_and_another_for_another_user() -> None:
    def device(user: str) -> str:
        (login,) = logins_from(settings(username=user, password=SECRET))
        assert login.credentials is not None
        return login.credentials.device_id

    assert device("alice") == device("alice") != device("bob")
    (named,) = logins_from(settings(username="alice", password=SECRET, device_id="desk-7"))
    assert named.credentials is not None
    assert named.credentials.device_id == "desk-7"


def test_a_file_gives_each_account_its_login(tmp_path: Path) -> None:
    logins = logins_from(filed(tmp_path, TWO))
    served = {account: login_of(logins, account) for account in ("DEMO1", "DEMO2", "X", "default")}
    assert {account: login.name for account, login in served.items() if login} == {
        "DEMO1": "alpha",
        "DEMO2": "alpha",
        "X": "beta",
        "default": "beta",
    }
    assert secrets_in(logins) == {SECRET, "s3cret", "t0ken"}
    assert not any(secret in repr(logins) for secret in secrets_in(logins))


def test_an_account_that_no_login_names_is_served_by_nobody_where_all_name_theirs() -> None:
    one = Login(name="one", accounts=frozenset({"A"}), credentials=Credentials(username="a", password=None))  # type: ignore[arg-type]
    assert login_of((one,), "B") is None


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ({}, "CANCELQ_ACCESS_TOKEN is not set"),
        ({"username": "alice"}, "CANCELQ_PASSWORD is missing"),
        ({"password": SECRET}, "CANCELQ_USERNAME is missing"),
        ({"username": "", "password": SECRET}, "CANCELQ_USERNAME: must be a text of 1 to 64"),
        ({"username": "alice", "password": SECRET, "cid": "8"}, "CANCELQ_SEC is missing"),
        ({"username": "alice", "password": SECRET, "sec": SECRET}, "CANCELQ_CID is missing"),
        ({"credentials": Path("no/such/file")}, "cannot be read: No such file"),
    ],
)
def test_half_a_login_is_refused(given: dict[str, Any], right: str) -> None:
    assert right in refusal(settings(**given))


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (b"\xff" + SECRET.encode(), "not a TOML file"),
        (f'[a]\npassword = "{SECRET}', "not a TOML file"),
        ("", "names no login"),
        (f'password = "{SECRET}"', "must be a table"),
        ('["a b"]\nusername = "x"', "a login's name is"),
        (f'[a]\nusername = "x"\npasword = "{SECRET}"', "[a] pasword: unknown"),
        ('[a]\nusername = "x"\npassword = 7', "[a] password: must be a text"),
        ('[a]\nusername = "x"', "[a] password is missing"),
        (f'[a]\naccess_token = "{SECRET} x"', "[a] access_token: must be visible ASCII"),
        (f'[a]\naccess_token = "{SECRET}"\nusername = "x"', "[a] username: contradicts"),
        (f'[a]\naccess_token = "{SECRET}"\naccounts = "A"', "[a] accounts: must be a list"),
        (f'[a]\naccess_token = "{SECRET}"\naccounts = []', "[a] accounts: is empty"),
        (f'[a]\naccess_token = "{SECRET}"\n[b]\naccess_token = "t"', "a and b name no accounts"),
        (
            f'[a]\naccess_token = "{SECRET}"\naccounts = ["X"]\n[b]\naccess_token = "t"\naccounts = ["X"]',
            "the account X is named by a and b",
        ),
        ("#" * 1024 * 1025, "is longer than"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str | bytes, right: str) -> None:
    assert right in refusal(filed(tmp_path, text))


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    assert "chmod 600" in refusal(filed(tmp_path, TWO, mode=0o644))
