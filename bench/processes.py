"""One process with its children, as a group: started, frozen, timed and ended. None outlives this process."""

import os
import select
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

STOP_BOUND = 10.0
PROC = Path("/proc")


class BenchError(Exception):
    """A part did not do what the measurement needs."""


class Group:
    """`python -m MODULE …` in a process group of its own; the end of its stdin is its end."""

    def __init__(
        self,
        module: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        python: str = sys.executable,
        answers: bool = False,
    ) -> None:
        """`answers`: its stdout is not for the log, but for `ask`."""
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [python, "-m", *module],
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if answers else out,
                stderr=out,
                # Not a session: the kernel then wakes a frozen group when we die, and it sees its stdin's end.
                process_group=0,
            )
        self._log = log

    def say(self, line: str) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def ask(self, line: str, *, bound: float) -> str:
        """Say a line and wait for the line that answers it."""
        out = self._process.stdout
        assert out is not None
        self.say(line)
        answer = out.readline() if select.select([out], [], [], bound)[0] else b""
        if not answer:
            self.check()
            raise BenchError(f"{self._log.stem} did not answer {line!r} within {bound:g} s")
        return answer.decode().strip()

    def freeze(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def check(self) -> None:
        """Raise, with its last words, if it is gone."""
        if self._process.poll() is not None:
            words = self._log.read_text(errors="replace")[-2000:]
            raise BenchError(f"{self._log.stem} ended with {self._process.returncode}:\n{words}")

    def cpu_seconds(self) -> float | None:
        """User and system time of the whole group so far; None where there is no /proc."""
        if not PROC.is_dir():
            return None
        return sum(_cpu_of_member(path, self._process.pid) for path in PROC.glob("[0-9]*/stat"))

    def resident_bytes(self) -> int | None:
        """What the whole group has in memory; None where there is no /proc."""
        if not PROC.is_dir():
            return None
        pages = sum(_pages_of_member(path, self._process.pid) for path in PROC.glob("[0-9]*/stat"))
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        """Ask, wait, insist."""
        with suppress(ProcessLookupError):
            self.thaw()
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_BOUND)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Team:
    """Several groups that work together, as one."""

    def __init__(self, *groups: Group) -> None:
        self._groups = groups

    def freeze(self) -> None:
        for group in self._groups:
            group.freeze()

    def thaw(self) -> None:
        for group in self._groups:
            group.thaw()

    def check(self) -> None:
        for group in self._groups:
            group.check()

    def cpu_seconds(self) -> float | None:
        spent = [group.cpu_seconds() for group in self._groups]
        return sum(seconds or 0.0 for seconds in spent) if None not in spent else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for group in self._groups:
            group.stop()


Workers = Group | Team


def cpu_seconds_by_name() -> dict[str, float] | None:
    """User and system time so far of this process and of all that came from it, the ended ones included; by program."""
    if not PROC.is_dir():
        return None
    stats = {int(path.parent.name): path for path in PROC.glob("[0-9]*/stat")}
    fields = {pid: found for pid, path in stats.items() if (found := _fields(path))}
    family = {os.getpid()}
    while more := {pid for pid, of_it in fields.items() if int(of_it[1]) in family} - family:
        family |= more
    spent: defaultdict[str, float] = defaultdict(float)
    for pid in family & fields.keys():
        # Fields 14 to 17: its own time, and that of children that it has seen end.
        spent[_name(stats[pid])] += _seconds(fields[pid][11:15])
    return dict(spent)


def _name(stat: Path) -> str:
    """Field 2 of proc(5): the program's, without its path."""
    try:
        return stat.read_text().partition("(")[2].rpartition(")")[0]
    except OSError:
        return "gone"


def _cpu_of_member(stat: Path, group: int) -> float:
    """Fields 14 and 15 of proc(5); field 5 is the group."""
    fields = _fields(stat)
    return _seconds(fields[11:13]) if fields and int(fields[2]) == group else 0.0


def _pages_of_member(stat: Path, group: int) -> int:
    """Field 24 of proc(5)."""
    fields = _fields(stat)
    return int(fields[21]) if fields and int(fields[2]) == group else 0


def _fields(stat: Path) -> list[str]:
    """Those of proc(5) after the name, which may hold blanks; none of a process that is gone in the meantime."""
    try:
        return stat.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _seconds(ticks: Sequence[str]) -> float:
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
