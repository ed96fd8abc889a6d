"""The container files, checked as documents: what they name exists, and what waits can be waited for."""

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from worker.cli import main
from worker.policy import policy_from
from worker.settings import KNOWN, PREFIX, Settings, load_settings
from worker.simulator.script import script

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
# What a secret file may hold, by the setting that reads it.
VALUES = {
    "cancelq_redis_url": "redis://:x@valkey:6379/0\n",
    "cancelq_database_url": "postgresql://cancelq:x@postgres/cancelq\n",
    "cancelq_access_token": "token",
}

every_service = pytest.mark.parametrize("name", SERVICES)
our_service = pytest.mark.parametrize("name", OURS)


def environment(service: dict[str, Any]) -> dict[str, str]:
    """As Compose would fill it in with nothing set outside."""
    given = service.get("environment", {})
    return {key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for key, value in given.items()}


@every_service
def test_a_service_names_only_what_is_declared(name: str) -> None:
    service = SERVICES[name]
    mounts = [mount.split(":")[0] for mount in service.get("volumes", [])]
    configs = [config["source"] for config in service.get("configs", [])]
    assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys()
    assert set(service.get("networks", [])) <= COMPOSE["networks"].keys()
    assert set(mounts) <= COMPOSE["volumes"].keys()
    assert set(configs) <= COMPOSE["configs"].keys()
    assert set(service.get("depends_on", {})) <= SERVICES.keys()


@pytest.mark.parametrize("kind", ["secrets", "networks", "volumes", "configs"])
def test_nothing_is_declared_that_nobody_uses(kind: str) -> None:
    text = json.dumps([service.get(kind, []) for service in SERVICES.values()])
    assert [name for name in COMPOSE[kind] if name not in text] == []


@every_service
def test_a_service_waits_only_for_what_can_come(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        other = SERVICES[needed]
        if how["condition"] == "service_healthy":
            assert "healthcheck" in other
        else:
            assert how["condition"] == "service_completed_successfully"
            assert other["restart"] == "no"
        assert set(other.get("profiles", [])) <= set(SERVICES[name].get("profiles", []))


@every_service
def test_an_image_has_a_pinned_tag(name: str) -> None:
    assert re.search(r":\d+\.\d+", SERVICES[name]["image"])


def test_every_base_image_has_a_pinned_tag() -> None:
    assert all(re.search(r":\d+\.\d+", line) for line in DOCKERFILE.splitlines() if line.startswith("FROM"))


def test_the_ledger_forgets_nothing() -> None:
    command = SERVICES["valkey"]["command"]
    given = dict(zip(command[2::2], command[3::2], strict=True))
    assert given["--appendonly"] == "yes"
    assert given["--appendfsync"] == "always"
    assert given["--maxmemory-policy"] == "noeviction"


def test_the_volume_of_the_database_is_where_version_18_keeps_it() -> None:
    assert SERVICES["postgres"]["volumes"] == ["audit:/var/lib/postgresql"]


def test_no_secret_stands_in_the_file() -> None:
    assert all(value.keys() == {"file"} for value in COMPOSE["secrets"].values())
    assert all(
        "PASSWORD" not in key or key.endswith("_FILE") for s in SERVICES.values() for key in environment(s)
    )


@our_service
def test_a_service_of_ours_runs_an_existing_command(name: str) -> None:
    command, *words = OURS[name]["command"]
    found = main.get_command(click.Context(main), command)
    assert found is not None
    options = {option for param in found.params for option in param.opts}
    assert {word for word in words if word.startswith("--")} <= options


@our_service
def test_the_settings_of_a_service_are_accepted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for secret in OURS[name].get("secrets", []):
        (secrets / secret).write_text(VALUES[secret])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"{PREFIX}SECRETS_DIR", str(secrets))
    given = environment(OURS[name])
    assert {key.removeprefix(PREFIX) for key in given} <= KNOWN
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    settings = load_settings()
    policy_from(settings, lambda: 0.0)
    if OURS[name]["command"] == ["worker"]:
        assert settings.access_token is not None
        assert settings.redis_url is not None
        assert not settings.is_live


def test_a_worker_may_finish_before_it_is_killed() -> None:
    grace = {name: int(OURS[name]["stop_grace_period"].rstrip("s")) for name in ("worker", "demo-worker")}
    longest = Settings.model_fields["total_timeout"].default.total_seconds()
    assert all(seconds > longest + 20 for seconds in grace.values())


def test_the_simulator_reads_its_orders() -> None:
    assert script(json.loads(COMPOSE["configs"]["orders"]["content"])).orders


def test_what_reaches_the_simulator_shares_its_loopback() -> None:
    assert SERVICES["demo-worker"]["network_mode"] == "service:simulator"
    assert "--port 8055" in " ".join(SERVICES["simulator"]["command"])
    assert environment(SERVICES["demo-worker"])[f"{PREFIX}EXCHANGE_URL"] == "http://127.0.0.1:8055/v1"


def test_the_image_is_built_from_files_that_exist_and_get_in() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word
        for line in DOCKERFILE.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert copied == let_in
    assert all((ROOT / path).exists() for path in copied)


def test_the_image_does_not_run_as_root() -> None:
    last_stage = DOCKERFILE.split("\nFROM ")[-1]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last_stage, re.MULTILINE)


def test_secret_files_are_kept_out_of_the_repository() -> None:
    folders = {value["file"].split("/")[0] for value in COMPOSE["secrets"].values()}
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {f"{folder}/" for folder in folders} <= set(ignored)
