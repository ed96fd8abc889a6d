"""`cancelq enqueue` and `cancelq status` as a shell sees them."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.parts.cancels import a_whole_life, record
from tests.parts.exchange import eventually
from tests.parts.ledger import Door, claimed_ids
from tests.parts.understudy import cancelq
from worker.job import ClaimId, JobId, Outcome
from worker.ledger.client import Ledger

Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(home: Path, **settings: str) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "CANCELQ_HOME": str(home)} | settings


@pytest.fixture
def run(tmp_path: Path, ledger: Ledger, redis_url: str) -> Run:
    """Run cancelq on the test's ledger."""
    settings = environment(tmp_path / "home", CANCELQ_REDIS_URL=redis_url, CANCELQ_LEDGER=ledger.name)

    def run(*arguments: str, stdin: str | bytes = "", **changes: str) -> subprocess.CompletedProcess[str]:
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        return cancelq(arguments, settings | changes, stdin=data)

    return run


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_enqueue_prints_one_receipt(run: Run, door: Door) -> None:
    done = run(
        *("enqueue", "123", "--account", "A", "--cl-ord-id", "c", "--custom-tag50", "t", "--manual"),
        *("--activation-time", "2031-01-01T00:00:00Z", "--requested-by", "me", "--request-id", "r"),
        *("--priority", "urgent", "--deadline", "60"),
    )
    (receipt,) = lines(done.stdout)
    job = door.job(receipt["jobId"])
    assert (done.returncode, done.stderr) == (0, "")
    assert (receipt["status"], receipt["requestId"], receipt["durability"]) == ("accepted", "r", "memory")
    assert (job["cl_ord_id"], job["custom_tag50"], job["is_automated"], job["priority"]) == (
        "c",
        "t",
        "0",
        "urgent",
    )
    assert (job["requested_by"], job["activation_time"]) == ("me", "1924992000000000")
    assert int(job["deadline"]) - int(job["enqueued_at"]) == 60_000_000


def test_a_refused_request_is_printed_and_exits_with_1(run: Run) -> None:
    done = run("enqueue", "0")
    (receipt,) = lines(done.stdout)
    assert (done.returncode, receipt["status"]) == (1, "refused")
    assert done.stderr.startswith("cancelq: orderId: ")


@pytest.mark.parametrize(
    "wrong",
    [
        ["enqueue"],
        ["enqueue", "1", "--from", "-"],
        ["enqueue", "--from", "-", "--account", "A"],
        ["enqueue", "1", "--priority", "high"],
        ["enqueue", "1", "--deadline", "soon"],
        ["enqueue", "--from", "/nowhere/at/all"],
        ["enqueue", "--spool", "s", "--account", "A"],
        ["enqueue", "--spool", "/"],
        ["status"],
        ["status", "x", "--order", "1"],
        ["status", "x", "--account", "A"],
        ["status", "\udcff"],
        ["status", "--order", "1", "--account", "\udcff"],
        ["enqueue", "1", "--wait", "nan"],
        ["enqueue", "1", "--wait", "inf"],
        ["enqueue", "1", "--wait", "-1"],
        ["enqueue", "1", "--wait", "604801"],
    ],
)
def test_wrong_use_exits_with_2(run: Run, wrong: list[str]) -> None:
    done = run(*wrong)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage:" in done.stderr


@pytest.mark.parametrize(
    "order", ["abc", "-5", "0", "007", "1e3", "\u0665", "99999999999999999999", str(2**63)]
)
def test_an_order_that_cannot_be_is_refused_in_words(run: Run, order: str) -> None:
    done = run("status", "--order", order)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"orderId: must be 1 to {2**63 - 1} in plain digits" in done.stderr


def test_what_the_ledger_refuses_to_look_up_is_told(run: Run) -> None:
    done = run("status", "--order", "5", "--account", "a" * 65)
    assert (done.returncode, done.stdout) == (2, "")
    assert "account: " in done.stderr


