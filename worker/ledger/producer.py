"""The strategy's side of the ledger: put a cancel request in, ask what became of it. Repeats nothing by itself."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, islice
from types import TracebackType
from typing import Any, Self, Unpack

from redis.exceptions import RedisError

from worker.clock import monotonic
from worker.errors import ConfigError, LedgerUnavailable, MaybeStored, NotStored
from worker.gaps import Gap, reached
from worker.ledger.bounded import bounded
from worker.ledger.connection import address, is_error_reply, lacks_functions, open_pool
from worker.ledger.encoding import meta_key, prefix
from worker.ledger.receipt import Fate, Letter, Receipt, Wish, new_request_id, write_letter
from worker.ledger.relay import Relay, SentOn
from worker.ledger.spool import Spool

# One cancel, connecting included, or one chunk of many: a strategy must not hang on a frozen Redis.
BOUND = timedelta(seconds=1)
CHUNK = 500
# So many are written before they leave: the server works on them while the next are being written.
PIECE = 50
# Of what is left of the bound: a replica that is slow to answer makes a receipt say less, not come late.
REPLICA_SHARE = 0.25
COUNTS_REPLICAS = '"replicas":'
# The server adds this where an error arose while the function ran, so that a part may be written.
RAISED_INSIDE = "script: "

Command = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no answer, and whether the call may have been executed all the same."""

    maybe: bool
    reason: str


