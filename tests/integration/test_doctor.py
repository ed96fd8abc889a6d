"""`cancelq doctor` as a whole: what it says of settings, host and exchange, how it exits, what it never prints."""

import json
import os
import resource
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from tests.parts.doctor import Diagnose, run_doctor
from tests.parts.exchange import TOKEN, Exchange
from tests.parts.ledger import lock_out
from tests.parts.rogue import Answer, rogue
from tests.parts.rogue import closing as answering
from tests.parts.understudy import cancelq
from worker.audit.migrating import migrate
from worker.doctor.examine import examine, secrets_of, without
from worker.doctor.finding import Grade, failed
from worker.doctor.host_checks import secrets
from worker.ledger.client import Ledger
from worker.settings import settings_from

SECRET = "hunter2hunter2"


def test_a_sound_set_up_has_no_fault(
    diagnose: Diagnose, redis_url: str, ledger: object, database_url: str, exchange: Exchange
) -> None:
    found = diagnose(
        redis_url=redis_url,
        ledger=ledger.name,  # type: ignore[attr-defined]
        database_url=database_url,
        exchange_url=exchange.url,
        access_token=TOKEN,
    )
    assert found.bad() <= {"database: power"}  # the tests' own PostgreSQL knows a superuser only
    assert (found.code, found.said["ok"], found.said["live"]) == (0, True, False)


def test_with_nothing_configured_it_says_what_would_serve(diagnose: Diagnose) -> None:
    found = diagnose()
    assert "would be started" in found.text("redis")
    assert "would be made" in found.text("database")
    assert found.grades("exchange: connection") == {"failed"}
    assert found.grades("exchange: token") == {"failed"}
    assert found.code == 2


def test_the_embedded_parts_are_examined_once_they_were_used(diagnose: Diagnose, tmp_path: Path) -> None:
    (tmp_path / "home" / "valkey").mkdir(parents=True)
    migrate(f"sqlite:///{tmp_path / 'home' / 'audit.sqlite3'}")
    found = diagnose()
    assert found.grades("redis: durability") == {"ok"}
    assert found.grades("redis: functions") == {"failed"}
    assert found.grades("database: triggers") == {"ok"}


# --- how it speaks


def test_a_person_gets_a_line_for_each_finding_with_its_mend_below(tmp_path: Path) -> None:
    done = run_doctor(tmp_path, exchange_url="http://127.0.0.1:9/v1", access_token=TOKEN)
    lines = done.stdout.splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith("failed   exchange: connection"))
    assert lines[place + 1].strip().startswith("→ see that the exchange runs there")
    assert lines[-1].startswith("1 failed, ")
    assert done.returncode == 1


def test_real_money_is_shown(tmp_path: Path, diagnose: Diagnose) -> None:
    live = "https://live.invalid/v1"
    done = run_doctor(tmp_path, exchange_url=live)
    assert done.stdout.startswith("LIVE: ")
    found = diagnose(exchange_url=live)
    assert found.said["live"] is True
    assert "LIVE" in found.text("exchange")
    assert found.grades("exchange: name") == {"failed"}


def test_no_secret_is_ever_printed(diagnose: Diagnose) -> None:
    unheard = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
    with rogue(answering(unheard)) as server:
        found = diagnose(
            redis_url=f"redis://me:{SECRET}@127.0.0.1:9/0",
            database_url=f"postgresql://me:{SECRET}@127.0.0.1:9/audit?password={SECRET}",
            access_token=SECRET,
            exchange_url=server.url(),
        )
    assert found.bad() >= {"redis", "database", "exchange: token"}
    assert SECRET not in found.out + found.err


def test_a_login_is_tried_once_and_left_to_the_workers(
    diagnose: Diagnose, redis_url: str, ledger: Ledger, exchange: Exchange
) -> None:
    exchange.auth(users=[{"name": "alice", "password": SECRET}])
    where = {"redis_url": redis_url, "ledger": ledger.name, "exchange_url": exchange.url}
    wrong = diagnose(**where, username="alice", password=f"{SECRET}-no")
    assert wrong.grades("exchange: token") == {"failed"}
    assert "Incorrect username" in wrong.text("exchange: token")
    assert "the next try is in 1" in wrong.text("exchange: token")
    diagnose(**where, username="alice", password=f"{SECRET}-no")
    assert exchange.auth_counts()["failed"] == 1  # not before that time
    other = {"redis_url": redis_url, "ledger": f"{ledger.name}b", "exchange_url": exchange.url}
    for _ in range(2):
        right = diagnose(**other, username="alice", password=SECRET)
        assert right.grades("exchange: token") == {"ok"}, right.out
    assert exchange.auth_counts()["logins"] == 1
    assert SECRET not in wrong.out + wrong.err + right.out + right.err


