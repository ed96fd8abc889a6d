"""The journal of a host: the chain goes on in it while the database is away, and is carried over as it is, once."""

import itertools
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text

from tests.parts.cancels import (
    ENVIRONMENT,
    a_job,
    a_reply,
    a_start,
    a_whole_life,
    an_outcome,
    answered,
    record,
    unanswered,
    writing,
)
from tests.parts.databases import database_taking_no_rows
from tests.parts.tampering import put_in_conflict
from worker.audit.carry import carry_all
from worker.audit.engine import open_engine
from worker.audit.facts import Fact, job_fact
from worker.audit.journal import CHUNK, PAGE, Chunk, Journal
from worker.audit.verify import Verification, verify
from worker.audit.writer import AuditWriter, Stored
from worker.errors import AuditUnavailable, LedgerUnavailable

SHORT = timedelta(seconds=1)


@dataclass
class Host:
    """One host's journal, a database that can be taken away, and what the ledger was told."""

    url: str
    engine: Engine
    hasty: Engine  # the writers', who give up soon
    home: Path
    marks: dict[str, str] = field(default_factory=dict)
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    ledger_is_away: bool = False

    def journal(self) -> Journal:
        return Journal(self.home, "ledger", ENVIRONMENT, self.tell)

    def tell(self, writer: str, seq: int, digest: str, mark: str) -> None:
        if self.ledger_is_away:
            raise LedgerUnavailable("Redis is away")
        self.heads[writer], self.marks[writer] = (seq, digest), mark

    @contextmanager
    def outage(self, writer: str = "writer-1") -> Iterator[AuditWriter]:
        """A writer that has met the outage; at the end the database is back."""
        with writing(self.hasty, writer, journal=self.journal()) as audit, database_taking_no_rows(self.url):
            yield audit
            self.heads[writer] = audit.head()

    def carry(self) -> int:
        """Everything, by another process' journal; how many rows were left before that."""
        journal = self.journal().opened()
        before = journal.depth()
        carry_all(journal, self.engine, ending=lambda: False)
        assert journal.depth() == 0
        return before

    def verify(self, *, here: bool = False) -> Verification:
        journal = self.journal().opened() if here else None
        marks = {writer: mark for writer, mark in self.marks.items() if mark}
        return verify(self.engine, self.heads, marks=marks, journal=journal)

    def rows(self, table: str) -> list[dict[str, object]]:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()]


@pytest.fixture
def host(database_url: str, tmp_path: Path) -> Iterator[Host]:
    engine, hasty = open_engine(database_url), open_engine(database_url, statement_bound=SHORT)
    yield Host(database_url, engine, hasty, tmp_path)
    engine.dispose()
    hasty.dispose()


def in_journal(host: Host, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(host.journal().path)) as connection:
        return connection.execute(statement).fetchall()


def test_a_chain_goes_on_in_the_journal_and_comes_back_as_it_was(host: Host) -> None:
    with writing(host.hasty, journal=host.journal()) as audit:
        audit.commit([job_fact(a_job())])
        with database_taking_no_rows(host.url):
            life = a_whole_life()
            assert set(audit.commit(life[1:])) == {Stored.NEW}
            assert (audit.journaling, audit.journal_depth) == (True, len(life) - 1)
            kept = in_journal(host, "SELECT writer, seq, prev, digest, environment, body FROM replies")
            assert host.marks["writer-1"].split(" ")[2] == "2"  # told before the first row was there
        # Rows of the same chain go on into the journal until the older ones were carried over.
        assert audit.commit(a_whole_life("job-2")) == [Stored.NEW] * len(life)
        assert host.rows("replies") == []
        assert host.carry() == 2 * len(life) - 1
        audit.come_back()
        audit.commit([job_fact(a_job("job-3"))])
        assert (audit.journaling, host.marks["writer-1"]) == (False, "")
        host.heads["writer-1"] = audit.head()
    first = next(row for row in host.rows("replies") if row["job_id"] == "job-1")
    names = ("writer", "seq", "prev", "digest", "environment", "body")
    assert [tuple(first[name] for name in names)] == kept
    checked = host.verify()
    assert (checked.fault, checked.rows, checked.outstanding) == (None, 2 * len(life) + 1, ())


