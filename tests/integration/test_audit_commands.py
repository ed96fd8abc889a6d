"""`cancelq migrate`, `report` and `verify` as a person or a script runs them."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess
from xml.etree import ElementTree as ET

import pytest
from sqlalchemy import Engine, text

from tests.parts import understudy
from tests.parts.cancels import ENVIRONMENT, a_job, a_start, a_whole_life, at, record
from tests.parts.tampering import disarm
from worker.audit.engine import open_engine
from worker.audit.facts import job_fact, stamp_fact
from worker.audit.journal import Journal
from worker.audit.shapes import SHAPES

Run = Callable[..., CompletedProcess[str]]
FULL = Path("/dev/full")  # takes no byte, as a full disk does


@pytest.fixture
def cancelq(tmp_path: Path) -> Run:
    """The command line, in an empty folder, with nothing configured but what is given."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("CANCELQ_")}

    def run(*arguments: str, **settings: str) -> CompletedProcess[str]:
        given = {f"CANCELQ_{name}": value for name, value in settings.items()}
        return understudy.cancelq(arguments, plain | given, folder=tmp_path)

    return run


@pytest.fixture
def filled(audit_engine: Engine) -> Engine:
    record(audit_engine, *a_whole_life())
    return audit_engine


def test_a_sound_audit_verifies(cancelq: Run, filled: Engine, database_url: str) -> None:
    done = cancelq("verify", "--json", DATABASE_URL=database_url)
    said = json.loads(done.stdout)
    assert (done.returncode, said["ok"], said["rows"], said["fault"]) == (0, True, 7, None)
    assert cancelq("verify", DATABASE_URL=database_url).stdout.startswith("the audit is intact: 7 rows")


def test_a_bad_row_is_named_and_the_exit_is_1(cancelq: Run, audit_engine: Engine, database_url: str) -> None:
    record(audit_engine, job_fact(a_job()), a_start(attempt=2))
    done = cancelq("verify", "--json", DATABASE_URL=database_url)
    fault = {"table": "starts", "writer": "writer-1", "seq": 2, "what": "the attempt before it is missing"}
    assert (done.returncode, json.loads(done.stdout)["fault"]) == (1, fault)
    report = cancelq("report", DATABASE_URL=database_url)
    assert (report.returncode, "NO: starts row 2 of writer-1" in report.stdout) == (1, True)


@pytest.mark.usefixtures("filled")
def test_a_broken_journal_keeps_nobody_from_the_database(
    cancelq: Run, database_url: str, tmp_path: Path
) -> None:
    url = "http://127.0.0.1:1/v1"
    path = Journal(tmp_path, "cancelq", url, lambda *_told: None).path
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    settings = {"DATABASE_URL": database_url, "HOME": str(tmp_path), "EXCHANGE_URL": url}
    done = cancelq("verify", "--json", **settings)
    said = json.loads(done.stdout)
    assert (done.returncode, said["ok"], said["rows"]) == (0, True, 7)
    assert "not a database" in said["journal_trouble"]
    report = cancelq("report", "--json", **settings)
    assert (report.returncode, "not a database" in report.stdout) == (0, True)


def test_the_report_comes_in_each_format(
    cancelq: Run, filled: Engine, database_url: str, tmp_path: Path
) -> None:
    page = cancelq("report", "--account", "DEMO1", "--since", "2026-11-23", DATABASE_URL=database_url)
    assert (page.returncode, "canceled" in page.stdout, "\x1b" in page.stdout) == (0, True, False)
    as_json = cancelq("report", "--format", "json", DATABASE_URL=database_url)
    assert json.loads(as_json.stdout)["outcomes"] == {"canceled": 1}
    assert cancelq("report", "--format", "csv", "-o", "r.csv", DATABASE_URL=database_url).stdout == ""
    (row,) = csv.DictReader(StringIO((tmp_path / "r.csv").read_text()))
    assert row["order_id"] == "123"


def test_the_page_is_one_file_that_shows_the_audit(
    cancelq: Run, filled: Engine, database_url: str, tmp_path: Path
) -> None:
    done = cancelq(
        *("report", "--format", "html", "--tz", "Europe/Zurich", "-o", "r.html"), DATABASE_URL=database_url
    )
    page = ET.fromstring((tmp_path / "r.html").read_text())
    said = " ".join("".join(page.itertext()).split())
    assert (done.returncode, done.stdout, page.tag) == (0, "", "html")
    assert "Order 123: canceled after 100 ms" in said
    assert "2026-11-23 13:00 +01:00" in said
    assert cancelq("report", "--format", "html", DATABASE_URL=database_url).stdout.startswith(
        "<!DOCTYPE html>"
    )


