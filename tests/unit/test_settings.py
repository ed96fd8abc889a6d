"""Settings: what is right is taken, what is wrong is refused with its name, and no secret is ever shown."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from worker.errors import ConfigError
from worker.settings import DEMO_EXCHANGE, NOT_YET, load_settings, names_live


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No CANCELQ_ variable, and a working directory without a `.env`."""
    for name in list(os.environ):
        if name.upper().startswith("CANCELQ_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(monkeypatch: pytest.MonkeyPatch, **settings: str) -> str:
    for name, value in settings.items():
        monkeypatch.setenv(f"CANCELQ_{name}", value)
    with pytest.raises(ConfigError) as refused:
        load_settings()
    said = str(refused.value)
    assert "\n" not in said
    return said


WRONG = [
    ("CONCURRENCY", "many", "integer"),
    ("CONCURRENCY", "0", "greater than or equal to 1"),
    ("CONCURRENCY", "513", "less than or equal to 512"),
    ("CONCURRENCY", "", "integer"),
    ("MAX_ATTEMPTS", "0", "greater than or equal to 1"),
    ("LEASE", "soon", "number of seconds"),
    ("LEASE", "0.5", "greater than or equal to"),
    ("LEASE", "61", "less than or equal to"),
    ("LEASE", "nan", "number of seconds"),
    ("LEASE", "inf", "number of seconds"),
    ("LEASE", "1e300", "number of seconds"),
    ("LEASE", "", "number of seconds"),
    ("LEASE", "PT3S", "number of seconds"),
    ("CONNECT_TIMEOUT", "0", "greater than or equal to"),
    ("READ_TIMEOUT", "-1", "greater than or equal to"),
    ("TOTAL_TIMEOUT", "3600", "less than or equal to"),
    ("RETRY_BUDGET", "-1", "greater than or equal to"),
    ("CONFIRM", "maybe", "'on' or 'off'"),
    ("CONFIRM_BUDGET", "0", "greater than or equal to"),
    ("LOCKOUT", "0", "greater than or equal to"),
    ("DEDUPE_LIFE", "0", "greater than or equal to"),
    ("LOG", "xml", "'json' or 'text'"),
    ("LEDGER", "a b", "must be 1 to 64 letters"),
    ("LEDGER", "{x}", "must be 1 to 64 letters"),
    ("LEDGER", "", "must be 1 to 64 letters"),
    ("EXCHANGE_URL", "", "ends in /v1"),
    ("EXCHANGE_URL", "demo.tradovateapi.com/v1", "ends in /v1"),
    ("EXCHANGE_URL", "https://demo.tradovateapi.com", "ends in /v1"),
    ("EXCHANGE_URL", "ftp://demo.tradovateapi.com/v1", "ends in /v1"),
    ("EXCHANGE_URL", "http://demo.tradovateapi.com/v1", "loopback only"),
    ("EXCHANGE_URL", "http://127.0.0.1.example.com/v1", "loopback only"),
    ("EXCHANGE_URL", "https://demo.tradovateapi.com/v1?a=/v1", "ends in /v1"),
    ("EXCHANGE_URL", "https://demo.tradovateapi.com/v1#/v1", "ends in /v1"),
    ("EXCHANGE_URL", "https://demo.tradovateapi.com:port/v1", "ends in /v1"),
    ("EXCHANGE_URL", "https://demo.tradovateapi.com:99999/v1", "ends in /v1"),
    ("EXCHANGE_URL", "https://demo tradovateapi.com/v1", "ends in /v1"),
    ("EXCHANGE_URL", "https://[::1/v1", "ends in /v1"),
    ("EXCHANGE_URL", "https://me:hunter2@demo.tradovateapi.com/v1", "CANCELQ_ACCESS_TOKEN"),
    ("ACCESS_TOKEN", "", "visible ASCII"),
    ("ACCESS_TOKEN", "hunter2\n", "visible ASCII"),
    ("ACCESS_TOKEN", "hunter 2", "visible ASCII"),
    ("ACCESS_TOKEN", "hünter2", "visible ASCII"),
    ("REDIS_URL", "", "redis://"),
    ("REDIS_URL", "localhost:6379", "redis://"),
    ("REDIS_URL", "http://:hunter2@localhost", "redis://"),
    ("REDIS_URL", "redis://:hunter2@localhost:port/0", "redis://"),
    ("REDIS_URL", "redis://:hunter2@[::1/0", "redis://"),
    ("REDIS_URL", "unix://", "redis://"),
    ("DATABASE_URL", "", "postgresql://"),
    ("DATABASE_URL", "audit.sqlite3", "postgresql://"),
    ("DATABASE_URL", "mysql://me:hunter2@localhost/audit", "postgresql://"),
    ("DATABASE_URL", "postgresql://me:hunter2@localhost:port/audit", "postgresql://"),
    ("SECRETS_DIR", "no/such/folder", "no such folder"),
]


@pytest.mark.parametrize(("name", "value", "right"), WRONG)
def test_a_wrong_setting_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, right: str
) -> None:
    said = refusal(monkeypatch, **{name: value})
    assert said.startswith(f"CANCELQ_{name}: ")
    assert right in said
    assert "hunter2" not in said
    assert "hünter2" not in said


