"""Ten thousand hostile requests on the bare wire: an independent reader says which are right, and only those leave keys."""

import json
import random
import re
import socket
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import hiredis

from tests.parts.ledger import LEASE, Door, claim
from worker.ledger.client import Ledger

if TYPE_CHECKING:
    from redis import Redis

COUNT, BATCH, SEED = 10_000, 500, 20261123
Fields = list[tuple[str, str]]  # names and JSON, so that a name may come twice

# --- an independent reading of the contract's request fields

TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,]\d+)?)?(?:|[Zz]|[+-](\d\d)(?::?(\d\d))?)",
    re.ASCII,
)
LENGTHS = {"account": 64, "clOrdId": 64, "customTag50": 64, "requestId": 128, "requestedBy": 128}


class Wrong(ValueError):
    """Not a request that may be stored."""


class Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def fields_of(raw: bytes) -> dict[str, Any]:
    """The fields, if the text is a right request."""
    if len(raw) > 16_384:
        raise Wrong
    try:
        found = json.loads(
            raw.decode(), object_pairs_hook=once, parse_int=Number, parse_float=Number, parse_constant=wrong
        )
    except RecursionError:
        raise Wrong from None
    if not isinstance(found, dict) or "orderId" not in found:
        raise Wrong
    for name, value in found.items():
        if not RIGHT.get(name, lambda _: False)(value):
            raise Wrong
    return found


def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise Wrong
    return dict(pairs)


def wrong(_constant: str) -> None:
    raise Wrong


def is_order_id(value: Any) -> bool:
    digits = isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,18}", value)
    return bool(digits) and int(value) < 2**63


def is_text(value: Any, most: int) -> bool:
    if not isinstance(value, str) or isinstance(value, Number):
        return False
    clean = not any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in value)
    return clean and 1 <= len(value.encode()) <= most


def is_time(value: Any) -> bool:
    found = TIME.fullmatch(value) if isinstance(value, str) and not isinstance(value, Number) else None
    if found is None:
        return False
    year, month, day, hour, minute, second, east, more = (int(part or 0) for part in found.groups())
    try:
        date(year, month, day)
    except ValueError:
        return False
    return 1970 <= year <= 2199 and max(hour, east) <= 23 and max(minute, second, more) <= 59


def is_deadline(value: Any) -> bool:
    """None of the generated ones is near a bound."""
    if isinstance(value, Number):
        return -1 <= float(value) < 3e8
    return is_time(value) and "2027" <= value[:4] <= "2035"


RIGHT: dict[str, Callable[[Any], bool]] = {
    "orderId": is_order_id,
    "activationTime": is_time,
    "deadline": is_deadline,
    "isAutomated": lambda value: isinstance(value, bool),
    "priority": lambda value: value in ("urgent", "normal"),
    **{name: (lambda value, most=most: is_text(value, most)) for name, most in LENGTHS.items()},
}

# --- requests, and what becomes of them


GOOD: dict[str, tuple[str, ...]] = {
    "account": ('"A"', '"B\\u00e9"', '"{x}:*"', '"\\ud83d\\ude00"', '"a b"'),
    "clOrdId": ('"c-1"', '"\\\\"'),
    "activationTime": ('"2031-01-01T00:00:00Z"', '"2031-02-28 23:59:59,5+0100"'),
    "customTag50": ('"t"', f'"{"t" * 64}"'),
    "isAutomated": ("true", "false"),
    "requestedBy": ('"me"', '"\\/ \\""', '"' + "\u20ac" * 42 + '"'),
    "priority": ('"urgent"', '"normal"'),
    "deadline": ("30", "1e3", "0.5E+2", '"2030-01-01T00:00Z"'),
}
ODD = (
    *(
        "null",
        "true",
        "[]",
        "{}",
        '""',
        "-1",
        "0",
        "1e3",
        "1.0",
        "0x10",
        "01",
        "NaN",
        "-Infinity",
        "1e400",
        "+1",
    ),
    *(str(2**63 - 1), str(2**63), str(2**64), "9" * 5000, "-" + "9" * 5000, "0." + "1" * 5000),
    *(
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"a\\u0000"',
        '"\\u0085"',
        '"a\nb"',
        '"\\x41"',
        '"\\u12g4"',
        '"\u2028"',
    ),
    *(f'"{2**63 - 1}"', f'"{2**63}"', '"1 "', '"\u0665"', '"' + "x" * 65 + '"', '"' + "\u00e9" * 65 + '"'),
    *("[" * 500, '{"a":' * 500, "[" * 16_000, '"' + "y" * 17_000 + '"', '"2026-02-29T00:00:00Z"'),
    *(
        '"2199-12-31T23:59:59.999999Z"',
        '"2200-01-01T00:00:00Z"',
        '"1969-12-31T00:00:00Z"',
        '"2031-01-01T00:00:00+24:00"',
    ),
)
NAMES = (
    *GOOD,
    "orderId",
    "requestId",
    "order_id",
    "",
    "orderid",
    "\\u006frderId",
    "a" * 300,
    "__proto__",
    "\u00e9",
)
JUNK = (b"\x00", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b'"', b"\\", b"{", b"}", b",", b":", b"\r\n", b"\x7f", b"0", b" ")  # fmt: skip