def test_status_by_job_and_by_order(run: Run, door: Door) -> None:
    job_id = door.enqueue(5, account="A")["jobId"]
    by_job, by_order = run("status", job_id), run("status", "--order", "5", "--account", "A")
    assert (by_job.returncode, by_order.returncode) == (0, 0)
    assert lines(by_job.stdout) == lines(by_order.stdout)
    assert lines(by_job.stdout)[0]["state"] == "queued"


def test_an_unknown_job_exits_with_1(run: Run) -> None:
    done = run("status", "nobody")
    assert (done.returncode, lines(done.stdout)) == (1, [{"status": "unknown"}])


# --- many


def test_a_file_gives_one_answer_per_line_in_order_and_names_the_bad_ones(run: Run, door: Door) -> None:
    text = '{"orderId":1}\n\nnonsense\n{"orderId":"9223372036854775807","requestId":"r"}\n{"orderId":1,"x":1}\n{"orderId":2}'
    done = run("enqueue", "--from", "-", stdin=text)
    answers = lines(done.stdout)
    assert done.returncode == 1
    assert [a["status"] for a in answers] == [
        "accepted",
        "refused",
        "refused",
        "accepted",
        "refused",
        "accepted",
    ]
    assert [a.get("line") for a in answers] == [None, 2, 3, None, 5, None]
    assert answers[3]["orderId"] == 2**63 - 1
    assert [line.split(":")[1] for line in done.stderr.splitlines()] == [" line 2", " line 3", " line 5"]
    assert all(a["requestId"] for a in answers)


def test_odd_lines_of_a_file_are_refused_alone(run: Run) -> None:
    odd = [
        b'{"orderId":1,"account":"\xff"}',
        b"[" * 60000,
        b'{"orderId":' + b"9" * 100_000 + b"}",
        b"5",
        b'"x"',
    ]
    done = run("enqueue", "--from", "-", stdin=b"\n".join([*odd, b'{"orderId":1}\r', b""]))
    assert [a["status"] for a in lines(done.stdout)] == ["refused"] * 5 + ["accepted"]


