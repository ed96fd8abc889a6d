"""Requests with a spool behind them: what waits goes first, under its own ids; what cannot be stored now waits."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Event, Lock, Thread

from worker.clock import monotonic, utc_now
from worker.errors import SpoolUnusable
from worker.gaps import Gap, reached
from worker.ledger.receipt import Fate, Letter, Receipt, new_request_id, read_letter
from worker.ledger.spool import Entry, Spool

LOG = logging.getLogger("cancelq.spool")
# Of the call's bound: who is sending on has nearly always done so by then, and the rest is for Redis.
LOCK_SHARE = 0.1
SOONEST, LATEST = timedelta(seconds=0.2), timedelta(seconds=5)
# Bounds without a word from whoever sends on, who speaks before each batch, after which it stands still.
STILL = 3
# The one refusal that passes; the ledger's own words.
DRAINING = "the ledger is being drained"
DAMAGED = "the line is damaged: a crash tore it, or the disk changed it"

LONGEST_LOGGED = 1000
LOST = frozenset({Fate.NOT_STORED, Fate.UNKNOWN})
Deliver = Callable[[Sequence[Letter], timedelta], list[Receipt]]


@dataclass(slots=True)
class SentOn:
    """What left the spool, refused ones included, and why something still waits (None: nothing does)."""

    receipts: list[Receipt] = field(default_factory=list)
    waiting: str | None = None


class Relay:
    """Between a CancelQueue and the ledger; thread-safe. Without new requests a thread sends on what waits."""

    def __init__(self, spool: Spool, deliver: Deliver, bound: timedelta) -> None:
        self._spool = spool
        self._deliver = deliver
        self._bound = bound
        self._closed = Event()
        self._starting = Lock()
        self._thread: Thread | None = None
        # Around which stuck sender was sent, and up to which place in the file.
        self._passed: tuple[int, int | None] = (0, None)
        self._watch()

    def send(self, letters: Sequence[Letter], give_up: timedelta) -> list[Receipt]:
        """New requests, behind those that wait; what could not be stored is kept, if the spool can."""
        now = utc_now()
        waiting = self.send_on(give_up).waiting
        if waiting is not None and self._passed_by(give_up):
            waiting = None
        receipts = self._deliver(letters, give_up) if waiting is None else _untried(letters, waiting)
        try:
            return self._kept(letters, receipts, now)
        except SpoolUnusable as error:
            if waiting is not None:  # no file to wait in: better out of order than not at all
                receipts = self._deliver(letters, give_up)
            return [replace(r, error=f"{r.error}; {error}") if r.status in LOST else r for r in receipts]

    def send_on(self, give_up: timedelta | None = None) -> SentOn:
        """Send what waits, oldest first, until nothing is left, Redis gives no answer, or the time is up."""
        sent = SentOn()
        if self._spool.is_empty():
            return sent
        try:
            with self._spool.sending(self._bound * LOCK_SHARE):
                while sent.waiting is None and not self._spool.is_empty():
                    self._spool.beat()
                    self._send_batch(sent, give_up or monotonic() + self._bound)
        except SpoolUnusable as error:
            sent.waiting = str(error)
        return sent

    def close(self) -> None:
        self._closed.set()
        thread = self._thread
        if thread is not None:
            thread.join(2 * self._bound.total_seconds())

    def _send_batch(self, sent: SentOn, give_up: timedelta) -> None:
        """Nothing is forgotten before its answer, so a crash sends it twice: `duplicate`."""
        if monotonic() >= give_up:
            sent.waiting = "earlier requests still wait in the spool"
            return
        entries = self._spool.read()
        receipts = self._delivered([_letter(entry) for entry in entries], give_up)
        reached(Gap.SPOOL_SENT)
        through = _through(receipts)
        if through < len(receipts):
            sent.waiting = receipts[through].error
        if through > 0:
            self._shelve(entries[:through], receipts[:through])
            self._spool.drop(entries[through - 1].end)
        sent.receipts += receipts[:through]

    def _passed_by(self, give_up: timedelta) -> bool:
        """Where whoever sends on stands still: send what waits, and forget nothing, which stays that one's to do.

        What is sent twice is a `duplicate`, as long as the ledger remembers it. Gives whether all that waits was sent.
        """
        stall = self._stall()
        if stall is None:
            return False
        place = self._passed[1] if self._passed[0] == stall else None
        try:
            while entries := self._spool.read(place, self._bound * LOCK_SHARE):
                through = _through(self._delivered([_letter(entry) for entry in entries], give_up))
                if self._stall() != stall:  # it goes on, and the file may be another by now
                    return False
                if through > 0:
                    if place is None:
                        LOG.warning("spool.passed_by path=%s", self._spool.path)
                    place = entries[through - 1].end
                    self._passed = (stall, place)
                if through < len(entries) or monotonic() >= give_up:
                    return False
        except SpoolUnusable:
            return False
        return True

    def _stall(self) -> int | None:
        return self._spool.stall(STILL * self._bound)

    def _delivered(self, letters: Sequence[Letter], give_up: timedelta) -> list[Receipt]:
        """The oldest goes alone: a server that is still loading its data refuses what comes first and takes what comes later."""
        receipts = self._deliver(letters[:1], give_up)
        if not any(map(_must_wait, receipts)):
            receipts += self._deliver(letters[1:], give_up)
        return receipts

    def _shelve(self, entries: Sequence[Entry], receipts: Sequence[Receipt]) -> None:
        refused = [
            (entry, str(receipt.error))
            for entry, receipt in zip(entries, receipts, strict=True)
            if receipt.status is Fate.REFUSED
        ]
        for entry, why in refused:
            LOG.warning("spool.refused request=%s error=%s", entry.line[:LONGEST_LOGGED], why)
        try:
            self._spool.shelve(refused)
        except SpoolUnusable as error:  # then the log alone keeps them: the others must go on
            LOG.error("spool.not_shelved error=%s", error)  # noqa: TRY400 - the error says it all

    def _kept(self, letters: Sequence[Letter], receipts: list[Receipt], now: datetime) -> list[Receipt]:
        lost = [letter for letter, receipt in zip(letters, receipts, strict=True) if receipt.status in LOST]
        if not lost:
            return receipts
        self._spool.append([letter.pinned(now) for letter in lost])
        reached(Gap.SPOOLED)
        self._watch()
        return [replace(r, status=Fate.SPOOLED) if r.status in LOST else r for r in receipts]

    def _watch(self) -> None:
        """Have a thread send on what waits, as long as something does."""
        with self._starting:
            if self._closed.is_set() or self._spool.is_empty() or self._is_watching():
                return
            self._thread = Thread(target=self._send_on_later, name="cancelq-spool", daemon=True)
            self._thread.start()

    def _is_watching(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _send_on_later(self) -> None:
        pause = SOONEST
        while not self._closed.wait(pause.total_seconds()):
            sent = self.send_on()
            pause = SOONEST if sent.receipts else min(2 * pause, LATEST)
            if sent.waiting is not None:
                self._passed_by(monotonic() + self._bound)
            with self._starting:
                if self._spool.is_empty():
                    self._thread = None
                    return


def _letter(entry: Entry) -> Letter:
    return read_letter(entry.text) if entry.is_whole else Letter(new_request_id(), fault=DAMAGED)


def _untried(letters: Sequence[Letter], waiting: str) -> list[Receipt]:
    return [
        letter.returned(Fate.NOT_STORED, waiting)
        if letter.fault is None
        else letter.returned(Fate.REFUSED, letter.fault)
        for letter in letters
    ]


def _through(receipts: Sequence[Receipt]) -> int:
    """How many of them, from the first on, need not wait."""
    return next((i for i, receipt in enumerate(receipts) if _must_wait(receipt)), len(receipts))


def _must_wait(receipt: Receipt) -> bool:
    """Not stored for certain, or refused for a reason that passes."""
    return receipt.status in LOST or (
        receipt.status is Fate.REFUSED and str(receipt.error).startswith(DRAINING)
    )
