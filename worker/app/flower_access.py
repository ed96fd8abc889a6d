"""Who may look at Flower, and where: one password in a file of its owner, one port of this machine."""

import os
import re
import secrets
import socket
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from worker.errors import ConfigError

USER = "cancelq"
LOOPBACK = "127.0.0.1"
USUAL_PORT = 5555
SHORTEST_PASSWORD = 8


def listen_at(where: str) -> socket.socket:
    """Take an address of one's own choice: in a container loopback can't be reached from outside."""
    address, _, port = where.rpartition(":")
    try:
        listener = socket.create_server((address, int(port)), backlog=128)
    except (ValueError, OSError, OverflowError) as error:
        raise ConfigError(f"--listen {where}: {error}; give ADDRESS:PORT such as 0.0.0.0:5555") from error
    listener.setblocking(False)
    return listener


def listen(port: int | None) -> socket.socket:
    """Take the port that was asked for; unasked the usual one, or if that is taken any other."""
    if port is not None:
        try:
            return _listen(port)
        except OSError as error:
            raise ConfigError(
                f"--flower-port {port}: {error.strerror}; give a free port, or leave the option out"
            ) from error
    try:
        return _listen(USUAL_PORT)
    except OSError:
        return _listen(0)


def _listen(port: int) -> socket.socket:
    listener = socket.create_server((LOOPBACK, port), backlog=128)
    listener.setblocking(False)
    return listener


def url(listener: socket.socket) -> str:
    return f"http://{LOOPBACK}:{listener.getsockname()[1]}/"


def password_file(home: Path) -> Path:
    return home / "flower-password"


def ensure_password(home: Path) -> None:
    """Make the password at the first use; the file appears with its content or not at all."""
    path = password_file(home)
    if path.exists():
        read_password(path)
        return
    try:
        home.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=home)  # readable by its owner only
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_urlsafe(24) + "\n")
            with suppress(FileExistsError):  # another process was first
                os.link(draft, path)
        finally:
            Path(draft).unlink()
    except OSError as error:
        raise ConfigError(f"CANCELQ_HOME: {path} cannot be written: {error.strerror}") from error


def read_password(path: Path, *, by_owner_only: bool = True) -> str:
    """The password; ConfigError if others could read it or if it is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = os.fstat(file.fileno())
            password = file.read(1024).strip()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if by_owner_only and (found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077):
        raise ConfigError(f"{path} may be read by others; chmod 600 it, or remove it to get a new password")
    if not re.fullmatch(r"[!-~]+", password) or len(password) < SHORTEST_PASSWORD:
        raise ConfigError(
            f"{path} must hold one line of at least {SHORTEST_PASSWORD} visible ASCII characters; "
            "remove it to get a new password"
        )
    return password
