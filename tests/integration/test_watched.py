"""Flower, metrics, health and logs tell of the same cancels what the audit says, and never a secret."""

import base64
import contextlib
import html
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.parts.exchange import TOKEN, eventually
from tests.parts.fleet import Fleet, Worker

ROOT = Path(__file__).parents[2]
PASSWORD = "flower-password-of-a-test"
SCRIPT = "<b>x</b>"
CHROMIUM = shutil.which("chromium")
METRIC = re.compile(r"\b(?:cancelq|process)_[a-z_]+\b")
ROLES = {"cancelq_reader", "cancelq_writer"}


@dataclass
class Scene:
    """A worker that serves its port, a Flower, and five cancels: job ids by order."""

    fleet: Fleet
    worker: Worker
    flower: str
    jobs: dict[int, str]

    def ask(self, path: str) -> tuple[int, str]:
        return fetch(monitor_of(self.worker) + path)

    def task(self, order: int) -> dict[str, Any]:
        status, said = fetch(f"{self.flower}api/task/info/{self.jobs[order]}", PASSWORD)
        return json.loads(said) if status == 200 else {}

    def shown(self, order: int, state: str) -> dict[str, Any]:
        return eventually(
            lambda: self.task(order) if self.task(order).get("state") == state else None,
            seconds=20,
            what=f"order {order} as {state} in Flower, which shows {self.task(order)}",
        )


