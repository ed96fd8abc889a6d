"""`cancelq why` without a process of its own, and rows at the times that a story needs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.parts.cancels import a_start, at
from worker.audit.facts import Fact, Seen, outcome_fact, read_fact, reply_fact, verdict_fact
from worker.cli import main
from worker.job import Outcome
from worker.reasons import VERSION
from worker.reply import Answered, Reply
from worker.verdict import classify


@dataclass
class Why:
    """Runs the command on the configured parts."""

    settings: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["why", *arguments], env=self.settings, catch_exceptions=False)

    def text(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    def json(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text("--json", *arguments))
        return found

    def jobs(self, *arguments: str) -> list[dict[str, Any]]:
        (account,) = self.json(*arguments)["accounts"]
        return account["jobs"]


@pytest.fixture
def make_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Why]:
    monkeypatch.chdir(tmp_path)

    def make(**settings: str) -> Why:
        given = {"home": str(tmp_path / "home"), **settings}
        return Why({f"CANCELQ_{name.upper()}": value for name, value in given.items()})

    return make


@pytest.fixture
def why(make_why: Callable[..., Why], database_url: str) -> Why:
    """On the test's own audit, without a ledger, without a token."""
    return make_why(database_url=database_url)


def said(body: bytes, *, sent: float, took: float = 20, status: int = 200) -> Answered:
    return Answered(status=status, body=body, sent_at=at(sent), answered_at=at(sent + took))


def a_try(reply: Reply, job: str = "job-1", attempt: int = 1, *, after: float = 2) -> list[Fact]:
    """One attempt with everything that is written about it, decided by the table in force."""
    return [
        a_start(job, attempt, after=after),
        reply_fact(job, attempt, reply, recorded_at=at(after + 30)),
        verdict_fact(job, attempt, classify(reply), policy_version=VERSION, decided_at=at(after + 31)),
    ]


def a_look(status: str | None, job: str = "job-1", *, after: float, **seen: Any) -> Fact:
    kind = seen.pop("kind", "order")
    shown = Seen(**{"found": True, "status": status, "body": "{}", **seen})
    return read_fact(job, kind, said(b"{}", sent=after, took=0), shown)


def an_end(
    outcome: Outcome, evidence: str, job: str = "job-1", *, after: float, filled: int | None = None
) -> Fact:
    return outcome_fact(job, outcome, evidence=evidence, finished_at=at(after), filled_qty=filled)


def kinds(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["kind"] for event in events]
