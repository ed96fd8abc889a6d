"""The worker's side of the ledger: claim, renew, settle, close, finish, sweep. Decides nothing.

Each call is one Redis function, bounded in time and never repeated by itself.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from redis.exceptions import RedisError, ResponseError

from worker.clock import from_micros, monotonic, span_micros, to_micros
from worker.errors import ConfigError, LedgerUnavailable
from worker.job import Action, ClaimId, Job, JobId, Joiner, Outcome, State, Steering, Step
from worker.ledger import library
from worker.ledger.connection import address, lacks_functions, open_client
from worker.ledger.encoding import (
    Survey,
    action_from,
    compact,
    fields_json,
    instant,
    job_from,
    joiner_from,
    meta_key,
    moment,
    pairs,
    prefix,
    storable,
    survey_from,
)
from worker.ledger.receipt import Letter, Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What one claim brought; `asked_at` (monotonic, before the call) is where the lease counts from."""

    now: datetime
    asked_at: timedelta
    jobs: tuple[Job, ...]
    due_left: bool
    next_due: datetime | None
    stood_still: int = 0  # µs of all lock-outs so far, the present one to its end
    held_back: int = 0  # µs of all pauses so far, lock-outs apart
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """What a worker process is there for."""

    exchange: str
    worker: str = "worker"  # unique to the process
    dry_run: bool = False
    alerts: bool = False  # whether it delivers them

    @property
    def kind(self) -> str:
        return "dry" if self.dry_run else "real"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """A job given back: what to do next and when; a field of None is removed."""

    job: JobId
    claim: ClaimId
    step: Step
    state: State
    delay: timedelta
    fields: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """A held job whose end is decided; `deadline` is the one that the decision knew of."""

    job: JobId
    claim: ClaimId
    outcome: Outcome
    evidence: str
    deadline: datetime | None
    fields: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep found; counts are zero when another process swept within the interval."""

    ran: bool
    now: datetime
    paused: bool
    drained: bool
    lapsed: int
    due: int
    oldest_due: datetime | None
    next_due: datetime | None
    bells: int


# A worker that has not signed on again for so long is gone.
SIGNED_ON = timedelta(seconds=20)


class Ledger:
    """One ledger on one Redis; thread-safe. Errors: LedgerUnavailable, with the address, without a password."""

    def __init__(self, redis_url: str, name: str, *, timeout: timedelta) -> None:
        self.name = name
        self._address = address(redis_url)
        self._prefix = prefix(name)
        self._redis = open_client(redis_url, timeout=timeout)

    def close_connections(self) -> None:
        self._redis.close()
        self._redis.connection_pool.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close_connections()

    # --- the life of a job

    def claim(self, claim: ClaimId, worker: str, *, lease: timedelta, jobs: int, confirms: int) -> Claimed:
        """Take due jobs: lapsed ones first, then urgent, due and confirmations."""
        asked_at = monotonic()
        now, due_left, next_due, stood_still, held_back, paused, *taken = self._call(
            "cancelq_claim", claim, storable(worker), span_micros(lease), jobs, confirms
        )
        return Claimed(
            now=from_micros(now),
            asked_at=asked_at,
            jobs=tuple(job_from(pairs(flat)) for flat in taken),
            due_left=bool(due_left),
            next_due=moment(next_due),
            stood_still=int(stood_still),
            held_back=int(held_back),
            paused=bool(paused),
        )

    def renew(self, lease: timedelta, held: Sequence[tuple[JobId, ClaimId]]) -> frozenset[JobId]:
        """Prolong the leases of jobs in hand; gives the lost ones."""
        return frozenset(
            self._call("cancelq_renew", span_micros(lease), *(text for pair in held for text in pair))
        )

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Give jobs back; False where the claim was stale and nothing was written."""
        items = [
            {
                "job": s.job,
                "claim": s.claim,
                "step": s.step,
                "state": s.state,
                "delay_us": max(0, span_micros(s.delay)),
                "fields": fields_json(s.fields),
            }
            for s in settlements
        ]
        return [bool(done) for done in self._call("cancelq_settle", compact(items))]

    def close(self, closings: Sequence[Closing]) -> list[tuple[Joiner, ...] | None]:
        """Decide ends: each job's joiners, frozen from here; None where the claim was stale.

        None too where a joiner has given more time to a job that was to end unresolved: it comes back to be read.
        """
        items = [
            {
                "job": c.job,
                "claim": c.claim,
                "outcome": c.outcome,
                "evidence": storable(c.evidence),
                "deadline": "" if c.deadline is None else str(to_micros(c.deadline)),
                "fields": fields_json(c.fields),
            }
            for c in closings
        ]
        replies = self._call("cancelq_close", compact(items))
        return [None if reply == 0 else tuple(joiner_from(text) for text in reply) for reply in replies]

    def finish(self, finished: Sequence[tuple[JobId, ClaimId, Outcome, str, datetime]]) -> list[bool]:
        """Let jobs go whose outcome is in the audit; False where the claim was stale."""
        items = [
            {
                "job": job,
                "claim": claim,
                "outcome": outcome,
                "evidence": storable(evidence),
                "finished_at": str(to_micros(at)),
            }
            for job, claim, outcome, evidence, at in finished
        ]
        return [bool(done) for done in self._call("cancelq_finish", compact(items))]

    def sweep(self, interval: timedelta) -> Swept:
        """Mend lapsed leases and ring for due work, at most once per interval whoever calls."""
        ran, now, paused, drained, lapsed, due, oldest, next_due, bells = self._call(
            "cancelq_sweep", span_micros(interval)
        )
        return Swept(
            ran=bool(ran),
            now=from_micros(now),
            paused=bool(paused),
            drained=bool(drained),
            lapsed=lapsed,
            due=due,
            oldest_due=moment(oldest),
            next_due=moment(next_due),
            bells=bells,
        )

    # --- what people do

    def steer(self, kind: Steering, *, action_id: str, by: str, because: str | None) -> Survey:
        """Pause, drain or resume the whole ledger, in somebody's name; Refused says why it can't be."""
        told = self._call("cancelq_steer", kind, action_id, storable(by), storable(because or ""))
        return survey_from(told)

    def survey(self) -> Survey:
        """How the ledger stands."""
        return survey_from(self._call("cancelq_survey"))

    def actions(self) -> list[Action]:
        """What was done with the ledger and the audit may not know yet."""
        found = pairs(self._call("cancelq_actions"))
        return [action_from(action_id, text) for action_id, text in found.items()]

    def actions_recorded(self, ids: Sequence[str]) -> None:
        self._call("cancelq_actions_recorded", *ids)

    def redrive(self, letter: Letter, of: JobId) -> Receipt:
        """Store a new job for one that ended badly; its order is read before anything is POSTed."""
        return Receipt.from_reply(self._call("cancelq_redrive", letter.text, of), letter.request_id)

    # --- alerts

    def next_alert(self, again_after: timedelta) -> str | None:
        """The JSON of an alert that is due; it comes back unless it is `alerted`."""
        found: str | None = self._call("cancelq_alert", span_micros(again_after))
        return found

    def alerted(self, alert: str) -> None:
        self._call("cancelq_alerted", alert)

    # --- the audit's side

    def unregistered(self, limit: int, older_than: timedelta) -> list[tuple[Job, tuple[Joiner, ...]]]:
        """Jobs, with their joiners, that the audit may not know yet."""
        found = self._call("cancelq_unregistered", limit, span_micros(older_than))
        return [(job_from(pairs(flat)), tuple(map(joiner_from, joiners))) for flat, joiners in found]

    def registered(self, seen: Sequence[tuple[JobId, int]]) -> None:
        """The audit knows these jobs with so many joiners."""
        self._call("cancelq_registered", *(text for pair in seen for text in pair))

    def witness(self, writer: str, seq: int, digest: str) -> None:
        self._call("cancelq_witness", writer, seq, digest)

    def heads(self) -> dict[str, tuple[int, str]]:
        """The newest audit row of each writer that the ledger was told of."""
        heads = pairs(self._call("cancelq_heads"))
        return {writer: (int(text.split(" ")[0]), text.split(" ")[1]) for writer, text in heads.items()}

    # --- service

    def lock_out(self, span: timedelta) -> datetime:
        """Stop all claims for a while; gives when they go on."""
        return instant(self._call("cancelq_lock_out", span_micros(span)))

    def status(
        self, *, job_id: str | None = None, order_id: int | None = None, account: str | None = None
    ) -> dict[str, Any]:
        wanted = {"jobId": job_id, "orderId": order_id, "account": account}
        question = {name: value for name, value in wanted.items() if value is not None}
        answer: dict[str, Any] = json.loads(self._call("cancelq_status", json.dumps(question)))
        return answer

    def ping(self) -> None:
        with self._mapped_errors():
            self._redis.ping()

    def configure(self, dedupe_life: timedelta) -> None:
        """Tell the ledger what it cannot know by itself."""
        with self._mapped_errors():
            self._redis.hset(
                meta_key(self.name), "dedupe_life_ms", str(dedupe_life // timedelta(milliseconds=1))
            )

    def sign_on(self, post: Post, *, at_work: bool = False) -> None:
        """Say for whom a worker works; ConfigError if the ledger belongs to another exchange or kind of work."""
        life = span_micros(SIGNED_ON)
        owner, mixed = self._call(
            *("cancelq_sign_on", post.exchange, post.kind, life, int(post.alerts), post.worker, int(at_work))
        )
        self._require(owner, post.exchange)
        if mixed:
            there, here = ("real", "a dry run") if post.dry_run else ("dry-run", "real work")
            raise ConfigError(
                f"CANCELQ_DRY_RUN: {there} workers are at work on the ledger {self.name}, and {here} beside them "
                "would end each other's cancels; stop them, or name another CANCELQ_LEDGER"
            )

    def require_owner(self, exchange: str) -> None:
        """Raise ConfigError if the ledger belongs to another exchange; stamps nothing."""
        owner = self.survey().exchange
        if owner is not None:
            self._require(owner, exchange)

    def _require(self, owner: str, exchange: str) -> None:
        if owner != exchange:
            raise ConfigError(
                f"CANCELQ_LEDGER: the ledger {self.name} belongs to the exchange {owner}, not to {exchange}; "
                "name another ledger, or set CANCELQ_EXCHANGE_URL right"
            )

    def sign_off(self, post: Post) -> None:
        self._call("cancelq_sign_off", post.kind, post.worker)

    def prepare(self, dedupe_life: timedelta) -> None:
        """All that a worker brings to a Redis, which may be new or restarted; cheap to repeat."""
        self.load_functions()
        self.configure(dedupe_life)
        self.stamp_durability()

    def load_functions(self) -> int:
        """Bring the server's functions up to this program's; gives the version in force."""
        with self._mapped_errors():
            return library.load(self._redis)

    def stamp_durability(self) -> None:
        """Record that this very server process fsyncs before it replies; producers then may say so."""
        with self._mapped_errors():
            try:
                settings = self._redis.config_get("appendonly", "appendfsync", "no-appendfsync-on-rewrite")
            except ResponseError:
                return  # CONFIG is forbidden: nothing is proved
            always = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
            if settings == always:
                run_id = self._redis.info("server")["run_id"]
                self._redis.hset(meta_key(self.name), "fsync_seen", f"{run_id} always")
            else:
                self._redis.hdel(meta_key(self.name), "fsync_seen")

    def _call(self, function: str, *arguments: str | int) -> Any:
        with self._mapped_errors():
            return self._redis.fcall(function, 1, self._prefix, *arguments)

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except RedisError as error:
            reason = (
                "its functions are not loaded; `cancelq migrate` loads them"
                if lacks_functions(error)
                else error
            )
            raise LedgerUnavailable(f"Redis at {self._address}: {reason}") from error
