"""A mass cancel: reads the list, has every open order canceled by a job of its own, and looks again until none is left.

Its wish is durable before its first job, each order before its own job; whoever starts it again goes on with it. The
jobs are jobs like any other: workers bring them to their ends whether anybody looks or not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Event
from typing import Any, Protocol

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed
from uuid_utils import uuid7

from worker.clock import iso, monotonic, utc_now
from worker.errors import LedgerUnavailable, NotRead, Refused
from worker.exchange.listing import Listed
from worker.gaps import Gap, reached
from worker.job import OrderId, State
from worker.ledger.mass import MassWish, MassWishes
from worker.ledger.producer import CancelQueue
from worker.ledger.receipt import Fate, Receipt, write_letter
from worker.work.listing import Lists, Look
from worker.work.mass_course import CONCLUDED, Asker, Bounds, Course, Result, Scope
from worker.work.mass_order import First, MassOrder, Try

# Between two looks while cancels are under way: what appears meanwhile waits no longer than that.
LOOK_EVERY = timedelta(seconds=2)
# Between two looks when nothing is under way: the list may be late.
LOOK_AGAIN = timedelta(milliseconds=500)
# An order that was placed just before may be missing from a list for so long.
LIST_LAG = timedelta(seconds=2)
POLL = timedelta(milliseconds=100)
# Questions of one round trip.
ASKED_AT_ONCE = 50
# A Redis that restarts is back within seconds; jobs and wish are durable, so whoever gives up loses nothing.
PATIENTLY = Retrying(
    retry=retry_if_exception_type(LedgerUnavailable),
    stop=stop_after_delay(20),
    wait=wait_fixed(0.2),
    reraise=True,
)


class Record(Protocol):
    """What the audit knows; empty answers while it cannot be asked."""

    def status(self, job_id: str) -> Mapping[str, Any]:
        """A job's status answer."""
        ...

    def known_open(self, account: str) -> Mapping[OrderId, str]:
        """The account's orders that its cancels of this session have left open, and how that is known."""
        ...