def good(chance: random.Random, number: int) -> Fields:
    order = str(chance.randint(1, 400))
    fields = [("orderId", order if chance.random() < 0.5 else f'"{order}"')]
    fields += [(name, chance.choice(GOOD[name])) for name in GOOD if chance.random() < 0.3]
    if chance.random() < 0.9:
        fields.append(("requestId", f'"r{chance.randint(1, number)}"'))
    chance.shuffle(fields)
    return fields


def written(chance: random.Random, fields: Fields) -> bytes:
    gap = chance.choice(("", "", " ", "\n\t"))
    inside = f",{gap}".join(f'"{name}"{gap}:{value}' for name, value in fields)
    return f"{gap}{{{inside}}}{gap}".encode()


def odd_field(chance: random.Random, fields: Fields) -> Fields:
    """One value replaced, one more field, or one twice."""
    changed = fields.copy()
    at = chance.randrange(len(fields))
    changed[at] = (chance.choice((fields[at][0], chance.choice(NAMES))), chance.choice(ODD))
    if chance.random() < 0.3:
        changed.append(chance.choice(fields))
    return changed


def spoiled(chance: random.Random, text: bytes) -> bytes:
    """A few bytes of it changed, lost, doubled or put in."""
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(text) + 1)
        to = min(len(text), at + chance.randint(0, 8))
        text = text[:at] + chance.choice((*JUNK, b"", chance.randbytes(3), text[at:to] * 2)) + text[to:]
    return text


def requests() -> Iterator[bytes]:
    chance, asked = random.Random(SEED), [b""]
    for number in range(1, COUNT + 1):
        fields = good(chance, number)
        kind = chance.random()
        if kind < 0.3:
            asked.append(written(chance, fields))
            yield chance.choice((asked[-1], asked[-1], chance.choice(asked)))
        elif kind < 0.65:
            yield written(chance, odd_field(chance, fields))
        elif kind < 0.95:
            yield spoiled(chance, written(chance, fields))
        else:
            yield chance.randbytes(chance.choice((0, 1, 10, 300, 20_000)))


