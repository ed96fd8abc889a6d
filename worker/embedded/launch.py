"""Starts a server that cannot outlive this process, and ends it. Knows nothing of what the server is for."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import timedelta

from worker.errors import ConfigError

STOP_BOUND = timedelta(seconds=5)

# Runs in the child, before the server replaces it: the kernel kills the server when its parent dies, and
# a parent that died before prctl is noticed by the changed parent id. PR_SET_PDEATHSIG = 1.
LAUNCH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Keeper:
    """The thread that forks the server and outlives it: the kernel ties a child to the forking *thread*."""

    def __init__(self, command: Sequence[str], inherited: int) -> None:
        """Start `command`; it keeps the file descriptor `inherited` open for as long as it lives."""
        self._started = threading.Event()
        self._failure: OSError | None = None
        self._process: subprocess.Popen[bytes]
        self._thread = threading.Thread(
            target=self._keep, args=(command, inherited), name="embedded-server", daemon=True
        )
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise ConfigError(f"cannot run {command[0]}: {self._failure}") from self._failure

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to end, then make it; a frozen server is continued, or it would never see the request."""
        for name in (signal.SIGCONT, signal.SIGTERM):
            self._process.send_signal(name)
        self._thread.join(STOP_BOUND.total_seconds())
        if self._thread.is_alive():
            self._process.kill()
        self._thread.join()

    def _keep(self, command: Sequence[str], inherited: int) -> None:
        try:
            # A session of its own: Ctrl-C in the terminal stops the worker first, and the worker stops the server.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", LAUNCH, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(inherited,),
                start_new_session=True,
            )
        except OSError as error:
            self._failure = error
            return
        finally:
            self._started.set()
        self._process.wait()