def test_rows_that_were_carried_over_and_not_removed_are_carried_once(host: Host) -> None:
    with host.outage() as audit:
        audit.commit(a_whole_life())
    in_journal(host, f"VACUUM INTO '{host.home / 'copy'}'")
    rows = host.carry()
    # As if the carrier had died before it cleared the journal.
    host.journal().path.with_name(f"{host.journal().path.name}-wal").unlink(missing_ok=True)
    (host.home / "copy").rename(host.journal().path)
    assert (host.verify(here=True).rows, host.verify(here=True).outstanding) == (rows, ())
    assert host.carry() == rows
    assert (host.verify().fault, host.verify().rows, host.rows("conflicts")) == (None, rows, [])


def test_rows_are_forgotten_once_whoever_waits_for_their_jobs_has_them(host: Host) -> None:
    """Of a job with more to come nothing is said yet: it may have ended."""
    life = a_whole_life()
    for writer, rows in (("writer-1", [*life[:-1], job_fact(a_job("job-2"))]), ("writer-2", life[-1:])):
        with host.outage(writer) as audit:
            audit.commit(rows)
    journal, told = host.journal().opened(), []

    def refuse(chunk: Chunk) -> None:
        told.append(journal.told_whole(chunk))
        raise LedgerUnavailable("Redis is away")

    journal.on_arrival = refuse
    carry_all(journal, host.engine, ending=lambda: False)
    assert (journal.depth(), told) == (len(life) + 1, [{"job-2"}, set()])
    told.clear()
    journal.on_arrival = lambda chunk: told.append(journal.told_whole(chunk))
    carry_all(journal, host.engine, ending=lambda: False)
    assert (journal.depth(), told) == (0, [{"job-2"}, {"job-1"}])
    assert host.verify().fault is None


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize("back", [True, False])
def test_a_commit_in_doubt_is_in_the_audit_once(
    host: Host, monkeypatch: pytest.MonkeyPatch, *, arrived: bool, back: bool
) -> None:
    """Whether the next connection comes in time, or the database stays away."""
    lost: list[bool] = []
    if back:
        monkeypatch.setattr("worker.audit.route.PATIENCE", timedelta(seconds=60))

    @event.listens_for(host.hasty, "commit")
    def lose_the_answer(connection: object) -> None:
        if not lost or (not back and not audit.journaling):
            driver = connection.connection.driver_connection
            driver.commit() if arrived and not lost else driver.rollback()
            lost.append(True)
            raise host.engine.dialect.loaded_dbapi.OperationalError("the connection is gone")

    with writing(host.hasty, journal=host.journal()) as audit:
        assert audit.commit([job_fact(a_job()), a_start()]) == [Stored.NEW, Stored.NEW]
        assert (audit.journaling, audit.commit([a_start()])) == (not back, [Stored.THERE])
        if audit.journaling:
            host.carry()
        host.heads["writer-1"] = audit.head()
    assert lost != []
    checked = host.verify()
    assert (checked.fault, checked.rows, checked.conflicts) == (None, 2, 0)


def test_the_journal_is_the_fence_while_the_database_is_away(host: Host) -> None:
    with host.outage("one") as one, writing(host.hasty, "two", journal=host.journal()) as two:
        assert one.commit([job_fact(a_job()), a_start()]) == [Stored.NEW, Stored.NEW]
        assert two.commit([a_start()]) == [Stored.THERE]
        one.commit([an_outcome()])
        assert two.commit([a_start(attempt=2)]) == [Stored.ENDED]


def test_a_row_whose_place_another_host_took_is_kept_whole_and_told(host: Host) -> None:
    with host.outage() as audit:
        audit.commit([job_fact(a_job()), a_start(), *a_reply(answered())])
    record(host.engine, job_fact(a_job()), a_start(after=3), writer="another-host")
    host.carry()
    (displaced,) = [row for row in host.rows("conflicts") if row["fact"] == "replies"]
    assert "9007199254740993" in displaced["cells"]
    assert host.rows("replies") == []  # an answer to another POST than the one that the start row speaks of
    checked = host.verify()
    # The job says the same twice; start, reply and verdict do not.
    assert (checked.fault, checked.rows, checked.conflicts) == (None, 6, 3)
    with host.engine.begin() as connection:
        for trigger in ("no_update", "append_only"):
            sqlite = host.engine.dialect.name == "sqlite"
            if sqlite == (trigger == "no_update"):
                on = "" if sqlite else " ON conflicts"
                connection.execute(text(f"DROP TRIGGER conflicts_{trigger}{on}"))
        connection.execute(text("UPDATE conflicts SET cells = replace(cells, '9007199254740993', '1')"))
    assert host.verify().fault.what == "its columns are not what its digest was made of"


