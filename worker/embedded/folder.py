"""The files of one embedded Valkey: its lock, its address, its socket, its log."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from worker.errors import ConfigError

# sun_path has 108 bytes on Linux, 104 on macOS.
LONGEST_SOCKET_PATH = 100

# Not TMPDIR: it may be as long as the home, and differ between the processes that share a server.
SHORT_ROOT = "/tmp"  # noqa: S108 - the folder below it is private and its owner is checked


class Folder:
    """`valkey/` in a CANCELQ_HOME. Two locks guard it: `lock` lives in the server, `users` in who uses it."""

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self.path = self.home / "valkey"
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log = self.path / "valkey.log"
        self.url = f"unix://{quote(str(self.socket))}"

    @property
    def socket(self) -> Path:
        """In the folder; where that path is too long, in a private temporary folder of the same home."""
        path = self.path / "socket"
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            path = self._short_folder() / "socket"
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            raise ConfigError(f"CANCELQ_HOME: {self.home} is too long for a unix socket")
        return path

    def lock_server(self) -> int | None:
        """The right to start the server, as an open file; None while one lives."""
        return _flock(self.path / "lock", fcntl.LOCK_EX)

    def lock_use(self) -> int | None:
        """A share in the running server; None while its owner is ending it."""
        return _flock(self.path / "users", fcntl.LOCK_SH)

    def lock_end(self) -> int | None:
        """The right to end the server under nobody's feet; None while others use it."""
        return _flock(self.path / "users", fcntl.LOCK_EX)

    def last_words(self) -> str:
        """The end of the log, where a server that cannot start says why."""
        try:
            lines = [
                line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()
            ]
        except OSError:
            lines = []
        return f"{' | '.join(lines[-3:]) or 'it said nothing'} (see {self.log})"

    def _short_folder(self) -> Path:
        """The same for all processes of this home; somebody else's folder of that name is never used."""
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        folder = Path(SHORT_ROOT, f"cancelq-{os.getuid()}-{digest}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise ConfigError(
                f"CANCELQ_HOME: its path is too long for a unix socket, and {folder} is not ours alone"
            )
        return folder

    def clear(self) -> None:
        """Remove what lies outside of the home."""
        socket = Path(unquote(urlsplit(self.url).path))
        if socket.parent != self.path:
            shutil.rmtree(socket.parent, ignore_errors=True)


def _flock(path: Path, kind: int) -> int | None:
    """Lock without waiting; flock goes with the open file, so a child that inherits it keeps it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