def fetch(url: str, password: str | None = None) -> tuple[int, str]:
    basic = base64.b64encode(f"cancelq:{password}".encode()).decode()
    asked = urllib.request.Request(
        url, headers={} if password is None else {"Authorization": f"Basic {basic}"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def monitor_of(worker: Worker) -> str:
    found = eventually(lambda: re.search(r'"url": "(http[^"]+)"', worker.said()), seconds=30, what="its port")
    return str(found[1])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def scene(plain_fleet: Fleet, tmp_path: Path) -> Scene:
    """Orders 1: canceled, 2: canceled after a retry, 3: refused, 4: waits for its retry, 5: of an odd account."""
    fleet, secret = plain_fleet, tmp_path / "password"
    secret.write_text(PASSWORD)
    fleet.exchange.add_orders(1, 2, 3, 4)
    fleet.exchange.add_orders(5, account=SCRIPT)
    fleet.exchange.script(2, {"reason": "AnotherCommandPending"}, {"reason": "AnotherCommandPending"})
    fleet.exchange.script(3, {"reason": "TradingLocked"})
    fleet.exchange.script(4, *[{"reason": "ExecutionProviderUnavailable"}] * 9)
    where = f"127.0.0.1:{free_port()}"
    fleet.fork("flower", "--listen", where, "--password-file", str(secret))
    worker = fleet.fork(metrics_port="0", log="json").when_ready()
    flower = f"http://{where}/"
    eventually(lambda: answers(flower), seconds=30, what="Flower")
    listening = f"cancelq-{worker.process.pid}@"
    eventually(
        lambda: listening in fetch(f"{flower}api/workers?status=1", PASSWORD)[1], seconds=30, what="events"
    )
    wishes = [{"order_id": n, "account": "default" if n < 5 else SCRIPT} for n in range(1, 6)]
    receipts = fleet.queue().cancel_many(wishes)
    return Scene(fleet, worker, flower, {n: r.job_id for n, r in enumerate(receipts, 1)})


def answers(url: str) -> bool:
    try:
        return fetch(url)[0] == 401
    except OSError:
        return False


def test_each_cancel_is_told_everywhere_as_the_audit_has_it_and_no_secret_with_it(scene: Scene) -> None:
    ends = scene.fleet.ends(4)
    flower_tells_states_and_results(scene, ends)
    metrics_count_what_happened(scene)
    one_search_tells_a_job_s_story(scene)
    assert scene.ask("health") == (200, '{"status": "green", "reasons": [], "notes": []}')
    assert scene.ask("elsewhere")[0] == 404
    page = fetch(f"{scene.flower}task/{scene.jobs[1]}", PASSWORD)[1]
    seen = [page, scene.ask("metrics")[1], scene.worker.said(), json.dumps(scene.task(2))]
    assert not any(secret in text for text in seen for secret in (TOKEN, PASSWORD))


def flower_tells_states_and_results(scene: Scene, ends: dict[int, dict[str, Any]]) -> None:
    for order, state in {1: "SUCCESS", 2: "SUCCESS", 3: "FAILURE", 5: "SUCCESS"}.items():
        task, end = scene.shown(order, state), ends[order]
        assert task["name"] == "cancelq.cancel"
        assert f"'order': {order}, " in task["kwargs"]
        assert f"'attempt': {end['attempts']}" in task["kwargs"]
        assert task["result"].startswith(f"{end['outcome']} ")
        assert end["command_id"] is None or f"commandId={end['command_id']}" in task["result"]
    waiting = scene.shown(4, "RETRY")
    assert waiting["result"] == waiting["exception"] == "ExecutionProviderUnavailable"
    assert fetch(f"{scene.flower}api/task/info/{scene.jobs[1]}")[0] == 401


def metrics_count_what_happened(scene: Scene) -> None:
    _, text = scene.ask("metrics")
    for line in (
        'cancelq_attempts_total{reason="AnotherCommandPending",verdict="transient"} 2.0',
        'cancelq_attempts_total{reason="TradingLocked",verdict="refused"} 1.0',
        'cancelq_outcomes_total{evidence="order_read",outcome="canceled"} 3.0',
        'cancelq_outcomes_total{evidence="reply",outcome="refused"} 1.0',
        'cancelq_stage_seconds_count{stage="whole"} 4.0',
        'cancelq_stage_seconds_count{stage="claim"} 5.0',
        "cancelq_ledger_open 1.0",
        "cancelq_ledger_up 1.0",
    ):
        assert line in text, text
    assert SCRIPT not in text


def one_search_tells_a_job_s_story(scene: Scene) -> None:
    lines = [json.loads(line) for line in scene.worker.said().splitlines() if scene.jobs[2] in line]
    assert [line["event"] for line in lines] == ["attempt.finished"] * 3 + ["job.finished"]
    assert [line.get("verdict") for line in lines] == ["transient", "transient", "accepted", None]
    assert {line["order"] for line in lines} == {2}
    assert lines[-1]["outcome"] == "canceled"


def test_every_metric_that_dashboard_alerts_and_documents_name_is_served(scene: Scene) -> None:
    scene.fleet.ends(4)
    served = set(METRIC.findall(re.sub(r"#.*", "", scene.ask("metrics")[1])))
    dashboard = json.loads((ROOT / "deploy/grafana-dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    groups = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"]
    asked += [rule["expr"] for group in groups for rule in group["rules"]]
    named = {name for expression in asked for name in METRIC.findall(expression)}
    assert len(named) > 15
    assert named - served == set()
    own = {re.sub(r"_(bucket|count|sum)$", "", name) for name in served if name.startswith("cancelq_")}
    rows = re.findall(r"^\| (`cancelq_.*?) \|", (ROOT / "docs/operating.md").read_text(), re.MULTILINE)
    assert own == {name for row in rows for name in METRIC.findall(row)} - ROLES


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH; `make browser` brings it")
def test_the_real_page_shows_orders_states_and_results_in_a_browser(scene: Scene, tmp_path: Path) -> None:
    scene.fleet.ends(4)
    for order, state in {1: "SUCCESS", 2: "SUCCESS", 3: "FAILURE", 4: "RETRY", 5: "SUCCESS"}.items():
        scene.shown(order, state)
    page = scene.flower.replace("http://", f"http://cancelq:{PASSWORD}@") + "tasks"
    dom = rendered(page, tmp_path)
    rows = {
        match[1]: html.unescape(re.sub(r"<[^>]+>", " ", match[0]))
        for match in re.finditer(r"<tr[^>]*>(?:(?!</tr>).)*?/task/([0-9a-f-]{36})\".*?</tr>", dom, re.DOTALL)
    }
    for order, words in {
        1: ("SUCCESS", "canceled commandId="),
        2: ("SUCCESS", "'attempt': 3"),
        3: ("FAILURE", "refused (reply TradingLocked"),
        4: ("RETRY", "ExecutionProviderUnavailable"),
        5: ("SUCCESS", SCRIPT),
    }.items():
        row = rows[scene.jobs[order]]
        assert all(word in row for word in (*words, "cancelq.cancel", f"'order': {order}, ")), row
    assert SCRIPT not in dom  # text, not markup
    assert not any(secret in dom for secret in (TOKEN, PASSWORD))


def rendered(url: str, folder: Path) -> str:
    """The page's DOM once its scripts have run."""
    command = [str(CHROMIUM), "--headless", "--disable-gpu", f"--user-data-dir={folder / 'browser'}"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []
    command += ["--virtual-time-budget=5000", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_a_worker_is_red_while_nothing_comes_of_what_it_takes_and_green_again(plain_fleet: Fleet) -> None:
    """The database is locked by somebody else: cancels are due, claimed, given back, claimed."""
    plain_fleet.exchange.add_orders(1, 2)
    worker = plain_fleet.fork(
        *("worker",),
        metrics_port="0",
        log="json",
        audit_down="hold",
        total_timeout="0.5",
        read_timeout="0.5",
        connect_timeout="0.5",
    ).when_ready()
    queue, health = plain_fleet.queue(), monitor_of(worker) + "health"
    queue.cancel(order_id=1)
    plain_fleet.ends(1)
    assert fetch(health)[0] == 200
    with contextlib.closing(sqlite3.connect(plain_fleet.database_url.removeprefix("sqlite:///"))) as locker:
        locker.execute("BEGIN IMMEDIATE")
        queue.cancel(order_id=2)
        status, said = eventually(
            lambda: found if (found := fetch(health))[0] != 200 else None, seconds=40, what="red"
        )
        assert (status, json.loads(said)["status"]) == (503, "red")
        assert "nothing came of any" in said
    assert plain_fleet.ends(2)[2]["outcome"] == "canceled"
    eventually(lambda: fetch(health)[0] == 200, what="green")


def test_a_fresh_worker_serves_what_pages_a_person_at_zero(plain_fleet: Fleet) -> None:
    text = fetch(monitor_of(plain_fleet.fork(metrics_port="0", log="json").when_ready()) + "metrics")[1]
    for line in (
        'cancelq_outcomes_total{evidence="seen_working",outcome="unresolved"} 0.0',
        'cancelq_attempts_total{reason="TradingLocked",verdict="refused"} 0.0',
    ):
        assert line in text, text


def test_a_pause_is_no_fault_and_is_said(plain_fleet: Fleet) -> None:
    worker = plain_fleet.fork(metrics_port="0", log="json").when_ready()
    plain_fleet.run("pause", "--because", "a test")
    status, said = fetch(monitor_of(worker) + "health")
    assert (status, json.loads(said)["notes"]) == (200, ["paused; `cancelq resume` ends it"])


def test_a_port_that_is_taken_is_refused_by_name_before_anything_is_touched(plain_fleet: Fleet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = plain_fleet.run("worker", metrics_port=port)
    assert done.returncode == 2
    assert f"CANCELQ_METRICS_PORT: cannot listen at 127.0.0.1:{port}: Address already in use" in done.stderr
    with plain_fleet.ledger_client() as ledger:
        ledger.load_functions()
        assert ledger.survey().exchange is None


def test_guests_who_say_nothing_keep_nobody_else_out_for_long(plain_fleet: Fleet) -> None:
    worker = plain_fleet.fork(metrics_port="0", log="json").when_ready()
    monitor = monitor_of(worker)
    address = ("127.0.0.1", int(monitor.rstrip("/").rpartition(":")[2]))
    silent = [socket.create_connection(address) for _ in range(20)]
    try:
        eventually(lambda: reached(monitor + "health"), seconds=30, what="an answer beside silent guests")
    finally:
        for guest in silent:
            guest.close()


def reached(url: str) -> bool:
    try:
        return fetch(url)[0] == 200
    except OSError:
        return False
