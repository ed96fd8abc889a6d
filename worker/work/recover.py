"""Takes over jobs whose holder vanished: SQL may know more than the ledger. Closes rows left open."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import timedelta
from enum import Enum, auto

import structlog

from worker.audit.engine import is_busy
from worker.audit.facts import Fact, reply_fact, verdict_fact
from worker.audit.journal import Mark
from worker.audit.queries import AttemptRow, Story, story
from worker.clock import from_micros, to_micros, utc_now
from worker.errors import AuditUnavailable
from worker.gaps import Gap, reached
from worker.job import Evidence, Job, JobId, Memory, Outcome, Step
from worker.policy import Again, Decision, End, after_reply, held_up
from worker.reply import NotSent, Reply, Unanswered
from worker.verdict import Verdict, classify
from worker.work.crew import Crew
from worker.work.happening import followed, named

log = structlog.get_logger()

# How often an order is read that may not be POSTed again before the database is back.
STORY_AGAIN = timedelta(seconds=1)
# In `Job.lost_by`: a holder that nobody can name.
UNNAMED = "?"

Recovered = tuple[Job, Decision | None, list[Fact]]


def recover(crew: Crew, jobs: Sequence[Job]) -> list[Recovered]:
    """Each job with what SQL knows folded in; a decision where SQL knows the end already."""
    lost = [job for job in jobs if job.lapsed or job.memory.story_due is not None]
    stories = _stories(crew, lost) if lost else {}
    if stories:
        reached(Gap.STORY_READ)
    unknown = {job.id for job in lost} - stories.keys()
    return [
        (_without_story(crew, job), None, []) if job.id in unknown else _fold(crew, job, stories.get(job.id))
        for job in jobs
    ]


def _stories(crew: Crew, lost: Sequence[Job]) -> dict[JobId, Story]:
    """What is on record of these jobs, of each of which all is known.

    Of some it isn't: rows that a lost holder wrote may be in the database that is away, or in another host's journal.
    A start row of a chain that goes on in no such journal says that its later rows are here as well.
    """
    marks = crew.ledger.marks()  # before the rows: who carries them over takes its mark away afterwards
    found, read = on_record(crew, [job.id for job in lost])
    away = None if read is Read.JOURNAL else _away(crew, marks, read)
    return {job.id: found[job.id] for job in lost if _is_whole(found[job.id], job, away)}


class Read(Enum):
    """Where a story was read."""

    ALL = auto()
    JOURNAL = auto()  # of this host, alone
    DATABASE = auto()  # without this host's journal, which is there


def on_record(crew: Crew, job_ids: Sequence[JobId]) -> tuple[dict[JobId, Story], Read]:
    """What can be read of these jobs, and where; AuditUnavailable if nothing can."""
    journal = crew.journal
    beside = journal.engine if journal is not None and journal.exists else None
    if beside is None or not crew.audit.journaling:
        try:
            return story(crew.engine, job_ids, beside=beside), Read.ALL
        except AuditUnavailable:
            if beside is None:
                raise
    try:
        return story(beside, job_ids), Read.JOURNAL
    except AuditUnavailable as error:
        if is_busy(error):
            raise
        log.error("journal.unreadable", reason=str(error))  # noqa: TRY400
        return story(crew.engine, job_ids), Read.DATABASE


def _away(crew: Crew, marks: Mapping[str, str], read: Read) -> frozenset[str]:
    """The chains whose newest rows are in a journal that cannot be read here: another host's, or a broken one."""
    ours = crew.journal.id if crew.journal is not None and read is not Read.DATABASE else None
    return frozenset(
        chain for chain, mark in marks.items() if ours is None or Mark.parse(mark).journal != ours
    )


def _is_whole(told: Story, job: Job, away: AbstractSet[str] | None) -> bool:
    """Whether nothing can be missing; `away`: chains that go on where nobody can read, None: only our journal was read."""
    if told.outcome is not None or job.step is not Step.RECONCILE or away == set():
        return True  # who lost a step other than "post" has sent nothing
    begun = [row.writer for row in told.attempts if row.attempt > job.attempts]
    if away is None:
        return bool(begun)
    return _is_known(job, away) or any(chain not in away for chain in begun)


def _is_known(job: Job, away: AbstractSet[str]) -> bool:
    """Whether every holder that lost it can be named, and none has rows elsewhere: a host that is gone for good, and its
    journal with it, keeps its mark for ever, and concerns only what its own workers held.

    Not of a job that was found wanting before: its holders of then were forgotten when it was given back.
    """
    if not job.lost_by or UNNAMED in job.lost_by or job.memory.story_due is not None:
        return False
    return away.isdisjoint(job.lost_by)


def without_story(job: Job, decision: Decision) -> Decision:
    """While rows of an earlier holder may be where nobody can read them, reading goes on and nothing is POSTed."""
    if job.memory.story_due is None or not isinstance(decision, Again) or decision.step is not Step.POST:
        return decision
    return replace(decision, step=Step.RECONCILE, delay=max(decision.delay, STORY_AGAIN))


