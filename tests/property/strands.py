"""Threads of a worker that run one at a time and stop before every effect, until the machine lets them go on.

What stands still is frozen; what is killed there has died there. Nothing else runs meanwhile, so a run can be repeated.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

# The machine's own bound: a strand that neither stops nor ends by then waits for something that nobody gives.
PATIENCE = 30.0


class Luck(StrEnum):
    """What a call to the ledger, the audit or a read meets."""

    GOOD = "good"
    NOTHING_DONE = "nothing done"
    ANSWER_LOST = "done, but the answer is lost"
    LATE_VIEW = "a view of half a second ago"
    OLD_VIEW = "a view of almost two seconds ago"


class Killed(BaseException):
    """The strand's process died here; unlike an error, nobody may catch it."""


class Untrue(BaseException):
    """A judgement failed inside a strand, where an Exception would be taken for bad luck and survived."""


@contextmanager
def judging() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise Untrue(f"{type(error).__name__}: {error}") from error


class Strand:
    """One thread of work; `place` says before which effect it stands, None when it is done."""

    def __init__(self, stage: "Stage", owner: str, name: str, work: Callable[[], None]) -> None:
        self.owner = owner
        self.name = name
        self.place: str | None = "start"
        self._stage = stage
        self._work = work
        self._go = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._luck = Luck.GOOD.value
        self._killed = False
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return f"{self.owner} {self.name} at {self.place}"

    def step(self, luck: str = Luck.GOOD) -> None:
        """Let it go on, with this luck, to the next effect; what it raises is raised here."""
        self._luck = luck
        if self._thread.ident is None:
            self._thread.start()
        self._stage.hand_over(self, self._go)
        match self._error:
            case Untrue() as untrue:
                raise AssertionError(str(untrue)) from untrue
            case BaseException() as error:
                raise error

    def kill(self) -> None:
        if self._thread.ident is None:
            self.place = None
        elif self.place is not None:
            self._killed = True
            self._stage.hand_over(self, self._go)
            assert self.place is None, f"{self} survived its death"

    def stand(self, place: str) -> str:
        """Stop before an effect; gives the luck that it will meet."""
        if not self._killed:
            self.place = place
            self._stage.back.release()
            self._go.acquire()
        if self._killed:
            raise Killed
        return self._luck

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._work()
        except Killed:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self.place = None
            self._stage.back.release()


class Stage:
    """All strands, in order of their beginning; at most one of them runs."""

    def __init__(self) -> None:
        self.back = threading.Semaphore(0)
        self._strands: list[Strand] = []
        self._running: Strand | None = None

    def begin(self, owner: str, name: str, work: Callable[[], None]) -> None:
        self._strands.append(Strand(self, owner, name, work))

    def strands(self, owner: str | None = None, name: str = "") -> list[Strand]:
        """Those that are not done yet."""
        self._strands = [strand for strand in self._strands if strand.place is not None]
        return [s for s in self._strands if owner in {None, s.owner} and s.name.startswith(name)]

    @property
    def running(self) -> Strand:
        assert self._running is not None, "an effect was reached outside of any strand"
        return self._running

    def stand(self, place: str) -> str:
        return self.running.stand(place)

    def kill(self, owner: str | None = None) -> None:
        for strand in self.strands(owner):
            strand.kill()

    def hand_over(self, strand: Strand, go: threading.Semaphore) -> None:
        """Run one strand until it stands again."""
        self._running = strand
        go.release()
        stood = self.back.acquire(timeout=PATIENCE)
        self._running = None
        assert stood, f"{strand} hangs"
