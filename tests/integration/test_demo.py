"""The main job as a user runs it: `cancelq demo` ends with the truth, and leaves nothing running."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.parts.exchange import eventually
from tests.parts.processes import started_from
from worker.audit.engine import open_engine
from worker.audit.surface import rows
from worker.demo.compare import compare
from worker.demo.stage import request_lines, stage

DEMO = [sys.executable, "-m", "worker", "demo", "--orders", "30"]


def environment(folder: Path) -> dict[str, str]:
    """A folder of its own for temporary files, by which its processes can be told from others."""
    return {k: v for k, v in os.environ.items() if not k.startswith("CANCELQ_")} | {"TMPDIR": str(folder)}


@pytest.fixture
def running_demo(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A demo under way: its worker and its Valkey are up."""
    demo = subprocess.Popen(
        [*DEMO, "--keep"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        eventually(lambda: any(tmp_path.glob("cancelq-demo-*/worker.log")), seconds=30, what="a worker")
        yield demo
    finally:
        demo.kill()
        demo.wait()
        if demo.stdout is not None:
            demo.stdout.close()


def test_the_demo_says_what_happened_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        DEMO, env=environment(tmp_path), capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "checked 30 orders against the exchange's own truth: the audit says what happened" in done.stderr
    assert "Outcomes" in done.stdout
    assert not started_from(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running_however_the_demo_ends(
    running_demo: "subprocess.Popen[str]", tmp_path: Path, how: signal.Signals
) -> None:
    running_demo.send_signal(how)
    running_demo.wait(30)
    eventually(lambda: not started_from(tmp_path), seconds=15, what="an end of every process")
    if how is not signal.SIGKILL:
        assert running_demo.returncode == 130
        assert running_demo.stdout is not None
        assert "interrupted" in running_demo.stdout.read()


# ------------------------------------------------------------------------------- the check can fail

CHANGES: list[tuple[str, str, Any]] = [
    ("audit_jobs", "outcome", "filled"),
    ("audit_jobs", "outcome", None),
    ("audit_jobs", "attempts", 7),
    ("audit_jobs", "order_id", 4711),
    ("audit_jobs", "command_id", 12),
    ("audit_attempts", "attempt", 2),
    ("audit_attempts", "transport", "not_sent"),
    ("audit_attempts", "command_id", 12),
    ("audit_attempts", "order_id", 4711),
    ("audit_attempts", "job_id", "another"),
]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Truth and views after three cancels without faults."""
    with stage(tmp_path_factory.mktemp("demo"), seed=1) as scene:
        scene.run("migrate")
        scene.ask("/sim/orders", {"from": 1, "count": 3, "account": "DEMO1"})
        worker = scene.start("worker", "--die-with-parent")
        scene.wait_for("worker", "worker.started", worker)
        scene.start("enqueue", "--from", "-", stdin=request_lines([1, 2, 3], "s"))
        engine = open_engine(scene.environment["CANCELQ_DATABASE_URL"])
        try:

            def all_ended() -> list[dict[str, Any]] | None:
                jobs = list(rows(engine, "audit_jobs"))
                return jobs if len(jobs) == 3 and all(job["outcome"] for job in jobs) else None

            jobs = eventually(all_ended, seconds=30, what="three outcomes")
            return {
                "truth": scene.truth(),
                "audit_jobs": jobs,
                "audit_attempts": list(rows(engine, "audit_attempts")),
            }
        finally:
            engine.dispose()


def test_the_check_finds_no_fault_with_what_happened(played: dict[str, list[dict[str, Any]]]) -> None:
    assert compare(played["truth"], played["audit_jobs"], played["audit_attempts"]) == []


@pytest.mark.parametrize(("view", "column", "value"), CHANGES)
def test_one_changed_row_fails_the_check(
    played: dict[str, list[dict[str, Any]]], view: str, column: str, value: Any
) -> None:
    views = {name: [dict(row) for row in found] for name, found in played.items()}
    views[view][0][column] = value
    assert compare(views["truth"], views["audit_jobs"], views["audit_attempts"])


@pytest.mark.parametrize("view", ["audit_jobs", "audit_attempts"])
def test_one_missing_or_doubled_row_fails_the_check(
    played: dict[str, list[dict[str, Any]]], view: str
) -> None:
    for changed in (played[view][1:], played[view] + played[view][:1]):
        views = played | {view: changed}
        assert compare(views["truth"], views["audit_jobs"], views["audit_attempts"])
