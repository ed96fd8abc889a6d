"""The group commit: on disk before a caller returns, insert-or-nothing, the guilty alone fails."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from tests.parts.cancels import (
    a_job,
    a_reply,
    a_start,
    a_whole_life,
    an_outcome,
    at_once,
    not_sent,
    unanswered,
    writing,
)
from worker.audit.engine import open_engine
from worker.audit.facts import Fact, job_fact, reply_fact
from worker.audit.verify import verify
from worker.audit.writer import AuditWriter, Stored
from worker.errors import AuditUnavailable, FactRejected

THREADS = 32
ROUNDS = 5
SHORT = timedelta(milliseconds=300)


def nonsense(job: str) -> Fact:
    """Only the database can tell that this is no outcome."""
    return Fact("outcomes", {**an_outcome(job).values, "outcome": "nonsense"})


def held(engine: Engine, job: str) -> int:
    with engine.connect() as connection:
        found = connection.execute(text("SELECT count(*) FROM starts WHERE job_id = :job"), {"job": job})
        return int(found.scalar_one())


def test_a_caller_returns_only_when_its_row_is_on_disk(audit_engine: Engine, database_url: str) -> None:
    onlooker = open_engine(database_url)

    def work(number: int) -> None:
        for turn in range(ROUNDS):
            name = f"job-{number}-{turn}"
            assert audit.commit([a_start(name)]) == [Stored.NEW]
            with lock:
                assert held(onlooker, name) == 1

    lock = threading.Lock()
    with writing(audit_engine) as audit:
        at_once(work, THREADS)
        assert audit.head().seq == THREADS * ROUNDS
    onlooker.dispose()


def test_the_chain_of_many_threads_is_whole(audit_engine: Engine) -> None:
    with writing(audit_engine) as audit:
        at_once(lambda number: audit.commit(a_whole_life(f"job-{number}")) and None, THREADS)
        head = audit.head()
    checked = verify(audit_engine)
    assert (checked.fault, checked.heads) == (None, {"writer-1": head})


def test_a_fact_that_stands_there_is_not_written_again(audit_engine: Engine) -> None:
    with writing(audit_engine) as audit:
        life = a_whole_life()
        assert set(audit.commit(life)) == {Stored.NEW}
        again = dict(zip([fact.table for fact in life], audit.commit(life), strict=True))
    # A read has no key of its own (two looks may see the same); the start is vetoed by the outcome.
    expected = {"reads": Stored.NEW, "starts": Stored.ENDED}
    assert again == {table: expected.get(table, Stored.THERE) for table in again}


def test_the_first_of_two_equal_facts_in_one_batch_wins(audit_engine: Engine) -> None:
    with writing(audit_engine) as audit:
        assert audit.commit([a_start(), a_start()]) == [Stored.NEW, Stored.THERE]


def test_no_start_is_written_for_a_job_that_has_an_outcome(audit_engine: Engine) -> None:
    with writing(audit_engine) as audit:
        audit.commit([job_fact(a_job()), an_outcome()])
        assert audit.commit([a_start(attempt=7)]) == [Stored.ENDED]
    assert held(audit_engine, "job-1") == 0


def test_a_poisonous_fact_fails_alone_and_its_neighbours_are_stored(audit_engine: Engine) -> None:
    audit = AuditWriter(audit_engine, writer="writer-1", environment="e")
    good = [audit.submit([a_start(f"job-{number}")]) for number in range(20)]
    guilty = audit.submit([a_start("job-guilty"), nonsense("job-guilty")])
    more = [audit.submit([a_start(f"job-{number}")]) for number in range(20, 40)]
    audit.start()  # only now: all of them are one batch
    assert [future.result(10) for future in good + more] == [[Stored.NEW]] * 40
    with pytest.raises(FactRejected, match=r"outcomes.*ck_outcomes_outcome"):
        guilty.result(10)
    audit.stop()
    assert held(audit_engine, "job-guilty") == 0
    assert audit.head().seq == 40


def test_a_fact_that_is_wrong_on_its_face_is_refused_before_it_is_queued(audit_engine: Engine) -> None:
    with writing(audit_engine) as audit, pytest.raises(FactRejected, match=r"starts\.attempt"):
        audit.submit([Fact("starts", {**a_start().values, "attempt": 2**31})])


def test_a_writer_goes_on_where_its_chain_ended(audit_engine: Engine) -> None:
    for attempt in (1, 2, 3):
        with writing(audit_engine) as audit:
            audit.commit([job_fact(a_job()), a_start(attempt=attempt)])
    checked = verify(audit_engine)
    assert (checked.fault, checked.rows) == (None, 4)


def test_two_writers_of_one_name_still_make_one_chain(audit_engine: Engine) -> None:
    with writing(audit_engine) as one, writing(audit_engine) as other:
        for attempt in range(1, 11):
            audit = one if attempt % 2 else other
            assert audit.commit([job_fact(a_job()), a_start(attempt=attempt)])[1] is Stored.NEW
    assert verify(audit_engine).fault is None


def test_a_caller_whose_time_is_up_was_not_stored(audit_engine: Engine, database_url: str) -> None:
    impatient = open_engine(database_url, statement_bound=timedelta(seconds=1))
    with audit_engine.begin() as blocker:
        _lock(blocker)
        with writing(impatient) as audit:
            audit.submit([a_start("first")], timeout=SHORT)
            with pytest.raises(AuditUnavailable, match="did not commit in time"):
                audit.commit([a_start("second")], timeout=SHORT)
            blocker.rollback()
    impatient.dispose()
    assert held(audit_engine, "second") == 0
    assert verify(audit_engine).rows <= 1


def _lock(connection: object) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE starts IN ACCESS EXCLUSIVE MODE"))


def test_stopping_commits_what_is_queued(audit_engine: Engine) -> None:
    with writing(audit_engine) as audit:
        futures = [audit.submit([a_start(f"job-{number}")]) for number in range(50)]
    assert all(future.result(0) == [Stored.NEW] for future in futures)
    with pytest.raises(AuditUnavailable, match="stopped"):
        audit.commit([a_start()])


def test_no_facts_need_no_commit(audit_engine: Engine) -> None:
    with writing(audit_engine) as audit:
        assert audit.commit([]) == []


def test_what_a_sender_and_a_recoverer_say_of_one_attempt_is_settled_by_the_first(
    audit_engine: Engine,
) -> None:
    with writing(audit_engine, "sender") as sender, writing(audit_engine, "recoverer") as recoverer:
        sender.commit([job_fact(a_job()), a_start()])
        lost = reply_fact("job-1", 1, unanswered(sent=None), recorded_at=a_job().enqueued_at)
        assert recoverer.commit([lost]) == [Stored.NEW]
        # A verdict is of its reply: none goes beside another holder's.
        assert sender.commit(a_reply(not_sent())) == [Stored.THERE, Stored.THERE]
        (_, verdict) = a_reply(unanswered(sent=None))
        assert recoverer.commit([verdict]) == [Stored.NEW]
