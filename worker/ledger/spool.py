"""Requests that could not reach the ledger: a file of this host that keeps them until they can. Knows no Redis.

The first line names the ledger and where the requests that still wait begin; then one line a request, `CRC32 JSON`.
Beside it: `.lock`, held by whoever sends on; `.refused`, what the ledger refused or what is damaged, with the reason.
"""

import fcntl
import json
import os
import stat
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from worker.clock import iso, monotonic, utc_now
from worker.errors import ConfigError, SpoolUnusable
from worker.gaps import Gap, reached

MAGIC = b"cancelq spool 1 "
DIGITS = 12
# About 100,000 requests: more than that is no outage of a strategy's Redis any more.
LARGEST = 16 * 1024 * 1024
# Read and sent at once; one line is shorter than 17 KB.
BLOCK, BATCH = 1024 * 1024, 500
LARGEST_SHELF = 1024 * 1024
# For the others' writes, each an fsync: a frozen process must not freeze this one.
PATIENCE = timedelta(seconds=0.5)
LOCK_POLL = timedelta(milliseconds=2)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the spool as it was found."""

    line: bytes
    end: int  # in the file

    @property
    def text(self) -> bytes:
        return self.line[9:]

    @property
    def is_whole(self) -> bool:
        """A crash may have torn the last line, and a disk may change any."""
        return self.line == _line(self.text)

    def refused(self, why: str) -> str:
        said = self.text if self.is_whole else self.line
        record = {"at": iso(utc_now()), "error": why, "request": said.decode(errors="backslashreplace")}
        return json.dumps(record)


class Spool:
    """One file; several threads and processes may use it at once."""

    def __init__(self, path: str | os.PathLike[str], ledger: str) -> None:
        """Raise ConfigError for a path that can be no spool of this ledger."""
        self.path = Path(path).absolute()
        self._lock = self.path.with_name(f"{self.path.name}.lock")
        self._tail = f" {ledger}\n".encode()
        self._start = len(MAGIC) + DIGITS + len(self._tail)
        try:
            with self._opened() as file:
                self._first(file)
        except (OSError, SpoolUnusable) as error:
            raise ConfigError(f"spool: {self.path} {_why(error)}; it must be a file of its own") from error

    def is_empty(self) -> bool:
        """Without opening it: asked before each call."""
        try:
            return self.path.stat().st_size <= self._start
        except OSError:
            return True

    def append(self, texts: Sequence[str]) -> None:
        """Keep the requests, on disk when this returns; all of them, or SpoolUnusable says why not."""
        # Between fields a line feed is as good as a carriage return to JSON, and nowhere else allowed.
        lines = b"".join(_line(text.encode().replace(b"\n", b"\r")) + b"\n" for text in texts)
        with self._reported(), self._opened() as file:
            self._first(file)
            size = os.fstat(file).st_size
            if size + len(lines) > LARGEST:
                raise SpoolUnusable(f"is full ({LARGEST // 1024 // 1024} MiB)")
            torn = os.pread(file, 1, size - 1) != b"\n"
            try:
                _write(file, b"\n" * torn + lines, size)
                _sync(file)
            except OSError:
                os.ftruncate(file, size)
                raise

    def read(self, after: int | None = None, patience: timedelta = PATIENCE) -> list[Entry]:
        """The oldest requests that wait, in order; or those behind the place `after` in the file."""
        with self._reported(), self._opened(patience) as file:
            position = self._first(file) if after is None else after
            block = os.pread(file, BLOCK, position)
            if not block and after is None:
                self._forget_all(file)  # cut off by somebody
        *lines, rest = block.split(b"\n")
        if rest and (len(block) < BLOCK or not lines):  # no writer is there: this line has no end
            lines.append(rest)
        entries = []
        for line in lines[:BATCH]:
            position += len(line) + 1
            entries.append(Entry(line, position))
        return entries

    def drop(self, end: int) -> None:
        """Forget what lies before `end`; after a crash before that it is only sent again, under the same ids.

        The position never lies beyond the file's end: what is appended after a crash would be skipped.
        """
        with self._reported(), self._opened() as file:
            if end >= os.fstat(file).st_size:
                self._forget_all(file)
            else:
                self._point(file, end)

    def shelve(self, refused: Sequence[tuple[Entry, str]]) -> None:
        """Keep, for a person, what will never be stored; the newest one or two MiB of it."""
        if not refused:
            return
        shelf = self.path.with_name(f"{self.path.name}.refused")
        with self._reported():
            if shelf.exists() and shelf.stat().st_size > LARGEST_SHELF:
                shelf.replace(f"{shelf}.old")
            with open(shelf, "a", opener=_private) as file:
                file.writelines(f"{entry.refused(why)}\n" for entry, why in refused)
                file.flush()
                _sync(file.fileno())

    @contextmanager
    def sending(self, patience: timedelta) -> Iterator[None]:
        """The right to send on: one process or thread at a time, so that the order is kept."""
        with self._reported(), _locked(self._lock, patience):
            yield

    def beat(self) -> None:
        """Whoever sends on says before each batch that it does."""
        with self._reported():
            os.utime(self._lock)

    def stall(self, span: timedelta) -> int | None:
        """The last word of whoever sends on, if that was so long ago: a stopped process keeps its lock."""
        try:
            said = self._lock.stat().st_mtime_ns
        except OSError:
            return None
        return said if abs(time.time_ns() - said) / 1e9 > span.total_seconds() else None

    def _forget_all(self, file: int) -> None:
        self._point(file, self._start)
        os.ftruncate(file, self._start)
        _sync(file)

    def _point(self, file: int, first: int) -> None:
        _write(file, b"%0*d" % (DIGITS, first), len(MAGIC))
        _sync(file)
        reached(Gap.SPOOL_POINTED)

    @contextmanager
    def _opened(self, patience: timedelta = PATIENCE) -> Iterator[int]:
        with _locked(self.path, patience) as file:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise SpoolUnusable("is no regular file")
            yield file

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SpoolUnusable) as error:
            raise SpoolUnusable(f"the spool {self.path} {_why(error)}") from error

    def _first(self, file: int) -> int:
        """Where the first request that waits begins; a new file is made ready."""
        fresh = self._head(self._start)
        found = os.pread(file, self._start, 0)
        if fresh.startswith(found) or not found.strip(b"\0"):  # also torn while it was made
            if found != fresh:
                _write(file, fresh, 0)
                _sync(file)
                _sync_folder(self.path.parent)
            return self._start
        position = found[len(MAGIC) : len(MAGIC) + DIGITS]
        if not position.isdigit() or found != self._head(int(position)):
            raise SpoolUnusable("is no spool of this ledger")
        known = self._start <= int(position) <= os.fstat(file).st_size
        return int(position) if known else self._start

    def _head(self, first: int) -> bytes:
        return MAGIC + b"%0*d" % (DIGITS, first) + self._tail


def _line(text: bytes) -> bytes:
    return b"%08x %b" % (zlib.crc32(text), text)


@contextmanager
def _locked(path: Path, patience: timedelta) -> Iterator[int]:
    """The file, opened and locked; let go by name, because a forked child shares the lock."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(file, patience)
        try:
            yield file
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
    finally:
        os.close(file)


def _lock(file: int, patience: timedelta) -> None:
    give_up = monotonic() + patience
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() >= give_up:
                raise SpoolUnusable("is in use by another thread or process") from None
            time.sleep(LOCK_POLL.total_seconds())


def _write(file: int, data: bytes, at: int) -> None:
    while data:
        written = os.pwrite(file, data, at)
        data, at = data[written:], at + written


def _sync(file: int) -> None:
    """On macOS fsync alone leaves it in the drive's memory."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        fcntl.fcntl(file, fcntl.F_FULLFSYNC)
    else:
        os.fsync(file)


def _sync_folder(folder: Path) -> None:
    """A new file's name is on disk only then."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _why(error: Exception) -> str:
    return f"cannot be used: {error.strerror}" if isinstance(error, OSError) else str(error)