def test_the_page_of_an_audit_that_is_not_intact_says_so_and_the_exit_is_1(
    cancelq: Run, audit_engine: Engine, database_url: str
) -> None:
    record(audit_engine, job_fact(a_job()), a_start(attempt=2))
    done = cancelq("report", "--format", "html", DATABASE_URL=database_url)
    assert (done.returncode, "NO: <bdi>starts row 2 of writer-1" in done.stdout) == (1, True)


UNREADABLE = [
    ("sqlite", "jobs", "enqueued_at = 'x'"),
    ("sqlite", "outcomes", "finished_at = '9999-99-99T00:00:00.000000Z'"),
    ("sqlite", "outcomes", "filled_qty = x'00'"),
    ("sqlite", "outcomes", "outcome = 'bogus'"),
    ("sqlite", "verdicts", "failure_reason = CAST(x'ff' AS TEXT)"),
    ("postgresql", "jobs", "enqueued_at = 'infinity'"),
    ("postgresql", "jobs", "enqueued_at = '0044-03-15 BC'"),
]


@pytest.mark.parametrize(("database_url", "table", "change"), UNREADABLE, indirect=["database_url"])
@pytest.mark.parametrize("options", [(), ("--no-verify",)], ids=["checked", "unchecked"])
def test_a_report_that_cannot_be_made_names_the_row_that_was_changed(
    cancelq: Run, filled: Engine, database_url: str, table: str, change: str, options: tuple[str, ...]
) -> None:
    disarm(filled)
    with filled.connect() as connection:
        if filled.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
        connection.execute(text(f"UPDATE {table} SET {change}"))
        connection.commit()
    done = cancelq("report", "--format", "html", *options, DATABASE_URL=database_url)
    (said,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert said.startswith(f"cancelq: the audit is NOT intact: {table} row ")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_status_that_cannot_be_read_names_the_row_that_was_changed(
    cancelq: Run, filled: Engine, database_url: str
) -> None:
    disarm(filled)
    with filled.begin() as connection:
        connection.execute(text("UPDATE jobs SET enqueued_at = 'x'"))
    nowhere = "redis://127.0.0.1:9/0"
    done = cancelq("status", "job-1", DATABASE_URL=database_url, REDIS_URL=nowhere)
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (1, "", False)
    assert "cancelq: the audit is NOT intact: jobs row 1 of writer-1" in done.stderr


def test_a_report_without_the_check_says_that_nobody_checked(
    cancelq: Run, audit_engine: Engine, database_url: str
) -> None:
    record(audit_engine, *a_whole_life())
    digest = json.loads(cancelq("verify", "--json", DATABASE_URL=database_url).stdout)["digest"]
    record(audit_engine, a_start("job-9", attempt=2), writer="writer-2")  # which a check would name
    done = cancelq("report", "--no-verify", "--json", DATABASE_URL=database_url)
    said = json.loads(done.stdout)
    assert (done.returncode, said["verified"], said["rows_checked"]) == (0, None, 0)
    assert (said["seals"], said["digest"], said["outcomes"]) == (1, digest, {"canceled": 1})
    for form in ("table", "html"):
        shown = cancelq("report", "--no-verify", "--format", form, DATABASE_URL=database_url)
        assert (shown.returncode, "not checked for this report" in shown.stdout) == (0, True)
        assert digest in shown.stdout
        assert "yes" not in shown.stdout.partition("Made at")[2].partition(digest)[0]


@pytest.mark.parametrize("form", ["html", "json", "csv"])
def test_a_file_that_cannot_be_written_is_refused(
    cancelq: Run, filled: Engine, database_url: str, form: str
) -> None:
    done = cancelq("report", "--format", form, "-o", "no/such/folder", DATABASE_URL=database_url)
    assert (done.returncode, "-o no/such/folder: cannot be written" in done.stderr) == (2, True)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    "arguments",
    [
        *(["verify"], ["verify", "--json"], ["report"], ["report", "--no-verify", "--format", "json"]),
        *(["policy"], ["--help"], ["report", "--help"]),
    ],
    ids=" ".join,
)
def test_a_full_disk_behind_stdout_is_told_in_one_line_and_is_no_broken_audit(
    database_url: str, arguments: list[str]
) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("CANCELQ_")}
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            env={**plain, "CANCELQ_DATABASE_URL": database_url},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    said = "cancelq: standard output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_the_embedded_audit_lives_in_the_home_folder(cancelq: Run, tmp_path: Path) -> None:
    home = tmp_path / "some" / "home"
    missing = cancelq("verify", HOME=str(home))
    assert (missing.returncode, "run: cancelq migrate" in missing.stderr) == (2, True)
    engine = open_engine(f"sqlite:///{home / 'audit.sqlite3'}")
    assert not home.exists()
    engine.dispose()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify", "--expect", "abc"], "'abc' is no digest; give the 64 hex digits"),
        (["report", "--tz", "Mars/Olympus"], "is not a time zone"),
        (["report", "--since", "yesterday"], "is not a time"),
        (
            ["report", "--since", "0001-01-01", "--tz", "America/New_York"],
            "--since: 0001-01-01 00:00:00+00:00 is beyond the years that can be told in America/New_York",
        ),
        (
            ["report", "--until", "9999-12-31T23:59:59", "--tz", "Asia/Tokyo", "--no-verify"],
            "--until: 9999-12-31 23:59:59+00:00 is beyond the years that can be told in Asia/Tokyo",
        ),
        (["report", "--format", "xml"], "xml"),
    ],
)
def test_what_is_not_supported_is_refused_with_exit_2(cancelq: Run, arguments: list[str], said: str) -> None:
    done = cancelq(*arguments)
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (2, True, False)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("form", ["table", "json", "html", "csv"])
def test_the_first_and_the_last_year_are_no_limit(cancelq: Run, database_url: str, form: str) -> None:
    always = ("--since", "0001-01-01", "--until", "9999-12-31T23:59:59")
    done = cancelq("report", *always, "--format", form, DATABASE_URL=database_url)
    assert (done.returncode, "DEMO1" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize("command", ["verify", "report"])
def test_an_unreachable_database_is_one_clear_line_without_the_password(cancelq: Run, command: str) -> None:
    done = cancelq(command, DATABASE_URL="postgresql://me:secret@127.0.0.1:9/audit")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "postgresql://127.0.0.1:9/audit does not answer" in done.stderr
    assert "secret" not in done.stderr


def test_a_file_that_is_no_database_is_one_clear_line(cancelq: Run, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is not a database at all, only text " * 100)
    done = cancelq("verify", DATABASE_URL=f"sqlite:///{tmp_path / 'text'}")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "not a database" in done.stderr


def test_verify_seals_what_is_new_once_and_compares_with_a_digest_of_then(
    cancelq: Run, filled: Engine, database_url: str
) -> None:
    def everything() -> list[object]:
        tables = [*SHAPES, "seals"]
        with filled.connect() as connection:
            return [
                tuple(row) for table in tables for row in connection.execute(text(f"SELECT * FROM {table}"))
            ]

    record(filled, stamp_fact("exchange", ENVIRONMENT, at=at(0)))
    before = everything()
    sealed = cancelq("verify", DATABASE_URL=database_url)
    digest = sealed.stdout.split()[-1]
    after = everything()
    assert after[:-1] == before
    assert digest in after[-1]
    assert ENVIRONMENT in after[-1]  # the audit's, not this shell's
    assert cancelq("verify", DATABASE_URL=database_url).stdout == sealed.stdout
    assert everything() == after
    record(filled, *a_whole_life("job-2"), writer="writer-2")
    after = everything()
    later = cancelq("verify", "--expect", digest, "--json", DATABASE_URL=database_url)
    said = json.loads(later.stdout)
    assert (later.returncode, said["digest"], said["newer_rows"]) == (0, digest, 7)
    other = cancelq("verify", "--expect", digest[::-1], DATABASE_URL=database_url)
    assert (other.returncode, "no seal up to here has the digest" in other.stdout) == (1, True)
    assert everything() == after
    report = cancelq("report", DATABASE_URL=database_url).stdout
    assert f"Digest of seal 1   {digest}" in report
    assert "7 rows are newer than the newest seal" in report
