"""Starts one more `cancelq …` process, and ends it. With --die-with-parent it can't outlive this one."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import IO

STOP_BOUND = timedelta(seconds=15)


def start(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    stdout: IO[bytes] | int | None = None,
    stderr: IO[bytes] | int | None = None,
    pass_fds: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    """Start `cancelq ARGUMENTS`. Its stdin is ours to hold open: a child that watches it ends when we do."""
    return subprocess.Popen(
        [sys.executable, "-m", "worker", *arguments],
        env=None if environment is None else dict(environment),
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        start_new_session=True,  # Ctrl-C is ours to hand on, in order
    )


def stop(process: "subprocess.Popen[bytes]", bound: timedelta = STOP_BOUND) -> None:
    """Ask, wait, insist."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(bound.total_seconds())
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