def leftovers(crew: Crew, job_ids: Iterable[str]) -> tuple[list[Fact], set[str]]:
    """What closes the attempts of ended jobs whose rows could not be read when the end was seen; and who has to wait.

    For its end, or for the journal of a host that may keep an answer which only that host has.
    """
    facts: list[Fact] = []
    waiting: set[str] = set()
    away = _away(crew, crew.ledger.marks(), Read.ALL)  # before the rows, as above
    for job_id, told in story(crew.engine, map(JobId, job_ids)).items():
        unanswered = [row for row in told.attempts if row.reply is None or row.verdict is None]
        if told.outcome is None or any(row.writer in away for row in unanswered):
            waiting.add(job_id)
            continue
        for row in unanswered:
            facts.extend(_closing(crew, job_id, row)[2])
    return facts, waiting


def unclosed(crew: Crew, jobs: Sequence[Job]) -> list[Fact]:
    """What closes the attempts of ended jobs of which nothing could be read when their end was seen.

    Nobody else would: their rows were in the database, which had been away for a moment. What a host wrote whose
    journal is away is closed by whoever carries that.
    """
    blind = [job.id for job in jobs if job.memory.story_due is not None]
    if not blind:
        return []
    marks = crew.ledger.marks()
    found, read = on_record(crew, blind)
    if read is Read.JOURNAL:
        return []  # so the outcome is in the journal as well, and whoever carries it looks again
    away = _away(crew, marks, read)
    return [
        fact
        for job_id, told in found.items()
        for row in told.attempts
        if row.writer not in away
        for fact in _closing(crew, job_id, row)[2]
    ]


def ended(outcome: Outcome, evidence: str | None, job: Job) -> End:
    """An end that was decided before; its evidence text is kept as it was."""
    word, _, detail = (evidence or Evidence.UNPROVEN).partition(" ")
    return End(outcome=outcome, evidence=Evidence(word), detail=detail, memory=job.memory)


def _fold(crew: Crew, job: Job, known: Story | None) -> Recovered:
    if known is None:
        return job, None, []
    facts: list[Fact] = []
    decision: Decision | None = None
    if job.memory.story_due is not None:
        waited = crew.clock.now() - from_micros(job.memory.story_due)
        job = job._replace(memory=held_up(job.memory, waited)._replace(story_due=None))
    put_back = not job.memory.pursuit  # into a ledger that had lost it: nothing of its attempts is remembered
    for row in known.attempts:
        if row.attempt <= job.attempts and row.verdict is not None and not put_back:
            continue
        job, decision, written = _fold_attempt(crew, job, row)
        facts.extend(written)
    if known.outcome is not None:
        decision = ended(Outcome(known.outcome.outcome), known.outcome.evidence, job)
    return job, decision if isinstance(decision, End) else None, facts


def _fold_attempt(crew: Crew, job: Job, row: AttemptRow) -> tuple[Job, Decision, list[Fact]]:
    """Re-decide one attempt from its rows; classify and decide are pure, so nothing is lost but time."""
    verdict, reply, facts = _closing(crew, job.id, row)
    job = job._replace(attempts=max(job.attempts, row.attempt), memory=_noting_first_byte(job, row, reply))
    decision = after_reply(job, verdict, crew.policy, crew.clock.now())
    log.info(
        "attempt.recovered",
        **named(job),
        attempt=row.attempt,
        verdict=str(verdict.meaning),
        lost=row.reply is None,
        **followed(decision),
    )
    return job._replace(memory=decision.memory), decision, facts


def _closing(crew: Crew, job_id: JobId, row: AttemptRow) -> tuple[Verdict, Reply, list[Fact]]:
    """What an attempt came to, and the rows that it lacks."""
    facts: list[Fact] = []
    reply = row.reply
    if reply is None:
        reply = _lost()
        facts.append(reply_fact(job_id, row.attempt, reply, recorded_at=utc_now()))
    verdict = classify(reply, crew.policy.transient)
    if row.verdict is None:
        facts.append(_verdict_row(crew, job_id, row, verdict))
    return verdict, reply, facts


def _lost() -> Unanswered:
    return Unanswered(error="worker lost", sent_at=None, ended_at=utc_now())


def _without_story(crew: Crew, job: Job) -> Job:
    """Whatever was sent was not answered: that is all that can be known of it now. The database's absence costs nothing."""
    now, since, memory = crew.clock.now(), job.memory.story_due, job.memory
    if since is None:
        lost = after_reply(job, classify(_lost()), crew.policy, now).memory
        memory = lost._replace(pursuit=memory.pursuit)  # which rows were folded in stays known
    elif crew.audit.journaling:
        memory = held_up(memory, now - from_micros(since))
    return job._replace(memory=memory._replace(story_due=to_micros(now)))


def _verdict_row(crew: Crew, job_id: JobId, row: AttemptRow, verdict: Verdict) -> Fact:
    return verdict_fact(
        job_id,
        row.attempt,
        verdict,
        policy_version=crew.policy.version,
        decided_at=utc_now(),
    )


def _noting_first_byte(job: Job, row: AttemptRow, reply: Reply) -> Memory:
    if isinstance(reply, NotSent) or job.memory.first_sent_at is not None:
        return job.memory
    return job.memory._replace(first_sent_at=to_micros(reply.sent_at or row.started_at))
