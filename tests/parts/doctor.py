"""`cancelq doctor` as a shell sees it, and its findings by name."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.parts.understudy import cancelq

Diagnose = Callable[..., "Diagnosis"]


class Diagnosis:
    """What one `cancelq doctor --json` said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        self.said: dict[str, Any] = json.loads(out)

    def grades(self, what: str) -> set[str]:
        return {finding["grade"] for finding in self._about(what)}

    def text(self, what: str) -> str:
        """Findings and mends about this, as one text."""
        return " ".join(f"{finding['finding']} → {finding['mend']}" for finding in self._about(what))

    def bad(self) -> set[str]:
        return {f["what"] for f in self.said["findings"] if f["grade"] in {"failed", "warning"}}

    def _about(self, what: str) -> list[Mapping[str, Any]]:
        found = [finding for finding in self.said["findings"] if finding["what"] == what]
        assert found, f"nothing about {what} in {self.out}"
        return found


def run_doctor(
    folder: Path, *options: str, preexec: Any = None, **settings: str
) -> "subprocess.CompletedProcess[str]":
    """Without any setting but these, in an empty working directory."""
    environment = {"PATH": "/usr/bin:/bin", "CANCELQ_HOME": str(folder / "home")}
    environment |= {f"CANCELQ_{name.upper()}": value for name, value in settings.items()}
    if preexec is None:
        return cancelq(["doctor", *options], environment, folder=Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", "worker", "doctor", *options],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        preexec_fn=preexec,
    )


@pytest.fixture
def diagnose(tmp_path: Path) -> Diagnose:
    """Ask the doctor; what a test does not name is not set, and the exchange is nowhere near."""

    def ask(*, preexec: Any = None, **settings: str) -> Diagnosis:
        nowhere = {"exchange_url": "http://127.0.0.1:9/v1"}
        done = run_doctor(tmp_path, "--json", preexec=preexec, **(nowhere | settings))
        assert done.stdout, done.stderr
        return Diagnosis(done.returncode, done.stdout, done.stderr)

    return ask
