"""What runs on this machine, as /proc shows it."""

import os
from pathlib import Path


def is_running(pid: int) -> bool:
    """Whether it runs (a dead one that nobody has reaped yet does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def started_from(folder: Path) -> dict[int, str]:
    """The live processes whose environment or arguments name the folder: pid and command line."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            words = command + (entry / "environ").read_bytes()
        except OSError:
            continue  # ended while we looked
        if str(folder).encode() in words and int(entry.name) != os.getpid():
            found[int(entry.name)] = command.replace(b"\0", b" ").decode()
    return found
