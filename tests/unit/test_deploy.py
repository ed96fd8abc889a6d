"""What stands in deploy/ beside the container file: the scrape configuration and the service unit, as documents."""

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from worker.cli import main
from worker.settings import KNOWN, PREFIX, SECRET, Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "cancelq-worker@.service"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROMETHEUS: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
RULES: dict[str, Any] = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
JOBS = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}


def options() -> dict[str, list[str]]:
    """Every option of the unit with its values, in order."""
    found = defaultdict(list)
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        found[name].append(value)
    return found


def given() -> dict[str, str]:
    return dict(value.split("=", 1) for value in options()["Environment"])


# ---------------------------------------------------------------------------------------------- Prometheus


def test_the_rules_are_beside_the_scrape_configuration() -> None:
    assert PROMETHEUS["rule_files"] == ["alerts.yml"]
    assert (DEPLOY / "alerts.yml").is_file()


def test_prometheus_looks_for_the_workers_where_the_container_file_has_them() -> None:
    (found,) = JOBS["cancelq-compose"]["dns_sd_configs"]
    (name,) = found["names"]
    port = COMPOSE["services"][name]["environment"][f"{PREFIX}METRICS_PORT"].rpartition(":")[2]
    assert (found["type"], str(found["port"])) == ("A", port)
    assert "ledger" in COMPOSE["services"][name]["networks"]


def test_prometheus_looks_for_the_services_where_the_document_starts_them() -> None:
    (found,) = JOBS["cancelq-systemd"]["static_configs"]
    started = re.findall(r"cancelq-worker@(\d+)", (ROOT / "docs/operating.md").read_text())
    assert found["targets"] == [f"127.0.0.1:{port}" for port in started]
    assert given()[f"{PREFIX}METRICS_PORT"] == "%i"


def test_rules_use_no_label_that_a_scrape_does_not_give() -> None:
    text = (DEPLOY / "alerts.yml").read_text()
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= {"instance", "reason"}


def test_a_page_is_due_also_for_what_a_young_worker_counted_before_its_first_scrape() -> None:
    """increase() needs a sample from before; a young process has counted nothing else."""
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]
    paging = [
        rule["expr"] for rule in rules if rule["labels"]["severity"] == "page" and "increase" in rule["expr"]
    ]
    assert len(paging) == 2
    for expression in paging:
        (series,) = re.findall(r"increase\((.+)\[10m\]\) > 0", expression)
        young = "and on (job, instance) time() - process_start_time_seconds < 600"
        assert f"or {series} {young}" in expression


# ------------------------------------------------------------------------------------------------- systemd


def test_the_service_runs_an_existing_command() -> None:
    (start,) = options()["ExecStart"]
    program, command = start.split()
    assert program.endswith("/.venv/bin/cancelq")
    assert main.get_command(click.Context(main), command) is not None


def test_the_service_knows_our_settings_only() -> None:
    assert {name.removeprefix(PREFIX) for name in given()} <= KNOWN
    credentials = [value.split(":")[0] for value in options()["LoadCredential"]]
    assert {name.removeprefix(PREFIX.lower()).upper() for name in credentials} <= KNOWN
    assert given()[f"{PREFIX}SECRETS_DIR"] == "%d"


def test_no_setting_that_is_secret_stands_in_the_unit() -> None:
    secret = {name.lower() for name in SECRET}
    assert not {name.removeprefix(PREFIX).lower() for name in given()} & secret


def test_the_journal_of_the_service_outlives_it() -> None:
    (folder,) = options()["StateDirectory"]
    assert given()[f"{PREFIX}HOME"] == f"%S/{folder}"


def test_the_service_may_finish_before_it_is_killed() -> None:
    (bound,) = options()["TimeoutStopSec"]
    assert int(bound.removesuffix("s")) > Settings().total_timeout.total_seconds() + 20


def test_a_drained_service_and_one_with_a_wrong_setting_stay_down() -> None:
    assert (options()["Restart"], options()["RestartPreventExitStatus"]) == (["on-failure"], ["2"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "cancelq-worker@9464.service"
    unit.write_text(
        re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(), flags=re.MULTILINE)
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)],
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
