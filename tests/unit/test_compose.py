"""The container files, checked as documents: what they name exists, and what waits can be waited for."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import jsonschema
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
# What a secret file may hold.
VALUES = {
    "cancelq_redis_url": "redis://:x@valkey:6379/0\n",
    "owner_database_url": "postgresql://cancelq:x@postgres/cancelq\n",
    "worker_database_url": "postgresql://worker:x@postgres/cancelq\n",
    "cancelq_access_token": "token",
    "flower_password": "flower-password",
}
SCHEMA = files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"

every_service = pytest.mark.parametrize("name", SERVICES)
our_service = pytest.mark.parametrize("name", OURS)


def environment(service: dict[str, Any]) -> dict[str, str]:
    """As Compose would fill it in with nothing set outside."""
    given = service.get("environment", {})
    return {key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for key, value in given.items()}


def secrets_of(service: dict[str, Any]) -> dict[str, str]:
    """By the name of the file in the container, the secret that it is."""
    return {
        s if isinstance(s, str) else s["target"]: s if isinstance(s, str) else s["source"]
        for s in service.get("secrets", [])
    }


def mounts_of(service: dict[str, Any]) -> dict[str, str]:
    """What is mounted, by its place in the container: volumes and files of the project."""
    return {mount.split(":")[1]: mount.split(":")[0] for mount in service.get("volumes", [])}


def is_file(mount: str) -> bool:
    return mount.startswith("./")


def seconds(span: str) -> int:
    return int(span.removesuffix("s"))


def test_the_file_is_what_the_compose_specification_allows() -> None:
    jsonschema.validate(COMPOSE, json.loads(SCHEMA.read_text()))


@every_service
def test_a_service_names_only_what_is_declared(name: str) -> None:
    service = SERVICES[name]
    mounts = set(mounts_of(service).values())
    assert set(secrets_of(service).values()) <= COMPOSE["secrets"].keys()
    assert set(service.get("networks", [])) <= COMPOSE["networks"].keys()
    assert {mount for mount in mounts if not is_file(mount)} <= COMPOSE["volumes"].keys()
    assert all((ROOT / mount).is_file() for mount in mounts if is_file(mount))
    assert set(service.get("depends_on", {})) <= SERVICES.keys()


@pytest.mark.parametrize("kind", ["secrets", "networks", "volumes"])
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
    valkey = SERVICES["valkey"]
    given = dict(zip(valkey["command"][2::2], valkey["command"][3::2], strict=True))
    assert given["--appendonly"] == "yes"
    assert given["--appendfsync"] == "always"
    assert given["--maxmemory-policy"] == "noeviction"
    assert mounts_of(valkey) == {"/data": "ledger"}


def test_a_full_ledger_refuses_before_its_container_is_killed() -> None:
    """While the append-only file is rewritten both processes may hold as much."""
    valkey = SERVICES["valkey"]
    most = valkey["command"][valkey["command"].index("--maxmemory") + 1]
    assert (most, valkey["mem_limit"]) == ("512mb", "1g")


@every_service
def test_a_container_has_bounds(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["logging"]["driver"] == "json-file"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@every_service
def test_a_service_is_started_again_unless_it_is_done(name: str) -> None:
    assert SERVICES[name].get("restart") == ("no" if name == "migrate" else "unless-stopped")


@pytest.mark.parametrize("name", [*OURS, "adminer"])
def test_a_container_may_write_into_its_volumes_only(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert (service["cap_drop"], service["tmpfs"]) == (["ALL"], ["/tmp"])
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_volume_of_the_database_is_where_version_18_keeps_it() -> None:
    assert mounts_of(SERVICES["postgres"])["/var/lib/postgresql"] == "audit"


def test_the_roles_are_made_before_their_logins() -> None:
    scripts = {
        at: what for at, what in mounts_of(SERVICES["postgres"]).items() if "docker-entrypoint-initdb.d" in at
    }
    assert [Path(scripts[at]).name for at in sorted(scripts)] == ["roles.sql", "logins.sql"]


def test_the_owner_only_migrates() -> None:
    using = {name: secrets_of(service).get("cancelq_database_url") for name, service in SERVICES.items()}
    assert {name: secret for name, secret in using.items() if secret} == {
        "migrate": "owner_database_url",
        "worker": "worker_database_url",
    }


def test_the_logins_read_secrets_that_are_there() -> None:
    read = set(re.findall(r"/run/secrets/(\w+)", (ROOT / "deploy/logins.sql").read_text()))
    assert read <= secrets_of(SERVICES["postgres"]).keys()


@pytest.mark.parametrize("name", ["worker", "demo-worker"])
def test_the_journal_outlives_its_container_and_may_be_written(name: str) -> None:
    home = environment(SERVICES[name])[f"{PREFIX}HOME"]
    assert list(mounts_of(SERVICES[name])) == [home]
    assert re.search(rf"^RUN install -d .*-o 10001 .* {home}$", DOCKERFILE, re.MULTILINE)


def test_play_and_record_share_no_volume() -> None:
    assert not set(mounts_of(SERVICES["worker"]).values()) & set(mounts_of(SERVICES["demo-worker"]).values())


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
    for file, secret in secrets_of(OURS[name]).items():
        (secrets / file).write_text(VALUES[secret])
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


def test_only_two_are_published_and_to_this_machine_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"flower": ["127.0.0.1:5555:5555"], "adminer": ["127.0.0.1:8080:8080"]}


@pytest.mark.parametrize("name", ["flower", "adminer"])
def test_what_is_published_is_on_a_network_that_leads_outside(name: str) -> None:
    inside = {network for network, how in COMPOSE["networks"].items() if how and how.get("internal")}
    assert set(SERVICES[name]["networks"]) - inside


def test_a_worker_s_health_is_asked_where_it_is_told() -> None:
    where = environment(SERVICES["worker"])[f"{PREFIX}METRICS_PORT"]
    assert f"127.0.0.1:{where.rpartition(':')[2]}/health" in " ".join(
        SERVICES["worker"]["healthcheck"]["test"]
    )


def test_a_worker_may_finish_before_it_is_killed() -> None:
    grace = [seconds(OURS[name]["stop_grace_period"]) for name in ("worker", "demo-worker")]
    longest = Settings().total_timeout.total_seconds()
    assert min(grace) > longest + 20


def test_the_simulator_reads_its_orders() -> None:
    """From a file: some engines' tools leave out what stands in the container file itself."""
    command = SERVICES["simulator"]["command"]
    given = mounts_of(SERVICES["simulator"])[command[command.index("--script") + 1]]
    assert script(json.loads((ROOT / given).read_text())).orders


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


def test_the_document_writes_every_secret() -> None:
    text = (ROOT / "docs/operating.md").read_text()
    written = set(re.findall(r"^file=(\w+) ", text, re.MULTILINE))
    assert written == {Path(value["file"]).name for value in COMPOSE["secrets"].values()}
