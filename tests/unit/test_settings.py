"""Settings: what is right is taken, what is wrong is refused with its name, and no secret is ever shown."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from worker.errors import ConfigError
from worker.secret import SecretStr
from worker.settings import DEMO_EXCHANGE, SECRET, load_settings, names_live, secret_files


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
    ("CONCURRENCY", "many", "an integer from 1 to 512"),
    ("CONCURRENCY", "0", "an integer from 1 to 512"),
    ("CONCURRENCY", "513", "an integer from 1 to 512"),
    ("CONCURRENCY", "", "an integer from 1 to 512"),
    ("MAX_ATTEMPTS", "0", "an integer from 1 to 1000"),
    ("LEASE", "soon", "number of seconds"),
    ("LEASE", "0.5", "number of seconds from"),
    ("LEASE", "61", "number of seconds from"),
    ("LEASE", "nan", "number of seconds"),
    ("LEASE", "inf", "number of seconds"),
    ("LEASE", "1e300", "number of seconds"),
    ("LEASE", "", "number of seconds"),
    ("LEASE", "PT3S", "number of seconds"),
    ("CONNECT_TIMEOUT", "0", "number of seconds from"),
    ("READ_TIMEOUT", "-1", "number of seconds from"),
    ("TOTAL_TIMEOUT", "3600", "number of seconds from"),
    ("RETRY_BUDGET", "-1", "number of seconds from"),
    ("CONFIRM", "maybe", "'on' or 'off'"),
    ("CONFIRM_BUDGET", "0", "number of seconds from"),
    ("LOCKOUT", "0", "number of seconds from"),
    ("DEDUPE_LIFE", "0", "number of seconds from"),
    ("DRY_RUN", "maybe", "true or false"),
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
    ("EXCHANGE_URL", "http://128.0.0.1/v1", "loopback only"),
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
    ("CREDENTIALS", "", "path of a file"),
    ("CREDENTIALS", '[a]\npassword = "hunter2"', "path of a file"),
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
    ("METRICS_PORT", "", "address:port"),
    ("METRICS_PORT", "99999", "address:port"),
    ("METRICS_PORT", "metrics", "address:port"),
    ("METRICS_PORT", "http://0.0.0.0:9464", "address:port"),
    ("METRICS_PORT", "::1:9464x", "address:port"),
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


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("0", ("127.0.0.1", 0)),
        ("0.0.0.0:9464", ("0.0.0.0", 9464)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)
def test_a_bare_port_is_this_machine_s_and_an_address_must_be_asked_for(
    monkeypatch: pytest.MonkeyPatch, text: str, where: tuple[str, int]
) -> None:
    monkeypatch.setenv("CANCELQ_METRICS_PORT", text)
    assert load_settings().metrics_port == where


def test_contradictions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "CANCELQ_TOTAL_TIMEOUT" in refusal(monkeypatch, TOTAL_TIMEOUT="3", READ_TIMEOUT="5")


@pytest.mark.parametrize("other", ["USERNAME", "PASSWORD", "SEC", "CREDENTIALS"])
def test_there_is_one_way_to_log_in(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    said = refusal(monkeypatch, ACCESS_TOKEN="hunter2", **{other: "hunter2"})
    assert f"CANCELQ_ACCESS_TOKEN and CANCELQ_{other} contradict each other" in said
    assert "hunter2" not in said


def test_all_faults_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(monkeypatch, LEASE="soon", LOG="xml")
    assert "CANCELQ_LEASE: " in said
    assert "CANCELQ_LOG: " in said


def test_a_misspelt_setting_is_refused_with_the_right_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "did you mean CANCELQ_CONCURRENCY?" in refusal(monkeypatch, CONCURENCY="8")


@pytest.mark.parametrize(
    ("line", "right"),
    [("CANCELQ_CONCURENCY=8", "CANCELQ_CONCURRENCY"), ("CANCELQ_METRICS_PORT=http", "CANCELQ_METRICS_PORT")],
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
        ("http://localhost:8080/v1", False),
        ("http://127.0.0.2:1/v1", False),
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


FROM_FILES = {
    "ACCESS_TOKEN": "hunter2",
    "REDIS_URL": "rediss://me:hunter%2F2@valkey:6380/0",
    "DATABASE_URL": "postgresql://me:hunter%2F2@db/audit?sslmode=verify-full",
    "ALERT_URL": "https://hooks.example.com/T0/hunter2",
}


@pytest.mark.parametrize(("name", "value"), FROM_FILES.items())
def test_a_secret_is_read_from_its_file_and_only_from_a_file_of_its_name(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / f"cancelq_{name.lower()}").write_text(f"{value}\n")
    (tmp_path / "README").write_text("not a setting")
    monkeypatch.setenv("CANCELQ_SECRETS_DIR", str(tmp_path))
    found = load_settings()
    assert getattr(found, name.lower()).get_secret_value() == value
    assert "hunter" not in repr(found)
    assert secret_files() == [tmp_path / f"cancelq_{name.lower()}"]
    assert name in SECRET


def test_a_secret_is_shown_in_no_form() -> None:
    shown = SecretStr("hunter2")
    assert "hunter2" not in f"{shown} {shown!r} {[shown]}"
    assert (shown == SecretStr("hunter2"), shown == SecretStr("hunter3")) == (True, False)


@pytest.mark.parametrize("text", ["true", "True", "1", "on", "YES"])
def test_a_switch_is_read_from_any_usual_word(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("CANCELQ_DRY_RUN", text)
    assert load_settings().dry_run is True
    monkeypatch.setenv("CANCELQ_DRY_RUN", "Off")
    assert load_settings().dry_run is False


def test_a_dotenv_file_is_secret_once_it_holds_a_secret(nothing_set: Path) -> None:
    written = nothing_set / ".env"
    written.write_text("CANCELQ_LOG=json\n")
    assert secret_files() == []
    written.write_text("CANCELQ_ACCESS_TOKEN=hunter2\n")
    assert secret_files() == [Path(".env")]


def test_what_stands_in_a_dotenv_file_is_taken_as_it_is(nothing_set: Path) -> None:
    (nothing_set / ".env").write_text("CANCELQ_ACCESS_TOKEN='pa${HOME}word'\n")
    token = load_settings().access_token
    assert token is not None
    assert token.get_secret_value() == "pa${HOME}word"
