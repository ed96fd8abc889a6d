"""Seals bind all chains together: who rewrites what was sealed is found out, by whoever kept one digest."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from tests.parts.cancels import ENVIRONMENT, a_job, a_start, a_whole_life, at_once, record, seal, writing
from tests.parts.databases import database_taking_no_rows
from tests.parts.tampering import disarm, forge_account
from worker.audit.carry import carry_all
from worker.audit.chain import Head, digest, named, sealed
from worker.audit.engine import open_engine
from worker.audit.facts import job_fact
from worker.audit.journal import Journal
from worker.audit.seals import Sealer, add
from worker.audit.verify import verify
from worker.audit.writer import AuditWriter
from worker.errors import AuditUnavailable
from worker.ledger.client import Ledger
from worker.work.seal import SEAL_EVERY, Sealing

NOBODY = "0" * 64


@pytest.fixture
def thrice(audit_engine: Engine) -> tuple[Engine, list[str]]:
    """Three seals over the chains of two writers, disarmed."""
    digests = []
    for number in range(3):
        record(audit_engine, *a_whole_life(f"job-{number}"))
        record(audit_engine, job_fact(a_job(f"other-{number}")), writer=f"writer-{2 + number}")
        digests.append(seal(audit_engine))
    disarm(audit_engine)
    return audit_engine, digests


def run(engine: Engine, statement: str, **values: object) -> None:
    with engine.begin() as connection:
        assert connection.execute(text(statement), values).rowcount > 0


def seals_of(engine: Engine) -> list[Mapping[str, Any]]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT * FROM seals ORDER BY number")).mappings())


# --- what verify makes of them


def test_one_digest_stands_for_all_that_was_sealed_whatever_comes_later(audit_engine: Engine) -> None:
    assert (verify(audit_engine).digest, verify(audit_engine).newer) == ("", 0)
    record(audit_engine, *a_whole_life("job-1"))
    assert verify(audit_engine).newer == 7
    first = seal(audit_engine)
    assert (verify(audit_engine).digest, verify(audit_engine).newer) == (first, 0)
    record(audit_engine, job_fact(a_job("job-2")))
    record(audit_engine, job_fact(a_job("job-3")), writer="writer-2")
    later = verify(audit_engine, expect=first)
    assert (later.fault, later.digest, later.newer) == (None, first, 2)
    assert later.unsealed.keys() == {"writer-1", "writer-2"}
    assert verify(audit_engine, expect=seal(audit_engine)).fault is None


def test_a_digest_that_no_seal_has_is_a_fault(audit_engine: Engine) -> None:
    record(audit_engine, *a_whole_life())
    seal(audit_engine)
    fault = verify(audit_engine, expect=NOBODY).fault
    assert str(fault) == f"seal 1: no seal up to here has the digest {NOBODY}"


@pytest.mark.parametrize(
    ("statement", "number", "what"),
    [
        ("DELETE FROM seals WHERE number = 2", 2, "is missing: the seals go from 1 to 3"),
        ("DELETE FROM seals WHERE number = 1", 1, "is missing: the seals go from 0 to 2"),
        ("UPDATE seals SET environment = 'x' WHERE number = 2", 2, "its columns are not what"),
        ("UPDATE seals SET heads = '[]' WHERE number = 2", 2, "its columns are not what"),
        ("UPDATE seals SET digest = prev WHERE number = 2", 2, "its columns are not what"),
        ("UPDATE seals SET prev = digest WHERE number = 2", 2, "its columns are not what"),
    ],
)
def test_a_seal_that_was_changed_or_removed_is_named(
    thrice: tuple[Engine, list[str]], statement: str, number: int, what: str
) -> None:
    engine, digests = thrice
    run(engine, statement)
    fault = verify(engine, expect=digests[0]).fault
    assert (fault.table, fault.seq) == ("seals", number)
    assert what in fault.what


def test_the_removal_of_the_newest_seal_is_seen_by_whoever_has_its_digest(
    thrice: tuple[Engine, list[str]],
) -> None:
    engine, digests = thrice
    run(engine, "DELETE FROM seals WHERE number = 3")
    assert verify(engine).newer == 8
    assert verify(engine, expect=digests[1]).ok
    assert "no seal" in verify(engine, expect=digests[2]).fault.what


def test_a_cut_tail_is_found_without_a_witness_once_it_was_sealed(thrice: tuple[Engine, list[str]]) -> None:
    engine, _ = thrice
    run(engine, "DELETE FROM outcomes WHERE job_id = 'job-2'")
    fault = verify(engine).fault
    assert (fault.table, fault.writer, fault.seq) == ("(gone)", "writer-1", 21)
    assert fault.what == "is missing: row 21 is named by seal 3"


def test_a_whole_chain_that_vanished_is_found_by_the_seals(thrice: tuple[Engine, list[str]]) -> None:
    engine, _ = thrice
    run(engine, "DELETE FROM jobs WHERE writer = 'writer-3'")
    fault = verify(engine).fault
    assert (fault.writer, fault.seq, "named by seal 2" in fault.what) == ("writer-3", 1, True)


def test_a_chain_written_anew_is_found_by_the_seals_and_with_the_seals_by_a_kept_digest(
    audit_engine: Engine,
) -> None:
    record(audit_engine, job_fact(a_job(account="A")))
    kept = seal(audit_engine)
    disarm(audit_engine)
    with audit_engine.begin() as connection:
        forge_account(connection)
    fault = verify(audit_engine).fault
    assert (fault.table, fault.seq) == ("jobs", 1)
    assert "seal 1 names another digest" in fault.what
    run(audit_engine, "DELETE FROM seals")
    forged = seal(audit_engine)
    assert verify(audit_engine).ok  # who owns everything leaves no trace
    assert verify(audit_engine, expect=forged).ok
    assert "no seal" in verify(audit_engine, expect=kept).fault.what


def test_a_seal_that_was_put_in_another_s_place_does_not_follow(thrice: tuple[Engine, list[str]]) -> None:
    engine, _ = thrice
    run(engine, "DELETE FROM seals WHERE number = 2")
    forge_seal(engine, Head(2, "of-another-audit"), "[]")
    assert str(verify(engine).fault) == "seal 2: it does not follow seal 1"


def forge_seal(engine: Engine, place: Head, heads: str) -> None:
    at = "2026-11-23T12:00:00.000000Z"
    run(
        engine,
        "INSERT INTO seals VALUES (:number, :prev, :digest, '', :at, :heads)",
        number=place.seq,
        prev=place.digest,
        digest=digest(sealed(place, "", (at, heads))),
        at=at,
        heads=heads,
    )


@pytest.mark.parametrize(
    "heads",
    [
        '[["writer-1",1]]',
        '[["writer-1",true,"x"]]',
        '[["writer-1",9223372036854775808,"x"]]',
        '[["\\ud800",1,"x"]]',
        '{"writer-1":1}',
        "[" * 100_000,
        "nonsense",
    ],
)
def test_a_forged_seal_that_names_no_rows_is_named_not_stumbled_over(
    audit_engine: Engine, heads: str
) -> None:
    forge_seal(audit_engine, Head(1, ""), heads)
    assert str(verify(audit_engine).fault) == "seal 1: what it names are no rows"
    record(audit_engine, *a_whole_life())
    made = Sealer(audit_engine, ENVIRONMENT).seal(verify(audit_engine).heads)
    assert made is not None
    assert made.seq == 2  # what is true goes on being sealed


def test_no_seal_can_be_changed(audit_engine: Engine) -> None:
    record(audit_engine, *a_whole_life())
    seal(audit_engine)
    on_sqlite = audit_engine.dialect.name == "sqlite"
    again = "INTO seals SELECT * FROM seals WHERE true"
    for statement in (
        "UPDATE seals SET heads = '[]'",
        "DELETE FROM seals",
        f"INSERT OR REPLACE {again}" if on_sqlite else "TRUNCATE seals",
        f"INSERT {again} ON CONFLICT (number) DO UPDATE SET heads = '[]'",
    ):
        with pytest.raises(IntegrityError, match="append-only"), audit_engine.begin() as connection:
            connection.execute(text(statement))


# --- who seals


def test_two_who_seal_at_once_leave_no_gap_and_no_chain_out(audit_engine: Engine, database_url: str) -> None:
    heads = {}
    for number in range(4):
        with writing(audit_engine, f"writer-{number}") as audit:
            audit.commit([job_fact(a_job(f"job-{number}"))])
            heads[f"writer-{number}"] = audit.head()

    def one(number: int) -> None:
        engine = open_engine(database_url)
        Sealer(engine, ENVIRONMENT).seal({f"writer-{number}": heads[f"writer-{number}"]})
        engine.dispose()

    at_once(one, 2)
    assert [row["number"] for row in seals_of(audit_engine)] == [1, 2]
    late = Sealer(audit_engine, ENVIRONMENT)
    assert late.seal(heads).seq == 3
    assert seals_of(audit_engine)[2]["heads"] == named({f"writer-{n}": heads[f"writer-{n}"] for n in (2, 3)})
    assert late.seal(heads) is None
    assert (verify(audit_engine).fault, verify(audit_engine).newer) == (None, 0)


def test_a_seal_that_came_first_is_not_written_over(audit_engine: Engine) -> None:
    record(audit_engine, *a_whole_life())
    found = verify(audit_engine)
    assert add(audit_engine, found.seals.newest, found.unsealed, ENVIRONMENT) is not None
    assert add(audit_engine, found.seals.newest, found.unsealed, ENVIRONMENT) is None


def test_a_database_that_came_back_as_an_older_copy_is_sealed_on_from_there(
    thrice: tuple[Engine, list[str]],
) -> None:
    engine, _ = thrice
    heads = verify(engine).heads
    sealer = Sealer(engine, ENVIRONMENT)
    assert sealer.seal(heads) is None
    run(engine, "DELETE FROM seals WHERE number > 1")
    assert sealer.seal(heads).seq == 2
    assert verify(engine).newer == 0


def sealing(audit: AuditWriter, ledger: Ledger, engine: Engine) -> Sealing:
    return Sealing(Sealer(engine, ENVIRONMENT), ledger=ledger, audit=audit, writer="writer-1")


def test_a_worker_seals_at_its_end_its_own_chain_and_those_that_died(
    audit_engine: Engine, ledger: Ledger
) -> None:
    with writing(audit_engine, "dead") as dead:
        dead.commit(a_whole_life())
        ledger.witness("dead", *dead.head())
    ledger.witness("elsewhere", 9, "in-no-database-yet")
    record(audit_engine, job_fact(a_job("job-9")), writer="forged")
    ledger.witness("forged", 1, "the-digest-of-another-row")
    with writing(audit_engine) as audit:
        audit.commit([job_fact(a_job("job-2"))])
        sealing(audit, ledger, audit_engine).finish()
        assert set(verify(audit_engine).unsealed) == {"forged"}
        audit.commit([job_fact(a_job("job-3"))])
        with Ledger("redis://127.0.0.1:9", ledger.name, timeout=timedelta(seconds=1)) as away:
            sealing(audit, away, audit_engine).finish()
    assert ["dead" in row["heads"] for row in seals_of(audit_engine)] == [True, False]
    assert set(verify(audit_engine).unsealed) == {"forged"}


def test_a_worker_seals_when_nobody_has_for_a_minute(audit_engine: Engine, ledger: Ledger) -> None:
    with writing(audit_engine) as audit:
        audit.commit(a_whole_life())
        duty = sealing(audit, ledger, audit_engine)
        duty.look()
        assert seals_of(audit_engine) == []
        duty._sealer._since -= SEAL_EVERY
        duty.look()
        audit.commit([job_fact(a_job("job-2"))])
        duty.look()
        assert len(seals_of(audit_engine)) == 1


@pytest.fixture
def hasty(database_url: str) -> Iterator[Engine]:
    """It gives a database up soon."""
    engine = open_engine(database_url, statement_bound=timedelta(milliseconds=300))
    yield engine
    engine.dispose()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path, "ledger", ENVIRONMENT, lambda *_told: None)


def test_rows_of_a_journal_are_sealed_once_they_were_carried_over(
    database_url: str, hasty: Engine, journal: Journal, ledger: Ledger
) -> None:
    with writing(hasty, journal=journal) as audit:
        duty = sealing(audit, ledger, hasty)
        audit.commit([job_fact(a_job())])
        seal(hasty)
        with database_taking_no_rows(database_url):
            audit.commit([a_start()])
        with pytest.raises(AuditUnavailable, match="in the journal"):
            duty.look()
        duty.finish()
        assert duty.failing() > 0
        waiting = verify(hasty, journal=journal)
        assert (waiting.fault, waiting.rows, waiting.newer, waiting.unsealed) == (None, 2, 0, {})
        carry_all(journal, hasty, ending=lambda: False)
        audit.come_back()
        audit.commit([a_start(attempt=2)])
        duty.look()
        assert duty.failing() == 0
        duty.finish()
    carried = verify(hasty)
    assert (carried.fault, carried.newer, carried.seals.newest.seq) == (None, 0, 2)


def test_a_sealed_row_that_only_a_journal_has_is_gone(
    database_url: str, hasty: Engine, journal: Journal
) -> None:
    with writing(hasty, journal=journal) as audit:
        with database_taking_no_rows(database_url):
            audit.commit([job_fact(a_job())])
        head = audit.head()
    add(hasty, Head(), {"writer-1": head}, ENVIRONMENT)
    fault = verify(hasty, journal=journal).fault
    assert (fault.writer, fault.seq, "named by seal 1" in fault.what) == ("writer-1", 1, True)