def call(*words: bytes) -> bytes:
    """One command in RESP, by hand."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def answers(connection: socket.socket, commands: Sequence[bytes]) -> list[Any]:
    connection.sendall(b"".join(commands))
    reader, found = hiredis.Reader(), []
    while len(found) < len(commands):
        answer = reader.gets()
        if answer is False:
            got = connection.recv(1 << 16)
            assert got, "the server hung up"
            reader.feed(got)
        else:
            found.append(answer)
    return found


def connected(redis_url: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(unquote(urlsplit(redis_url).path))
    return connection


def test_of_ten_thousand_hostile_requests_only_right_ones_leave_keys(
    ledger: Ledger, door: Door, redis_url: str, redis_client: "Redis"
) -> None:
    sent = list(requests())
    replies: list[dict[str, Any]] = []
    memory = redis_client.info("memory")["used_memory_vm_functions"]
    with connected(redis_url) as connection:
        for at in range(0, COUNT, BATCH):
            commands = [
                call(b"FCALL", b"cancelq_enqueue", b"1", door.prefix.encode(), raw)
                for raw in sent[at : at + BATCH]
            ]
            found = answers(connection, commands)
            assert [answer for answer in found if not isinstance(answer, bytes)] == []
            replies += [json.loads(answer) for answer in found]
    assert redis_client.info("memory")["used_memory_vm_functions"] - memory < 4_000_000
    seen: dict[str, tuple[str, str]] = {}
    for raw, reply in zip(sent, replies, strict=True):
        expect(raw, reply, seen)
    told = Counter(reply["status"] for reply in replies)
    assert min(told[status] for status in ("accepted", "joined", "duplicate", "refused")) > 100, told
    assert_only_keys_of(door, [reply for reply in replies if reply["status"] in {"accepted", "joined"}])
    assert_readable(ledger, told["accepted"])


def expect(raw: bytes, reply: dict[str, Any], seen: dict[str, tuple[str, str]]) -> None:
    """The reply is what the independent reader would have said."""
    try:
        fields = fields_of(raw)
    except (Wrong, ValueError):
        assert (reply["status"], bool(reply.get("error"))) == ("refused", True), (raw, reply)
        return
    order = (fields["orderId"], fields.get("account", "default"))
    known = seen.get(fields.get("requestId", ""))
    if known is not None and known != order:
        assert reply["error"].startswith("requestId: was used for order"), raw
        return
    assert reply["status"] in ({"duplicate"} if known else {"accepted", "joined"}), (raw, reply)
    assert (str(reply["orderId"]), reply["account"]) == order
    seen[reply["requestId"]] = order


def assert_only_keys_of(door: Door, stored: Sequence[dict[str, Any]]) -> None:
    jobs = {reply["jobId"] for reply in stored}
    wanted = {door.key(f"job:{job}") for job in jobs}
    wanted |= {door.key(f"request:{reply['requestId']}") for reply in stored}
    wanted |= {door.key(f"order:{reply['orderId']}:{reply['account']}") for reply in stored}
    wanted |= {door.key(f"joiners:{reply['jobId']}") for reply in stored if reply["status"] == "joined"}
    wanted |= {door.key(name) for name in ("due", "urgent", "unregistered", "deadlines", "bells", "meta")}
    assert door.all_keys() == wanted
    assert len(door.bells()) == 16
    waiting = {
        name: set(door.redis.zrange(door.key(name), 0, -1)) for name in ("due", "urgent", "unregistered")
    }
    assert waiting["due"] | waiting["urgent"] == waiting["unregistered"] == jobs


def assert_readable(ledger: Ledger, count: int) -> None:
    """A worker can read all of it."""
    assert len(ledger.unregistered(count + 1, timedelta(0))) == count
    assert len(claim(ledger, jobs=count + 1, lease=LEASE).jobs) == count


def test_calls_of_a_wrong_shape_are_answered_and_leave_nothing(door: Door, redis_url: str) -> None:
    prefix, request = door.prefix.encode(), b'{"orderId":1}'
    shapes = [
        (b"0",),
        (b"0", request),
        (b"1", b"", request),
        (b"1", prefix + b"\x00", request),
        (b"1", prefix[:-1], request),
        (b"1", prefix + b":job:x", request),
        (b"1", b"{" + b"x" * 100_000 + b"}\xff", request),
        (b"1", prefix, b"{" + b" " * 1_000_000 + b"}"),
        (b"2", request, prefix, request),
        (b"-1", prefix, request),
        (b"9" * 30, prefix, request),
        (b"1",),
    ]
    names = (b"cancelq_enqueue", b"cancelq_status", b"cancelq_redrive")
    with connected(redis_url) as connection:
        found = answers(connection, [call(b"FCALL", name, *shape) for name in names for shape in shapes])
        assert answers(connection, [call(b"PING")]) == [b"PONG"]
    told = [json.loads(answer)["status"] for answer in found if isinstance(answer, bytes)]
    assert set(told) == {"refused"}
    assert len(told) == 9 * len(names)
    assert door.all_keys() == {door.key("meta")}