def test_the_exchange_is_not_asked_within_a_lock_out(
    diagnose: Diagnose, redis_url: str, ledger: Ledger, exchange: Exchange
) -> None:
    lock_out(ledger, timedelta(hours=1))
    where = {"redis_url": redis_url, "ledger": ledger.name, "exchange_url": exchange.url}
    found = diagnose(**where, access_token=TOKEN)
    assert found.grades("exchange: token") == {"skipped"}
    assert "locked out until" in found.text("exchange: token")
    assert exchange.calls() == []


# --- settings


def test_a_login_that_no_worker_would_take_is_a_wrong_setting(tmp_path: Path, diagnose: Diagnose) -> None:
    file = tmp_path / "logins.toml"
    file.touch(mode=0o600)
    file.write_text('[main]\nusername = "alice"\n')
    found = diagnose(credentials=str(file))
    given = {"CANCELQ_HOME": str(tmp_path / "home"), "CANCELQ_CREDENTIALS": str(file)}
    worker = cancelq(["worker"], {"PATH": os.environ["PATH"]} | given)
    assert (found.code, worker.returncode) == (2, 2)
    missing = "[main] password is missing"
    assert (missing in found.text("exchange: token"), missing in worker.stderr) == (True, True)
    assert found.grades("redis") == {"ok"}  # the rest was looked at all the same


def test_wrong_settings_are_listed_one_by_one(tmp_path: Path, diagnose: Diagnose) -> None:
    found = diagnose(lease="soon", log="xml", access_token="a b")
    faults = [f["finding"] for f in found.said["findings"] if f["what"] == "settings"]
    assert [fault.partition(":")[0] for fault in sorted(faults)] == [
        *("CANCELQ_ACCESS_TOKEN", "CANCELQ_LEASE", "CANCELQ_LOG")
    ]
    assert (found.code, found.said["ok"]) == (2, False)
    assert run_doctor(tmp_path, lease="soon").returncode == 2
    assert run_doctor(tmp_path, "--acl", lease="soon").returncode == 2


@pytest.mark.parametrize(
    "wrong", [{"database_url": "sqlite:///:memory:"}, {"transient_reasons": "RiskCheckTimeuot"}]
)
def test_settings_that_cannot_be_put_to_use_are_wrong_as_well(
    diagnose: Diagnose, wrong: dict[str, str]
) -> None:
    found = diagnose(**wrong)
    assert found.code == 2
    assert f"CANCELQ_{next(iter(wrong)).upper()}" in found.text("settings")


# --- the host


def test_too_few_open_files_fail_with_the_number_that_fits(diagnose: Diagnose) -> None:
    found = diagnose(preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)))
    assert found.grades("host: open files") == {"failed"}
    assert "needs 192" in found.text("host: open files")
    assert "CANCELQ_CONCURRENCY=32" in found.text("host: open files")
    fits = diagnose(concurrency="32", preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)))
    assert fits.grades("host: open files") == {"ok"}