class CancelQueue:
    """Cancel requests into one ledger (CANCELQ_LEDGER when not named); thread-safe.

    `bound` limits each call; the look-up of the server's name, before it, has the system's own bound.
    With a `spool`, a file of this host, a request that could not be stored waits there (status `spooled`) and is sent
    on in order, before newer ones, by this object or the next one with the same file.
    """

    def __init__(
        self,
        redis_url: str,
        ledger: str | None = None,
        *,
        bound: timedelta = BOUND,
        spool: str | os.PathLike[str] | None = None,
    ) -> None:
        self._address = address(redis_url)
        name = ledger or os.environ.get("CANCELQ_LEDGER") or "cancelq"
        self._prefix = prefix(name)
        self._meta = meta_key(name)
        self._bound = bound
        self._pool = open_pool(redis_url, connect_timeout=bound, timeout=bound)
        self._call = bounded(self._pool)
        self._relay = None if spool is None else Relay(Spool(spool, name), self._deliver, bound)

    def cancel(self, **wish: Unpack[Wish]) -> Receipt:
        """Store one request. Raises NotStored or MaybeStored, unless it waits in the spool; repeating with its id is safe.

        What cannot be written as a request is refused before anything is sent, as the ledger would refuse it.
        """
        letter = _letter(wish)
        if letter.fault is not None:
            return letter.returned(Fate.REFUSED, letter.fault)
        receipt = self._take([letter])[0]
        if receipt.status is Fate.NOT_STORED:
            raise NotStored(str(receipt.error), letter.request_id)
        if receipt.status is Fate.UNKNOWN:
            raise MaybeStored(str(receipt.error), letter.request_id)
        return receipt

    def cancel_many(self, wishes: Iterable[Mapping[str, object]]) -> list[Receipt]:
        """Store many, pipelined: one receipt each, in order; never raises for a single one."""
        return [receipt for chunk in _chunks(wishes) for receipt in self._take(map(_letter, chunk))]

    def send(self, letters: Iterable[Letter]) -> list[Receipt]:
        """Deliver written requests in chunks; the bound holds per chunk."""
        return [receipt for chunk in _chunks(letters) for receipt in self._take(chunk)]

    def send_on(self) -> SentOn:
        """Send what waits in the spool now, however long it takes while Redis answers."""
        if self._relay is None:
            raise ConfigError("spool: there is none to send on; CancelQueue(…, spool=FILE) names it")
        return self._relay.send_on()

    def status(
        self, *, job_id: str | None = None, order_id: int | str | None = None, account: str | None = None
    ) -> dict[str, Any]:
        """What the ledger knows of a job, or of the newest job of an order: the contract's status answer."""
        wanted = {"jobId": job_id, "orderId": order_id, "account": account}
        question = json.dumps({name: value for name, value in wanted.items() if value is not None})
        (answer,), _ = self._ask(iter([self._call_of("cancelq_status", question)]), monotonic() + self._bound)
        if isinstance(answer, Trouble):
            raise LedgerUnavailable(answer.reason)
        known: dict[str, Any] = json.loads(answer)
        return known

    def statuses(self, job_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The status answers of many jobs, pipelined, in order; the bound holds per chunk."""
        found: list[dict[str, Any]] = []
        for chunk in _chunks(job_ids):
            questions = (json.dumps({"jobId": job_id}) for job_id in chunk)
            calls = (self._call_of("cancelq_status", question) for question in questions)
            answers, _ = self._ask(calls, monotonic() + self._bound)
            for answer in answers:
                if isinstance(answer, Trouble):
                    raise LedgerUnavailable(answer.reason)
                found.append(json.loads(answer))
        return found

    def exchange(self) -> str | None:
        """The exchange that the ledger belongs to; None while it is nobody's, or where that cannot be asked."""
        (answer,), _ = self._ask(iter([("HGET", self._meta, "exchange")]), monotonic() + self._bound)
        return None if isinstance(answer, Trouble) else answer or None

    def close(self) -> None:
        if self._relay is not None:
            self._relay.close()
        self._pool.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, letters: Iterable[Letter]) -> list[Receipt]:
        give_up = monotonic() + self._bound
        if self._relay is None:
            return self._deliver(letters, give_up)
        return self._relay.send(list(letters), give_up)

    def _deliver(self, letters: Iterable[Letter], give_up: timedelta) -> list[Receipt]:
        """One pipelined round trip for all letters that can go; a second one where there are replicas to ask."""
        written: list[Letter] = []

        def calls() -> Iterator[Command]:
            for letter in letters:
                written.append(letter)
                if letter.fault is None:
                    yield self._call_of("cancelq_enqueue", letter.text)

        found, replicated = self._ask(calls(), give_up)
        answers = iter(found)
        return [
            _receipt(letter, next(answers), replicated=replicated)
            if letter.fault is None
            else letter.returned(Fate.REFUSED, letter.fault)
            for letter in written
        ]

    def _call_of(self, function: str, text: str) -> Command:
        return ("FCALL", function, 1, self._prefix, text)

    def _ask(self, calls: Iterator[Command], give_up: timedelta) -> tuple[list[str | Trouble], bool]:
        """Send them all; of each the answer or the trouble, and whether a replica has it all."""
        first = list(islice(calls, PIECE))
        if not first:
            return [], False
        calls = chain(first, calls)
        self._call.give_up = give_up
        try:
            connection: Any = self._pool.get_connection()
        except RedisError as error:
            return [self._trouble(error, maybe=False) for _ in calls], False
        try:
            answers = self._exchange(connection, calls)
            if any(isinstance(answer, Trouble) for answer in answers):
                connection.disconnect()  # after a failover the address may lead to another server
            return answers, self._is_replicated(connection, answers)
        except BaseException:
            connection.disconnect()  # answers that were not read must not be taken for the next call's
            raise
        finally:
            self._pool.release(connection)

    def _exchange(self, connection: Any, calls: Iterator[Command]) -> list[str | Trouble]:
        answers: list[str | Trouble] = []
        sent = 0
        while piece := list(islice(calls, PIECE)):
            try:
                connection.send_packed_command(connection.pack_commands(piece), check_health=False)
            except RedisError as error:
                # A single command that was cut off in the middle cannot run; of several the first ones may.
                answers += [self._trouble(error, maybe=True)] * sent
                answers += [self._trouble(error, maybe=len(piece) > 1)] * len(piece)
                return answers + [self._trouble(error, maybe=False) for _ in calls]
            sent += len(piece)
        reached(Gap.ENQUEUE_SENT)
        for _ in range(sent):
            try:
                answers.append(self._read(connection))
            except RedisError as error:
                connection.disconnect()
                return answers + [self._trouble(error, maybe=True)] * (sent - len(answers))
        return answers

    def _is_replicated(self, connection: Any, answers: Sequence[str | Trouble]) -> bool:
        """Whether a replica, where there are any, has taken all that this connection wrote until now.

        WAIT, on every version: WAITAOF tells nothing more of this server, whose replies come after their fsync, and
        where they do not it was seen to answer before one.
        """
        if not any(isinstance(answer, str) and COUNTS_REPLICAS in answer for answer in answers):
            return False
        try:
            patience = self._call.left() * REPLICA_SHARE
            connection.send_command("WAIT", 1, max(1, int(patience * 1000)))
            return int(connection.read_response(timeout=2 * patience + 0.001)) > 0
        except RedisError as error:
            if not is_error_reply(error):  # else it has answered: a caller may lack the right to ask
                connection.disconnect()
            return False

    def _read(self, connection: Any) -> str | Trouble:
        try:
            answer = connection.read_response(disconnect_on_error=False)
        except RedisError as error:
            if not is_error_reply(error):
                raise
            return self._trouble(error, maybe=RAISED_INSIDE in str(error))
        return "" if answer is None else str(answer)

    def _trouble(self, error: RedisError, *, maybe: bool) -> Trouble:
        if lacks_functions(error):
            reason = "its functions are not loaded; `cancelq worker` or `cancelq migrate` loads them"
            return Trouble(maybe=False, reason=f"Redis at {self._address}: {reason}")
        return Trouble(maybe, f"Redis at {self._address}: {error}")


def _chunks(many: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(many)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def _letter(wish: object) -> Letter:
    try:
        if isinstance(wish, Mapping):
            return write_letter(wish)
        fault = f"a request must be a mapping of fields, got {type(wish).__name__}"
    except Exception as error:  # noqa: BLE001 - a caller's own classes may raise anything
        fault = f"a request that cannot be read: {type(error).__name__}"
    return Letter(new_request_id(), fault=fault)


def _receipt(letter: Letter, answer: str | Trouble, *, replicated: bool) -> Receipt:
    if isinstance(answer, Trouble):
        return letter.returned(Fate.UNKNOWN if answer.maybe else Fate.NOT_STORED, answer.reason)
    return Receipt.from_reply(answer, letter.request_id, replicated=replicated)