def test_a_conflict_that_nobody_carried_holds_up_no_journal(host: Host) -> None:
    with host.outage() as audit:
        audit.commit([job_fact(a_job()), a_start()])
    put_in_conflict(host.engine, "nope", ["nope"], writer="writer-1", seq=3)
    assert host.carry() == 2
    assert host.verify().fault.table == "conflicts"


def test_verify_tells_what_is_outstanding_from_what_was_lost(host: Host) -> None:
    with writing(host.hasty, journal=host.journal()) as audit:
        audit.commit([job_fact(a_job())])
        with database_taking_no_rows(host.url):
            audit.commit([a_start(), *a_reply(unanswered())])
        host.heads["writer-1"] = audit.head()
    here, elsewhere = host.verify(here=True), host.verify()
    assert [(o.rows, o.seen) for o in (*here.outstanding, *elsewhere.outstanding)] == [(3, True), (3, False)]
    assert (here.ok, elsewhere.ok, here.rows, elsewhere.rows) == (True, True, 4, 1)
    mark, host.marks = host.marks, {}
    assert "the tail was cut" in host.verify().fault.what
    host.marks = mark
    with closing(sqlite3.connect(host.journal().path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM verdicts")
        assert "journal lost it" in host.verify(here=True).fault.what
        connection.execute("UPDATE starts SET body = 'x'")
    assert host.verify(here=True).fault.what == "its columns are not what its digest was made of"


@pytest.mark.parametrize("broken", ["wholly", "in_the_middle", "emptied"])
def test_verify_checks_the_database_beside_a_broken_journal_and_tells_it(host: Host, broken: str) -> None:
    with host.outage() as audit:
        audit.commit([job_fact(a_job()), a_start()])
    host.journal().engine.dispose()
    path = host.journal().path
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    kept = path.read_bytes()
    spoiled = {"wholly": b"no database" * 1000, "in_the_middle": kept[:8192] + b"x" * 20_000, "emptied": b""}
    path.write_bytes(spoiled[broken])
    marks = {writer: mark for writer, mark in host.marks.items() if mark}
    found = verify(host.engine, host.heads, marks=marks, journal=host.journal())
    assert (found.fault, [(o.rows, o.seen) for o in found.outstanding]) == (None, [(2, False)])
    assert "this host's journal was not looked at, it cannot be read: " in "\n".join(found.remarks)
    record(host.engine, a_start("job-9"))  # its job may be in the journal, whatever the ledger says
    assert verify(host.engine, journal=host.journal()).fault is None


def test_a_journal_that_was_deleted_in_use_is_begun_anew_and_its_rows_are_a_hole(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    with writing(host.hasty, journal=host.journal()) as audit:
        audit.commit([job_fact(a_job()), job_fact(a_job("job-2"))])
        with database_taking_no_rows(host.url):
            audit.commit([a_start()])
            shutil.rmtree(host.journal().path.parent)
            audit.commit([a_start("job-2")])
        said = capsys.readouterr().out
        assert ("journal.gone" in said, said.count("audit.rows_lost")) == (True, 1)
        assert host.carry() == 1
        audit.come_back()
        audit.commit([job_fact(a_job("job-3"))])
        assert (audit.journaling, host.marks["writer-1"]) == (False, "")
        host.heads["writer-1"] = audit.head()
    checked = host.verify()
    assert checked.fault.what == "is missing: the chain goes from 2 to 4"
    assert checked.outstanding == ()


def test_rows_that_vanished_with_a_journal_are_waited_for_by_nobody(host: Host) -> None:
    journal = host.journal()
    with writing(host.hasty, journal=journal) as audit:
        audit.commit([job_fact(a_job())])
        with database_taking_no_rows(host.url):
            audit.commit([a_start()])
            shutil.rmtree(journal.path.parent)
        host.heads["writer-1"] = audit.head()
        assert host.verify().outstanding
        journal.notice_loss()
        journal.confirm()
        journal.withdraw(host.marks, host.heads)
        assert "the tail was cut: row 2" in host.verify().fault.what
        audit.come_back()
        audit.commit([a_start()])
        assert not audit.journaling
    assert host.verify().fault.what == "is missing: the chain goes from 1 to 3"


def test_rows_that_were_carried_and_could_not_be_removed_do_not_wait(host: Host) -> None:
    with host.outage() as audit:
        audit.commit([job_fact(a_job()), a_start()])
    journal = host.journal().opened()
    with closing(sqlite3.connect(journal.path, isolation_level=None)) as busy:
        busy.execute("BEGIN IMMEDIATE")  # as good as a full disk
        carry_all(journal, host.engine, ending=lambda: False)
    assert (journal.depth(), journal.waiting()) == (2, 0)
    carry_all(journal, host.engine, ending=lambda: False)
    assert (journal.depth(), host.verify().rows) == (0, 2)


def test_rows_of_an_outage_that_could_not_be_removed_go_with_those_of_the_next(host: Host) -> None:
    """In between the chain went on in the database: the two lie far from each other."""
    journal = host.journal()
    with writing(host.hasty, journal=journal) as audit:
        with database_taking_no_rows(host.url):
            audit.commit([job_fact(a_job()), a_start()])
        host.ledger_is_away = True
        audit.come_back()
        audit.commit(a_whole_life("job-2"))  # behind that
        host.ledger_is_away = False
        assert (audit.journaling, journal.depth()) == (False, 2)
        with database_taking_no_rows(host.url):
            audit.commit([a_start("job-3")])
            assert host.marks["writer-1"].split(" ")[2] == "10"  # what is there is no longer meant
    assert host.carry() == 3
    assert in_journal(host, "SELECT * FROM starts") == []
    assert host.marks["writer-1"] == ""
    assert host.verify().rows == 10


def is_taken(audit: AuditWriter, fact: Fact) -> bool:
    try:
        audit.commit([fact], timeout=timedelta(seconds=1))
    except AuditUnavailable:
        return False
    return True


def test_a_journal_at_its_cap_is_emptied(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.audit.journal.MOST_BYTES", 100 * PAGE)
    with host.outage() as audit:
        assert any(not is_taken(audit, a_start(f"job-{number}")) for number in itertools.count())
    assert in_journal(host, "PRAGMA page_count") == [(100,)]
    assert in_journal(host, "PRAGMA freelist_count") == [(0,)]
    assert host.carry() == host.verify().rows > 0


def test_without_a_word_to_the_ledger_no_row_goes_into_a_journal(host: Host) -> None:
    host.ledger_is_away = True
    with host.outage() as audit, pytest.raises(AuditUnavailable, match="Redis is away"):
        audit.commit([a_start()], timeout=timedelta(seconds=2))
    assert audit.held
    assert in_journal(host, "SELECT * FROM starts") == []


def test_an_unusable_journal_holds_and_the_database_ends_that(host: Host) -> None:
    (host.home / "journal").write_text("a file where a folder should be")
    with writing(host.hasty, journal=host.journal()) as audit:
        with database_taking_no_rows(host.url), pytest.raises(AuditUnavailable, match="journal"):
            audit.commit([a_start()], timeout=timedelta(seconds=2))
        assert audit.held
        assert audit.commit([a_start()])[0] in {Stored.NEW, Stored.THERE}
        assert not audit.held


def test_a_bad_fact_fails_alone_in_the_journal_too(host: Host) -> None:
    with host.outage() as audit:
        nonsense = Fact("outcomes", {**an_outcome("job-2").values, "outcome": "nonsense"})
        calls = [audit.submit([fact]) for fact in (a_start("job-1"), nonsense, a_start("job-3"))]
        assert [call.exception() is None for call in calls] == [True, False, True]
    assert host.carry() == 2


def test_more_rows_than_one_transaction_takes_are_carried_over(host: Host) -> None:
    with host.outage() as audit:
        for part in range(3):
            starts = [a_start(f"job-{part}-{n}") for n in range(CHUNK // 2)]
            assert audit.commit(starts, timeout=timedelta(seconds=20)) == [Stored.NEW] * len(starts)
    assert host.carry() == 3 * (CHUNK // 2)
    assert len(host.rows("starts")) == 3 * (CHUNK // 2)


def test_an_old_copy_of_a_journal_hides_nothing(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """Two rows for one place: the database's stays, the other is named and stays in the journal."""
    with host.outage() as audit:
        audit.commit([a_start()])
    record(host.engine, a_start("job-2"))  # the same chain grew in the database as well
    journal = host.journal().opened()
    carry_all(journal, host.engine, ending=lambda: False)
    assert journal.depth() == 1
    assert "journal.not_carried" in capsys.readouterr().out
    host.heads.clear()
    assert host.verify(here=True).fault.what == "another row has this place in the chain"