class MassCancel:
    """One run of one mass cancel. `record` is asked for what the ledger has forgotten; `tell` hears the progress.

    `standing` says what keeps cancels from being sent; each of it is told once.
    """

    def __init__(
        self,
        scope: Scope,
        lists: Lists,
        queue: CancelQueue,
        *,
        record: Record,
        standing: Callable[[], Sequence[str]],
        tell: Callable[[str], None],
    ) -> None:
        self._scope = scope
        self._lists = lists
        self._queue = queue
        self._record = record
        self._standing = standing
        self._said: set[str] = set()
        self._tell = tell
        self._orders: dict[OrderId, MassOrder] = {}
        self._late: dict[OrderId, Listed] = {}  # seen when no round was left
        self._look: Look | None = None
        self._look_at: datetime | None = None
        self._quiet_since: timedelta | None = (
            None  # (monotonic) the first look of those that showed nothing new
        )
        self._rounds = self._looks = 0
        self._notes: list[str] = []
        self._pause = Event()

    def preview(self, asker: Asker) -> Course:
        """What would be canceled now; nothing is asked for and nothing written."""
        began_at = utc_now()
        self._read()
        self._orders = self._fresh(self._unknown())
        return self._course(Result.DRY_RUN, asker, began_at)

    def run(self, wishes: MassWishes, asker: Asker, bounds: Bounds) -> Course:
        """Until none is left, each leftover is explained, or a bound is reached. LedgerUnavailable: Redis stayed away."""
        began_at, give_up = utc_now(), monotonic() + bounds.span
        new_id = str(uuid7())
        wish = PATIENTLY(wishes.begin, new_id, by=asker.by, told=self._told(new_id, asker))
        reached(Gap.MASS_BEGUN)
        self._recall(wish, asker)
        result = self._until_done(wishes, wish, asker, bounds, give_up)
        self._learn(all_of_them=True)
        course = self._course(result, replace(asker, by=wish.by), began_at)
        if result in CONCLUDED:
            told = f"cancel-all {wish.id}: {result}, {len(course.orders)} orders, {len(course.left)} left"
            PATIENTLY(wishes.end, wish.id, by=asker.by, told=told)
            reached(Gap.MASS_ENDED)
        return replace(course, id=wish.id, asked_at=wish.asked_at, resumed=wish.id != new_id)

    def _until_done(
        self, wishes: MassWishes, wish: MassWish, asker: Asker, bounds: Bounds, give_up: timedelta
    ) -> Result:
        try:
            while True:
                self._read()
                self._take_up(wishes, wish, asker, bounds)
                result = self._result(give_up)
                if result is not None:
                    return result
                self._follow(give_up)
        except NotRead as error:
            self._notes.append(str(error))
            return Result.NOT_READ

    # ------------------------------------------------------------------------------------------ one look

    def _read(self) -> None:
        """Look, and let every known order have what the list says of it."""
        self._look, self._look_at = self._lists.orders(self._scope.at_exchange), utc_now()
        self._looks += 1
        listed = self._look.list.orders
        for order in self._orders.values():
            order.looked, order.listed = True, listed.get(order.order_id)
            order.notice(self._look.asked_at)
        self._late = {}

    def _unknown(self) -> list[Listed]:
        """Open orders of the scope that were not seen before."""
        listed = self._look.list.orders.values() if self._look is not None else ()
        return [
            order
            for order in listed
            if order.is_open and self._scope.has(order) and order.order_id not in self._orders
        ]

    def _take_up(self, wishes: MassWishes, wish: MassWish, asker: Asker, bounds: Bounds) -> None:
        """A job for each order that wants one; of new orders the ledger knows before anything is asked for them."""
        asked_at = self._look.asked_at if self._look is not None else monotonic()
        found = self._unknown()
        self._quiet_since = None if found else self._quiet_since or asked_at
        if found and self._rounds >= bounds.rounds:
            self._late, found = {order.order_id: order for order in found}, []
        fresh = self._fresh(found)
        if fresh:
            self._rounds += 1
            self._tell(f"round {self._rounds}: {len(fresh)} open orders not seen before")
            kept = {number: order.first.to_json() for number, order in fresh.items()}
            if not PATIENTLY(wishes.note, wish.id, kept):
                raise Refused(f"cancel-all {wish.id} was brought to its end by somebody else meanwhile")
            reached(Gap.MASS_NOTED)
            self._orders |= fresh
        wanting = [order for order in self._orders.values() if order.wants_job(asked_at)]
        if wanting:
            self._ask(wanting, wish, asker)

    def _fresh(self, found: Sequence[Listed]) -> dict[OrderId, MassOrder]:
        """Of the first look also what the list lacks and the audit takes to be open: a cancel proves what became of it."""
        fresh = {
            order.order_id: MassOrder(
                order_id=order.order_id, first=self._first(order), looked=True, listed=order
            )
            for order in found
        }
        if self._looks > 1 or self._look is None or self._scope.contract is not None:
            return fresh
        for number, known in self._record.known_open(self._scope.account).items():
            if number not in self._orders and number not in self._look.list.orders:
                first = First(
                    at=iso(self._look_at or utc_now()), round=self._rounds + 1, status=f"not listed; {known}"
                )
                fresh[number] = MassOrder(order_id=number, first=first, looked=True)
        return fresh

    def _first(self, order: Listed) -> First:
        return First(
            at=iso(self._look_at or utc_now()),
            round=self._rounds + 1,
            status=order.status,
            contract_id=order.contract_id,
            action=order.action,
            links=order.links,
        )

    def _recall(self, wish: MassWish, asker: Asker) -> None:
        """What an earlier run has seen gets its cancels before anything is read: it may have died in between."""
        for number, text in wish.noted.items():
            self._orders[number] = MassOrder(order_id=number, first=First.from_json(text))
        if wish.noted:
            self._tell(f"going on with cancel-all {wish.id}: {len(wish.noted)} orders are known")
            self._ask([*self._orders.values()], wish, asker)

    # ---------------------------------------------------------------------------------------------- jobs

    def _ask(self, orders: Sequence[MassOrder], wish: MassWish, asker: Asker) -> None:
        """The request ids follow from the mass cancel, the order and the try: asking again doubles nothing."""
        letters = [
            write_letter(
                {
                    "order_id": order.order_id,
                    "account": self._scope.account,
                    "priority": "urgent",
                    "requested_by": wish.by,
                    "request_id": f"cancel-all/{wish.id}/{order.order_id}/{len(order.tries) + 1}",
                    "is_automated": not asker.manual,
                }
            )
            for order in orders
        ]
        receipts = PATIENTLY(lambda: _stored(self._queue.send(letters)))
        reached(Gap.MASS_SENT)
        for order, receipt in zip(orders, receipts, strict=True):
            order.tries.append(
                Try(
                    request_id=receipt.request_id,
                    fate=receipt.status,
                    job_id=receipt.job_id,
                    error=receipt.error,
                )
            )

    def _follow(self, give_up: timedelta) -> None:
        """Wait until all that runs has ended, or it is time to look again."""
        began = self._look.asked_at if self._look is not None else monotonic()
        told: int | None = None
        self._warn()
        while (running := self._learn()) and monotonic() < min(began + LOOK_EVERY, give_up):
            if running != told:
                self._tell(f"{len(self._orders) - running} of {len(self._orders)} cancels have ended")
            told = running
            self._pause.wait(POLL.total_seconds())
        if told is None:  # nothing ran: the list is waited for, not a job
            self._pause.wait(LOOK_AGAIN.total_seconds())

    def _warn(self) -> None:
        news = [said for said in PATIENTLY(self._standing) if said not in self._said]
        self._said.update(news)
        for said in news:
            self._tell(said)

    def _learn(self, *, all_of_them: bool = False) -> int:
        """Ask how running cancels stand, those first that were not asked about for longest; how many still run.

        A few that still run end the round, unless all are wanted: thousands of questions every time would keep the ledger from the answers.
        """
        last = [order.last for order in self._orders.values() if order.last is not None]
        running = sorted((one for one in last if one.is_running), key=lambda one: one.asked_at)
        for start in range(0, len(running), ASKED_AT_ONCE):
            some = running[start : start + ASKED_AT_ONCE]
            self._ask_about(some)
            if not all_of_them and any(one.is_running for one in some):
                break
        return sum(one.is_running for one in running)

    def _ask_about(self, some: Sequence[Try]) -> None:
        answers = PATIENTLY(self._queue.statuses, [str(one.job_id) for one in some])
        for one, answer in zip(some, answers, strict=True):
            one.asked_at = monotonic()
            one.known = answer if answer.get("jobId") is not None else self._record.status(str(one.job_id))
            if one.known.get("state") == State.DONE or one.known.get("jobId") is None:
                one.ended_at = one.asked_at

    # --------------------------------------------------------------------------------------------- result

    def _result(self, give_up: timedelta) -> Result | None:
        """None while there is reason to go on."""
        asked_at = self._look.asked_at if self._look is not None else monotonic()
        orders = self._orders.values()
        running = any(order.is_running for order in orders)
        left = [order for order in orders if order.is_left]
        if not running and not left and not self._late:
            is_sure = self._quiet_since is not None and asked_at - self._quiet_since >= LIST_LAG
            return Result.NONE_LEFT if is_sure or monotonic() >= give_up else None
        if not running and all(order.is_stuck(asked_at) for order in left):
            return Result.KEEPS_PLACING if self._late else Result.LEFT
        return Result.TIME_UP if monotonic() >= give_up else None

    def _told(self, new_id: str, asker: Asker) -> str:
        """What goes on record when it begins."""
        contract = self._scope.contract
        which = f", contract {contract.name or contract.id}" if contract is not None else ""
        why = f": {asker.because}" if asker.because else ""
        return f"cancel-all {new_id}, account {self._scope.account}{which}{why}"

    def _course(self, result: Result, asker: Asker, began_at: datetime) -> Course:
        late = [
            MassOrder(order_id=number, first=self._first(order), looked=True, listed=order)
            for number, order in self._late.items()
        ]
        return Course(
            scope=self._scope,
            result=result,
            began_at=began_at,
            ended_at=utc_now(),
            by=asker.by,
            rounds=self._rounds,
            looks=self._looks,
            last_look_at=self._look_at,
            orders=[*self._orders.values(), *late],
            listed=self._look.list.orders if self._look is not None else {},
            notes=[*self._notes, *self._remarks()],
        )

    def _remarks(self) -> list[str]:
        """What the last list had that was left alone, or lacked."""
        if self._look is None:
            return []
        found = self._look.list
        notes = (
            [f"the list has {found.foreign} orders of other accounts: left alone"] if found.foreign else []
        )
        nameless = [order for order in found.orders.values() if order.is_open and order.contract_id is None]
        if self._scope.contract is not None and nameless:
            notes.append(f"{len(nameless)} open orders name no contract: left alone")
        if not found.orders:
            notes.append("the exchange's list was empty")
        missing = sum(order.listed is None for order in self._orders.values())
        return (
            [*notes, f"{missing} orders that were seen before are not in the last list"] if missing else notes
        )


def _stored(receipts: list[Receipt]) -> list[Receipt]:
    """A request whose fate is not known is asked again under its id."""
    lost = next((one for one in receipts if one.status in {Fate.NOT_STORED, Fate.UNKNOWN}), None)
    if lost is not None:
        raise LedgerUnavailable(str(lost.error))
    return receipts