def test_a_good_file_exits_with_0_and_a_repetition_stores_nothing_twice(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    path.write_text("".join(f'{{"orderId":{n},"requestId":"r-{n}"}}\n' for n in range(1, 1502)))
    first, second = run("enqueue", "--from", str(path)), run("enqueue", "--from", str(path))
    assert (first.returncode, second.returncode) == (0, 0)
    assert {a["status"] for a in lines(first.stdout)} == {"accepted"}
    assert {a["status"] for a in lines(second.stdout)} == {"duplicate"}
    assert [a["jobId"] for a in lines(first.stdout)] == [a["jobId"] for a in lines(second.stdout)]


def test_a_line_is_stored_when_it_comes_and_not_when_the_pipe_closes(
    tmp_path: Path, ledger: Ledger, redis_url: str
) -> None:
    settings = environment(tmp_path, CANCELQ_REDIS_URL=redis_url, CANCELQ_LEDGER=ledger.name)
    command = [sys.executable, "-m", "worker", "enqueue", "--from", "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=settings, **pipes) as process:  # type: ignore[call-overload]
        process.stdin.write(b'{"orderId":1}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["status"] == "accepted"
        process.stdin.close()
        assert process.wait(timeout=20) == 0


# --- waiting for the end


@pytest.mark.parametrize(("outcome", "code"), [(Outcome.CANCELED, 0), (Outcome.GONE, 0), (Outcome.FILLED, 1)])
def test_waiting_gives_the_receipt_and_the_end(run: Run, ledger: Ledger, outcome: Outcome, code: int) -> None:
    def work() -> None:
        (job_id,) = eventually(lambda: claimed_ids(ledger))
        ledger.finish([(JobId(job_id), ClaimId("claim-1"), outcome, "order_read", datetime.now(UTC))])

    worker = threading.Thread(target=work)
    worker.start()
    done = run("enqueue", "5", "--wait", "30")
    worker.join()
    (answer,) = lines(done.stdout)
    assert done.returncode == code
    assert (answer["status"], answer["state"], answer["outcome"]) == ("accepted", "done", outcome)


def test_waiting_ends_with_1_when_time_is_up(run: Run) -> None:
    done = run("enqueue", "5", "--wait", "0.1")
    assert (done.returncode, lines(done.stdout)[0]["state"]) == (1, "queued")


# --- Redis away, or embedded


def test_an_unreachable_redis_is_one_clear_line_without_the_password(run: Run) -> None:
    away = "redis://user:secret@127.0.0.1:1/0"
    done = run("enqueue", "5", CANCELQ_REDIS_URL=away)
    (receipt,) = lines(done.stdout)
    assert (done.returncode, receipt["status"]) == (1, "not_stored")
    assert receipt["requestId"]
    assert done.stderr.count("\n") == 1
    for told in (done, run("status", "x", CANCELQ_REDIS_URL=away)):
        assert told.returncode == 1
        assert "redis://127.0.0.1:1" in told.stderr
        assert "secret" not in told.stderr + told.stdout


def test_a_spool_keeps_what_redis_could_not_take_and_sends_it_on_when_asked(run: Run, tmp_path: Path) -> None:
    spool, away = ("--spool", str(tmp_path / "spool")), "redis://127.0.0.1:1/0"
    one = run("enqueue", "5", "--request-id", "r1", *spool, CANCELQ_REDIS_URL=away)
    text = '{"orderId":6,"requestId":"r2"}\n{"orderId":7,"requestId":"r3","deadline":-5}\n'
    two = run("enqueue", "--from", "-", *spool, stdin=text, CANCELQ_REDIS_URL=away)
    waits = run("enqueue", *spool, CANCELQ_REDIS_URL=away)
    assert [done.returncode for done in (one, two, waits)] == [1, 1, 1]
    assert [a["status"] for a in lines(one.stdout + two.stdout)] == ["spooled"] * 3
    assert "redis://127.0.0.1:1" in waits.stderr
    sent, nothing = run("enqueue", *spool), run("enqueue", *spool)
    told = [(a["requestId"], a["status"]) for a in lines(sent.stdout)]
    assert told == [("r1", "accepted"), ("r2", "accepted"), ("r3", "refused")]
    assert (sent.returncode, nothing.returncode, nothing.stdout) == (1, 0, "")
    assert "deadline: must not lie in the past" in sent.stderr


@pytest.mark.parametrize(
    ("which", "code"), [(["job-1"], 0), (["--order", "123", "--account", "DEMO1"], 0), (["job-2"], 1)]
)
def test_the_audit_answers_while_redis_is_away(
    run: Run, audit_engine: Engine, database_url: str, which: list[str], code: int
) -> None:
    record(audit_engine, *a_whole_life())
    away = "redis://127.0.0.1:1/0"
    done = run("status", *which, CANCELQ_REDIS_URL=away, CANCELQ_DATABASE_URL=database_url)
    (answer,) = lines(done.stdout)
    assert (done.returncode, answer.get("jobId")) == (code, None if code else "job-1")
    assert done.stderr.startswith("cancelq: the ledger could not be asked: ")
    assert done.stderr.count("\n") == 1


def test_without_a_redis_the_embedded_one_keeps_the_request(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "worker"]
    settings = environment(tmp_path)
    stored = subprocess.run([*command, "enqueue", "5"], env=settings, capture_output=True, check=True)
    (receipt,) = lines(stored.stdout.decode())
    assert (receipt["status"], receipt["durability"]) == ("accepted", "fsynced")
    asked = subprocess.run(
        [*command, "status", receipt["jobId"]], env=settings, capture_output=True, check=True
    )
    assert lines(asked.stdout.decode())[0]["state"] == "queued"


def test_two_at_once_share_the_embedded_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "worker", "enqueue"]
    start = [
        subprocess.Popen([*command, str(n)], env=environment(tmp_path), stdout=subprocess.PIPE, text=True)
        for n in (1, 2, 3)
    ]
    answers = [process.communicate(timeout=30)[0] for process in start]
    assert [lines(answer)[0]["status"] for answer in answers] == ["accepted"] * 3
