"""Who needs which rights in Redis: a producer and a worker, as ACL rules. Nothing is granted here.

Functions run with their caller's rights, so a rule names every command that a function uses. What they
use is compared with their sources by a test; `cancelq doctor --acl` prints the rules.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from worker.ledger.encoding import bells_key, prefix
from worker.ledger.library import LOAD_KEY

PASSWORD = "CHANGE-ME"  # noqa: S105 - a placeholder
PRODUCER_FUNCTIONS = ("cancelq_enqueue", "cancelq_status")
# To connect, in any language (AUTH and HELLO need no rule), and to learn what is safe on disk.
CLIENT_COMMANDS = ("ping", "select", "client|setinfo", "client|setname", "wait", "waitaof")
# Servers before 7.2 refuse a rule that names one of these.
SINCE_7_2 = frozenset({"waitaof", "client|setinfo"})
NEWEST = (7, 2)
# Where Celery's events go, whatever the database's number.
EVENTS = "/*.celeryev/*"


@dataclass(frozen=True, slots=True)
class Role:
    """What one kind of user may do: through functions, and by itself."""

    name: str
    functions_use: tuple[str, ...]
    itself: tuple[str, ...]

    def commands(self, server: tuple[int, int] = NEWEST) -> list[str]:
        known = dict.fromkeys([*self.itself, *CLIENT_COMMANDS, *self.functions_use])
        return [name for name in known if server >= NEWEST or name not in SINCE_7_2]


_ENQUEUE = (
    *("exists", "get", "hdel", "hget", "hgetall", "hset", "info", "llen", "lpush", "rpush"),
    *("set", "time", "zadd", "zrem", "zscore"),
)
PRODUCER = Role("producer", functions_use=_ENQUEUE, itself=("fcall",))
WORKER = Role(
    "worker",
    functions_use=(
        *_ENQUEUE,
        *(
            "hincrby",
            "hlen",
            "hmget",
            "hrandfield",
            "hsetnx",
            "lrange",
            "ltrim",
            "pexpire",
            "sadd",
            "smembers",
        ),
        *("zcard", "zcount", "zrange", "zrangebyscore", "zremrangebyscore"),
    ),
    itself=(
        *("fcall", "function|load", "function|list"),
        *("watch", "unwatch", "multi", "exec", "discard"),  # the library and its version change together
        *("config|get",),  # whether an acknowledged write is on disk
        "brpop",  # Celery's consumer of the bells
        "publish",  # that it lives, to Flower
    ),
)


def keys_of(role: Role, ledger: str) -> list[str]:
    """The keys that a role works on, as patterns."""
    own = [prefix(ledger), f"{prefix(ledger)}:*"]
    return own if role is PRODUCER else [*own, LOAD_KEY]


def channels_of(role: Role) -> list[str]:
    return [] if role is PRODUCER else [EVENTS]


def user(role: Role, ledger: str) -> str:
    return f"{ledger}-{role.name}"


def rule(role: Role, ledger: str, server: tuple[int, int] = NEWEST) -> str:
    """One ACL SETUSER line; `server` is the version that shall understand it."""
    places = [f"~{pattern}" for pattern in keys_of(role, ledger)] + [f"&{name}" for name in channels_of(role)]
    commands = " ".join(f"+{name}" for name in role.commands(server))
    return f"ACL SETUSER {user(role, ledger)} reset on >{PASSWORD} {' '.join(places)} {commands}"


def rules(ledger: str, server: tuple[int, int] = NEWEST) -> tuple[str, str]:
    """The producer's and the worker's."""
    return rule(PRODUCER, ledger, server), rule(WORKER, ledger, server)


def probe_key(ledger: str) -> str:
    return f"{prefix(ledger)}:doctor"


def probe_calls(ledger: str) -> list[tuple[str, tuple[str, ...]]]:
    """Calls of everything that a worker needs, to be queued and thrown away: (command, its words).

    A server looks at rights after it counted the words: each of a function's commands comes with one to six.
    """
    key = probe_key(ledger)
    calls = [(name, (name, *[key] * count)) for name in WORKER.functions_use for count in range(6)]
    calls += [("fcall", ("FCALL", "cancelq_version", "1", prefix(ledger)))]
    calls += [(name, (*name.split("|"), *words)) for name, words in _own_calls(ledger)]
    return calls


def _own_calls(ledger: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "ping", ()
    yield "set", (LOAD_KEY, "0")
    yield "function|load", ("REPLACE", "#!lua name=nothing")
    yield "function|list", ()
    yield "config|get", ("appendonly",)
    yield "info", ("server",)
    yield "brpop", (bells_key(ledger), "1")
    yield "publish", (EVENTS.replace("*", "0"), "nothing")