def test_a_home_that_is_a_file_fails(diagnose: Diagnose, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    assert diagnose().grades("host: CANCELQ_HOME") == {"failed"}


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a tmpfs")
def test_a_home_in_memory_is_warned_of(diagnose: Diagnose) -> None:
    found = diagnose(home="/dev/shm/cancelq-doctor")
    assert "warning" in found.grades("host: CANCELQ_HOME")
    assert "tmpfs" in found.text("host: CANCELQ_HOME")


# --- the exchange


def said(status: str, body: str = "", *headers: str) -> Answer:
    """An exchange that answers so, whatever is asked."""
    head = "".join(f"{line}\r\n" for line in (*headers, f"Content-Length: {len(body)}"))
    return lambda connection: connection.sendall(f"HTTP/1.1 {status}\r\n{head}\r\n{body}".encode())


@pytest.mark.parametrize(
    ("answer", "what", "grade", "words"),
    [
        (said("401 Unauthorized"), "exchange: token", "failed", "CANCELQ_ACCESS_TOKEN"),
        (said("200 OK", "{}"), "exchange: token", "ok", "taken"),
        (said("404 Not Found"), "exchange: token", "warning", "404"),
        (said("429 Too Many Requests"), "exchange: penalty", "failed", "hour"),
        (said("200 OK", '{"p-ticket":"x","p-time":9}'), "exchange: penalty", "warning", "9 s"),
        (said("503 Unavailable"), "exchange: answer", "failed", "maintenance"),
        (said("302 Found"), "exchange: answer", "failed", "/v1"),
        (None, "exchange: token", "failed", "not answered"),
    ],
)
def test_what_the_exchange_says_of_the_token(
    diagnose: Diagnose, answer: Answer | None, what: str, grade: str, words: str
) -> None:
    with rogue(answer) as server:
        found = diagnose(exchange_url=server.url(), access_token=TOKEN)
        assert not [request for request in server.requests if not request.startswith(b"GET ")]
    assert found.grades(what) == {grade}
    assert words in found.text(what)


@pytest.mark.parametrize(
    ("date", "grade"), [("Tue, 24 Nov 2020 02:00:00 GMT", "failed"), ("not a date", "skipped")]
)
def test_the_clock_of_the_exchange_is_compared(diagnose: Diagnose, date: str, grade: str) -> None:
    with rogue(said("200 OK", "{}", f"Date: {date}")) as server:
        found = diagnose(exchange_url=server.url(), access_token=TOKEN)
    assert found.grades("exchange: clock") == {grade}


def test_a_right_clock_passes(diagnose: Diagnose) -> None:
    def answer(connection: socket.socket) -> None:
        now = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        said("200 OK", "{}", f"Date: {now}")(connection)

    with rogue(answer) as server:
        found = diagnose(exchange_url=server.url(), access_token=TOKEN)
    assert found.grades("exchange: clock") == {"ok"}


def test_without_a_token_the_door_is_tried_all_the_same(diagnose: Diagnose, exchange: Exchange) -> None:
    found = diagnose(exchange_url=exchange.url)
    assert found.grades("exchange: connection") == {"ok"}
    assert (found.grades("exchange: token"), found.code) == ({"failed"}, 2)


def test_an_exchange_without_tls_is_told(diagnose: Diagnose) -> None:
    with rogue(said("200 OK")) as server:
        found = diagnose(exchange_url=server.url("https"))
    assert found.grades("exchange: TLS") == {"failed"}


# --- alerts


def test_whoever_is_to_be_alerted_is_looked_for_and_not_disturbed(diagnose: Diagnose) -> None:
    assert diagnose(alert_url=f"http://127.0.0.1:9/{SECRET}").grades("alerts") == {"warning"}
    with rogue(said("200 OK")) as server:
        found = diagnose(alert_url=f"{server.url()}/{SECRET}")
        assert server.requests == []
    assert found.grades("alerts") == {"ok"}
    assert SECRET not in found.out


# --- its own bounds


def test_servers_that_never_answer_do_not_hold_it_up(diagnose: Diagnose) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as deaf:
        port = deaf.getsockname()[1]
        began = time.monotonic()
        found = diagnose(
            redis_url=f"redis://127.0.0.1:{port}/0",
            database_url=f"postgresql://me@127.0.0.1:{port}/audit",
            exchange_url=f"http://127.0.0.1:{port}/v1",
            access_token=TOKEN,
        )
        assert time.monotonic() - began < 15
    assert found.bad() >= {"redis", "database", "exchange: token"}
    assert found.grades("host: Python") == {"ok"}


def test_what_does_not_end_in_time_is_itself_a_finding() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as deaf:
        url = f"redis://:{SECRET}@127.0.0.1:{deaf.getsockname()[1]}/0"
        settings = settings_from({"redis_url": url, "exchange_url": "http://127.0.0.1:9/v1"})
        found = examine(settings, bound=timedelta(seconds=0.2))
    (late,) = [finding for finding in found if "did not end within 0.2 s" in finding.finding]
    assert (late.what, late.grade) == ("redis", Grade.FAILED)


def test_a_secret_is_hidden_wherever_it_would_stand() -> None:
    secret = secrets_of(settings_from({"database_url": "postgresql://me:p%40ss@db/audit"}))
    said = without(failed("database", "no user me with p@ss", "not p%40ss"), secret)
    assert (said.finding, said.mend) == ("no user me with ***", "not ***")


def test_the_machine_readable_form_is_one_object(tmp_path: Path) -> None:
    (line,) = run_doctor(tmp_path, "--json").stdout.splitlines()
    said = json.loads(line)
    assert set(said) == {"ok", "exchange", "live", "ledger", "findings"}
    assert all(set(f) == {"grade", "what", "finding", "mend"} for f in said["findings"])
    assert all(f["mend"] for f in said["findings"] if f["grade"] in {"failed", "warning"})


def test_a_secret_that_every_user_may_read_is_pointed_at(tmp_path: Path) -> None:
    file, folder = tmp_path / "cancelq_access_token", tmp_path
    file.write_text(SECRET)
    closed = [path for path in (folder, *folder.parents) if not path.stat().st_mode & stat.S_IXOTH]
    assert closed, "pytest keeps its folders closed"
    file.chmod(0o644)
    assert [finding.grade for finding in secrets([file])] == ["ok"]
    with open_to_all(closed):
        assert [finding.mend for finding in secrets([file])] == [f"chmod 600 {file}"]
        file.chmod(0o600)
        assert [finding.grade for finding in secrets([file])] == ["ok"]


@contextmanager
def open_to_all(folders: list[Path]) -> Iterator[None]:
    modes = {folder: folder.stat().st_mode for folder in folders}
    try:
        for folder, mode in modes.items():
            folder.chmod(mode | stat.S_IXOTH)
        yield
    finally:
        for folder, mode in modes.items():
            folder.chmod(mode)
