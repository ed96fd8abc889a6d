"""The worker's side of the ledger: claim, renew, settle, close, finish, sweep. Decides nothing.

Each call is one Redis function, bounded in time and never repeated by itself.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from worker.clock import from_micros, monotonic, span_micros, to_micros
from worker.errors import ConfigError, LedgerUnavailable
from worker.job import Action, ClaimId, Job, JobId, Joiner, Outcome, Steering
from worker.ledger import library
from worker.ledger.connection import address, lacks_functions, open_client
from worker.ledger.encoding import (
    Gauges,
    Survey,
    action_from,
    compact,
    fields_json,
    gauges_from,
    instant,
    job_from,
    joiner_from,
    moment,
    pairs,
    prefix,
    storable,
    survey_from,
)
from worker.ledger.mass import MassWishes
from worker.ledger.receipt import Letter, Receipt
from worker.ledger.restored import Restored, restored_from
from worker.ledger.shelf import Shelf
from worker.ledger.words import (
    Call,
    Claimed,
    Closing,
    Granted,
    Rules,
    Settlement,
    Swept,
    limits_text,
    lockouts_from,
    standings_from,
)


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
        """Take due jobs: lapsed ones first, then urgent, due and confirmations.

        `worker`: its name and the chain of its rows; a job that it loses says whose rows there may be (`lost_by`).
        """
        asked_at = monotonic()
        now, due_left, next_due, held, for_budget, standings, taken = self._call(
            "cancelq_claim", claim, storable(worker), span_micros(lease), jobs, confirms
        )
        return Claimed(
            now=from_micros(now),
            asked_at=asked_at,
            jobs=tuple(job_from(pairs(flat)) for flat in taken),
            due_left=bool(due_left),
            next_due=moment(next_due),
            held=bool(held),
            for_budget=bool(for_budget),
            logins=standings_from(standings),
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
                "posts": s.posts,
                **({} if s.activation is None else {"activation": s.activation}),
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
                "posts": c.posts,
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
        ran, now, held, drained, lapsed, due, oldest, next_due, bells, uncompared, lockouts, unknown = (
            self._call("cancelq_sweep", span_micros(interval))
        )
        return Swept(
            ran=bool(ran),
            now=from_micros(now),
            held=bool(held),
            drained=bool(drained),
            lapsed=lapsed,
            due=due,
            oldest_due=moment(oldest),
            next_due=moment(next_due),
            bells=bells,
            uncompared=bool(uncompared),
            lockouts=lockouts_from(lockouts),
            oldest_unknown=moment(unknown),
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

    def actions_recorded(self, ids: Sequence[str]) -> int:
        """The audit has these actions; how many of them the ledger still knew."""
        known: int = self._call("cancelq_actions_recorded", *ids)
        return known

    def steer_again(self, at: datetime, paused_at: datetime | None, *, draining: bool) -> bool:
        """How the audit says that the ledger stands since `at`; True where it had forgotten that."""
        paused = "" if paused_at is None else to_micros(paused_at)
        return bool(self._call("cancelq_steer_again", to_micros(at), paused, "1" if draining else ""))

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

    def registered(self, seen: Sequence[tuple[JobId, int]], *, shared: bool) -> list[JobId]:
        """The audit knows these jobs with so many joiners; those that the ledger does not know any more.

        `shared`: in the database, and not only in this host's journal, so that no worker need bring their rows again.
        """
        pairs_seen = (text for pair in seen for text in pair)
        gone = self._call("cancelq_registered", *pairs_seen, *(["shared"] if shared else []))
        return [JobId(name) for name in gone]

    def witness(self, writer: str, seq: int, digest: str, mark: str = "") -> None:
        """Keep the newest row of a chain, and in which journal the chain goes on, if in one."""
        self._call("cancelq_witness", writer, seq, digest, mark)

    def heads(self) -> dict[str, tuple[int, str]]:
        """The newest audit row of each writer that the ledger was told of."""
        told = {writer: text.split(" ") for writer, text in pairs(self._call("cancelq_heads")).items()}
        return {writer: (int(words[0]), words[1]) for writer, words in told.items()}

    def marks(self) -> dict[str, str]:
        """The journal's mark of each writer whose newest rows may be in one."""
        told = {writer: text.split(" ", 2) for writer, text in pairs(self._call("cancelq_heads")).items()}
        return {writer: words[2] for writer, words in told.items() if len(words) > 2}

    def shelf(self, login: str) -> Shelf:
        """Where all workers find this login's token."""
        return Shelf(self._call, login)

    def mass(self, scope: str) -> MassWishes:
        """The mass cancel of this scope."""
        return MassWishes(self._call, scope)

    # --- after a loss of data

    def compare(self, who: str, life: timedelta) -> bool:
        """Begin to compare this server with the audit; False if that is done, or another worker is at it."""
        return bool(self._call("cancelq_compare", who, span_micros(life)))

    def restore(self, who: str, life: timedelta, jobs: Sequence[Restored]) -> int | None:
        """Put back what the ledger has lost of these open jobs; how many, or None if it is another server by now.

        `who` compares; "" for jobs of which the audit heard later, at any time.
        """
        items = compact([restored_from(job) for job in jobs])
        count: int = self._call("cancelq_restore", who, span_micros(life), items)
        return count if count >= 0 else None

    def compared(self, who: str) -> bool:
        """Everything was compared: POSTs go on; False if it is another server by now."""
        return bool(self._call("cancelq_compared", who))

    def gauges(self) -> Gauges:
        """One look at all of it, for those who watch."""
        return gauges_from(self._call("cancelq_gauges"))

    # --- service

    def hold(self, login: str, span: timedelta, *, lockout: bool) -> datetime:
        """Let a login make no call for a while; gives when it may again."""
        return instant(self._call("cancelq_hold", storable(login), span_micros(span), int(lockout)))

    def grant(self, login: str, kind: Call) -> Granted:
        """Count a call right before it is made; a read may be refused, a token's call never is."""
        now, granted, lockouts = self._call("cancelq_grant", storable(login), kind)
        return Granted(now=from_micros(now), granted=bool(granted), lockouts=lockouts_from(lockouts))

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

    def configure(self, rules: Rules) -> None:
        """Tell the ledger what it cannot know by itself."""
        self._call("cancelq_configure", rules.dedupe_life // timedelta(milliseconds=1), "")
        told = rules.logins is not None
        whose = (storable(text) for pair in (rules.logins or {}).items() for text in pair)
        self._call("cancelq_limit", limits_text(rules.limits), int(told), *whose)

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

    def prepare(self, rules: Rules) -> None:
        """All that a worker brings to a Redis, which may be new or restarted; cheap to repeat."""
        self.load_functions()
        self.configure(rules)
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
        self._call("cancelq_configure", "", int(settings == always))

    def _call(self, function: str, *arguments: str | int) -> Any:
        with self._mapped_errors():
            return self._redis.fcall(function, 1, self._prefix, *arguments)

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except RedisError as error:
            if isinstance(
                error, ReadOnlyError
            ):  # after a failover: the address may lead to another server by now
                self._redis.connection_pool.disconnect(inuse_connections=False)
            reason = (
                "its functions are not loaded; `cancelq migrate` loads them"
                if lacks_functions(error)
                else error
            )
            raise LedgerUnavailable(f"Redis at {self._address}: {reason}") from error
