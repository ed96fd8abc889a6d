"""Loads the ledger's functions library: upgrades in place, never downgrades."""

from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

from redis.exceptions import ResponseError, WatchError

from worker.errors import LibraryTooNew

if TYPE_CHECKING:
    from redis import Redis

NAME = "cancelq"
# The same for all ledgers of a server, as the library is: whoever loads changes this key in one transaction
# with the library, so of two loaders at once the second looks again.
LOAD_KEY = "{cancelq}:library"
GENERATION = 1000
# Lua needs a local function before its first use; the functions themselves may stand in any order.
SHARED = ("write", "prelude", "logins", "budget", "json", "time", "request", "join", "alert", "look")
FUNCTIONS = (
    *("enqueue", "status", "claim", "renew", "settle", "close", "finish", "sweep", "register", "witness"),
    *("steer", "compare", "gauges", "service", "token", "mass"),
)


def source(instead: Mapping[str, str] | None = None) -> str:
    """The library's text; `instead` replaces files by name (a test's way to make a write fail)."""
    folder = files("worker.ledger") / "functions"
    texts = {name: (folder / f"{name}.lua").read_text(encoding="utf-8") for name in SHARED + FUNCTIONS}
    texts |= dict(instead or {})
    # In a block each, because Lua allows 200 local names at a time: what a function's file names is its own.
    blocks = [f"do\n{text}end" if name in FUNCTIONS else text for name, text in texts.items()]
    return f"#!lua name={NAME}\n" + "\n".join(blocks)


def version_of(text: str) -> int:
    line = next(line for line in text.splitlines() if line.startswith("local VERSION = "))
    return int(line.split("=")[1].split("--")[0])


def load(redis: "Redis", text: str | None = None) -> int:
    """Bring the server to this library or leave a newer one alone; gives the version now in force."""
    text = source() if text is None else text
    ours = version_of(text)
    with redis.pipeline() as transaction:
        while True:
            transaction.watch(LOAD_KEY)  # type: ignore[no-untyped-call]
            theirs = loaded_version(redis)
            if theirs >= ours:
                return require_compatible(theirs, ours)
            transaction.multi()
            transaction.set(LOAD_KEY, ours)
            transaction.function_load(text, replace=True)
            try:
                transaction.execute()
            except WatchError:
                continue
            return ours


def loaded_version(redis: "Redis") -> int:
    """The server's version of the library; 0 when there is none."""
    try:
        return int(redis.fcall("cancelq_version", 0))
    except ResponseError as error:
        if "function not found" in str(error).lower():
            return 0
        raise


def require_compatible(theirs: int, ours: int) -> int:
    if theirs // GENERATION > ours // GENERATION:
        raise LibraryTooNew(
            f"the ledger's functions are of version {theirs}, this program knows {ours}: "
            "upgrade this cancelq, or use another Redis"
        )
    return theirs
