"""One process with its children, as a group: started, frozen, timed and ended. None outlives this process."""

import os
import signal
import subprocess
import sys
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

    def __init__(self, module: Sequence[str], *, environment: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *module],
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                # Not a session: the kernel then wakes a frozen group when we die, and it sees its stdin's end.
                process_group=0,
            )
        self._log = log

    def say(self, line: str) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

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
        if self._process.stdin is not None:
            self._process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _cpu_of_member(stat: Path, group: int) -> float:
    """Fields 14 and 15 of proc(5), counted after the name, which may hold blanks; field 5 is the group."""
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0  # gone in the meantime
    if int(fields[2]) != group:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
