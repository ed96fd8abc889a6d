"""The machine: open files, memory, Python, and the folder of the embedded data."""

import os
import platform
import resource
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from worker.clock import monotonic
from worker.doctor.finding import Finding, each, failed, ok, warning
from worker.settings import Settings, secret_files

# Beside its senders: logs, pipes, the database's pool, Redis, Celery, Flower.
FILES_BESIDE = 64
# A connection to the exchange for each sender, and as many again while old ones are closing.
FILES_PER_SENDER = 2
LITTLE_SPACE, TOO_LITTLE_SPACE = 1024**3, 64 * 1024**2
LITTLE_MEMORY = 256 * 1024**2
# Locks and memory maps do not work there as SQLite's WAL and the append-only file need them.
REMOTE = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "fuse.sshfs",
    "fuse.glusterfs",
}
VOLATILE = {"tmpfs", "ramfs"}
MOUNTS = Path("/proc/mounts")
MEMORY = Path("/proc/meminfo")


def look(settings: Settings) -> Iterator[Finding]:
    checks = [
        ("host: open files", lambda: files(settings.concurrency)),
        ("host: memory", memory),
        ("host: Python", python),
        ("host: CANCELQ_HOME", lambda: home(settings.home.absolute())),
        ("host: secrets", lambda: secrets(secret_files())),
    ]
    yield from each(checks, "mend what is said here, then ask again")


def files(concurrency: int) -> Iterator[Finding]:
    """Whether this process may open what a worker of this size opens."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FILES_PER_SENDER * concurrency + FILES_BESIDE
    if soft == resource.RLIM_INFINITY or soft >= needed:
        yield ok("host: open files", f"{soft} allowed, a worker needs {needed}")
        return
    fitting = max(1, (soft - FILES_BESIDE) // FILES_PER_SENDER)
    yield failed(
        "host: open files",
        f"{soft} allowed, a worker with CANCELQ_CONCURRENCY={concurrency} needs {needed}",
        f"say `ulimit -n {needed}` (LimitNOFILE= in a unit file), or set CANCELQ_CONCURRENCY={fitting}",
    )


def memory() -> Iterator[Finding]:
    if not MEMORY.exists():
        return
    lines = (line.split() for line in MEMORY.read_text().splitlines())
    available = next((int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"), None)
    if available is None:
        return
    if available < LITTLE_MEMORY:
        yield warning(
            "host: memory",
            f"{size(available)} available; a worker uses about 100 MB",
            "free some, or add some",
        )
    else:
        yield ok("host: memory", f"{size(available)} available")


def python() -> Iterator[Finding]:
    yield ok(
        "host: Python", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    )


def home(folder: Path) -> Iterator[Finding]:
    """Whether embedded data may live there, and what a write to its disk costs."""
    what = "host: CANCELQ_HOME"
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield failed(what, f"{folder} cannot be written", "make it writable, or set CANCELQ_HOME")
        return
    kind = filesystem(there)
    if kind in REMOTE | VOLATILE:
        why = "a file system of another machine" if kind in REMOTE else "memory, gone with the next start"
        yield warning(what, f"{folder} is on {kind}: {why}", "set CANCELQ_HOME to a folder on a local disk")
    else:
        yield ok(what, f"{folder} on {kind or 'its disk'}{_synced(there) if there == folder else ''}")
    yield space(what, there)


def secrets(files: Sequence[Path]) -> Iterator[Finding]:
    """Whether any user of this host may read a token or a password."""
    exposed = [str(path) for path in files if _is_open_to_all(path.resolve())]
    if exposed:
        yield warning(
            "host: secrets",
            f"every user of this host may read {', '.join(exposed)}",
            f"chmod 600 {' '.join(exposed)}",
        )
    elif files:
        yield ok("host: secrets", f"{len(files)} files, none of them open to every user")


def _is_open_to_all(path: Path) -> bool:
    """A closed folder above it closes it too."""
    reachable = all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)
    return reachable and bool(path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))


def space(what: str, folder: Path) -> Finding:
    """The free space beside a file that only grows."""
    free = shutil.disk_usage(folder).free
    said = f"{size(free)} free at {folder}"
    mend = "make room on this disk, or move the data to another one"
    if free < TOO_LITTLE_SPACE:
        return failed(what, said, mend)
    return warning(what, said, mend) if free < LITTLE_SPACE else ok(what, said)


def filesystem(path: Path) -> str | None:
    """The kind of file system below a path; None where it cannot be known."""
    if not MOUNTS.exists():
        return None
    mounts = [line.split()[1:3] for line in MOUNTS.read_text().splitlines()]
    above = [
        (where.replace("\\040", " "), kind)
        for where, kind in mounts
        if path.resolve().is_relative_to(where.replace("\\040", " "))
    ]
    return max(above, key=lambda mount: len(mount[0]), default=(None, None))[1]


def size(count: int) -> str:
    return f"{count / 1024**3:.1f} GB" if count >= 1024**3 else f"{count / 1024**2:.0f} MB"


def _synced(folder: Path) -> str:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"cancelq doctor")
        file.flush()
        began = monotonic()
        os.fsync(file.fileno())
        took = monotonic() - began
    return f", a write is on disk after {took.total_seconds() * 1000:.1f} ms"