def test_contradictions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "CANCELQ_TOTAL_TIMEOUT" in refusal(monkeypatch, TOTAL_TIMEOUT="3", READ_TIMEOUT="5")


def test_all_faults_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(monkeypatch, LEASE="soon", LOG="xml")
    assert "CANCELQ_LEASE: " in said
    assert "CANCELQ_LOG: " in said


def test_a_misspelt_setting_is_refused_with_the_right_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "did you mean CANCELQ_CONCURRENCY?" in refusal(monkeypatch, CONCURENCY="8")


@pytest.mark.parametrize("name", sorted(NOT_YET))
def test_a_setting_that_is_not_built_yet_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert f"CANCELQ_{name} is not supported" in refusal(monkeypatch, **{name: "1"})


@pytest.mark.parametrize(
    ("line", "right"),
    [("CANCELQ_CONCURENCY=8", "CANCELQ_CONCURRENCY"), ("CANCELQ_CID=1", "not supported")],
)
def test_the_env_file_is_held_to_the_same_names(
    monkeypatch: pytest.MonkeyPatch, nothing_set: Path, line: str, right: str
) -> None:
    (nothing_set / ".env").write_text(f"OTHER=1\n{line}\n")
    assert right in refusal(monkeypatch)


def test_an_env_file_that_is_no_text_is_refused(monkeypatch: pytest.MonkeyPatch, nothing_set: Path) -> None:
    (nothing_set / ".env").write_bytes(b"CANCELQ_LOG=\xff\xfe\n")
    assert ".env" in refusal(monkeypatch)


def test_a_secret_that_is_no_text_is_refused(monkeypatch: pytest.MonkeyPatch, nothing_set: Path) -> None:
    (nothing_set / "cancelq_access_token").write_bytes(b"\xff\xfe")
    assert "access_token" in refusal(monkeypatch, SECRETS_DIR=str(nothing_set))


def test_a_misspelt_secret_is_refused(monkeypatch: pytest.MonkeyPatch, nothing_set: Path) -> None:
    (nothing_set / "cancelq_acces_token").write_text("hunter2")
    (nothing_set / "other").write_text("not ours")
    assert "did you mean CANCELQ_ACCESS_TOKEN?" in refusal(monkeypatch, SECRETS_DIR=str(nothing_set))


def test_everything_has_a_default() -> None:
    found = load_settings()
    assert (found.exchange_url, found.is_live, found.confirm) == (DEMO_EXCHANGE, False, "on")
    assert found.redis_url is None
    assert found.access_token is None
    assert found.transient_reasons == {
        "AnotherCommandPending",
        "RiskCheckTimeout",
        "ExecutionProviderUnavailable",
    }


def test_values_are_read_from_all_three_places(monkeypatch: pytest.MonkeyPatch, nothing_set: Path) -> None:
    secrets = nothing_set / "secrets"
    secrets.mkdir()
    (secrets / "cancelq_access_token").write_text("hunter2\n")
    (nothing_set / ".env").write_text("CANCELQ_LEASE=1.5\nCANCELQ_LOG=json\n")
    monkeypatch.setenv("CANCELQ_SECRETS_DIR", str(secrets))
    monkeypatch.setenv("CANCELQ_LOG", "text")
    monkeypatch.setenv("CANCELQ_TRANSIENT_REASONS", " RiskCheckTimeout, ,SessionClosed ")
    found = load_settings()
    assert found.access_token is not None
    assert found.access_token.get_secret_value() == "hunter2"
    assert (found.lease, found.log) == (timedelta(seconds=1.5), "text")
    assert found.transient_reasons == {"RiskCheckTimeout", "SessionClosed"}
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379/0",
        "rediss://me:hunter2@redis.example.com",
        "unix:///run/valkey.sock?db=1",
        "redis://[::1]:6379",
    ],
)
def test_a_redis_address_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CANCELQ_REDIS_URL", url)
    found = load_settings().redis_url
    assert found is not None
    assert found.get_secret_value() == url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@db.example.com:5432/audit",
        "postgres://db/audit",
        "postgresql+psycopg:///audit?host=/run/postgresql",
        "sqlite:////var/lib/cancelq/audit.sqlite3",
        "sqlite:///audit.sqlite3",
    ],
)
def test_a_database_address_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CANCELQ_DATABASE_URL", url)
    found = load_settings().database_url
    assert found is not None
    assert found.get_secret_value() == url


@pytest.mark.parametrize(
    ("url", "live"),
    [
        (DEMO_EXCHANGE, False),
        ("http://127.0.0.1:8080/v1", False),
        ("http://[::1]:8080/v1/", False),
        ("https://live.tradovateapi.com/v1", True),
        ("https://live.tradovateapi.com/demo.x/v1", True),
    ],
)
def test_real_money_is_known_by_its_address(monkeypatch: pytest.MonkeyPatch, url: str, live: bool) -> None:  # noqa: FBT001
    monkeypatch.setenv("CANCELQ_EXCHANGE_URL", url)
    found = load_settings()
    assert found.is_live is live
    assert names_live(found.exchange_url) is live
    assert found.exchange_url.endswith("/v1")
