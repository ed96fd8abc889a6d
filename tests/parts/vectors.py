"""The conformance vectors of docs/producers.md, sent to a server as their rules say."""

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis

FILE = Path(__file__).parents[2] / "docs/producer-vectors.json"
VECTORS: list[dict[str, Any]] = json.loads(FILE.read_text())["vectors"]
# Only a server with replicas adds this one.
MAY_COME = {"replicas"}


class Digits(str):
    """A number of a reply, digit by digit."""

    __slots__ = ()


def play(redis: "Redis", ledger: str) -> list[str]:
    """Send all vectors in order to a ledger that nobody has used; what differs, by name."""
    kept: dict[str, str] = {}
    return [f"{vector['name']}: {why}" for vector in VECTORS for why in _differs(redis, ledger, vector, kept)]


def _differs(redis: "Redis", ledger: str, vector: Mapping[str, Any], kept: dict[str, str]) -> list[str]:
    key = vector.get("key", f"{{{ledger}}}")
    text = redis.fcall(vector["function"], 1, key, request_of(vector, kept), *vector.get("more", ()))
    reply: dict[str, Any] = json.loads(text, parse_int=Digits)
    wanted = vector["reply"]
    wrong = [
        f"{name} is {reply.get(name, 'missing')!r}"
        for name, rule in wanted.items()
        if name not in reply or not _fits(reply[name], rule, kept)
    ]
    return wrong + [f"{name} came along" for name in reply.keys() - wanted.keys() - MAY_COME]


def request_of(vector: Mapping[str, Any], kept: Mapping[str, str]) -> bytes:
    if "request_base64" in vector:
        return base64.b64decode(vector["request_base64"])
    request: str = vector["request"]
    for name, text in kept.items():
        request = request.replace(f"<{name}>", text)
    return request.encode()


def _fits(value: object, rule: object, kept: dict[str, str]) -> bool:
    """A number fits a number, digit by digit; every other value is as it is, or a text that keeps its rule."""
    match rule:
        case {"digits": digits}:
            return isinstance(value, Digits) and value == digits
        case int():
            return isinstance(value, Digits) and value == str(rule)
        case dict():
            return isinstance(value, str) and not isinstance(value, Digits) and _keeps(value, rule, kept)
    return not isinstance(value, Digits) and value == rule


def _keeps(text: str, rule: Mapping[str, str], kept: dict[str, str]) -> bool:
    ((kind, word),) = rule.items()
    if kind == "matches":
        return re.fullmatch(word, text) is not None
    if kind == "begins":
        return text.startswith(word)
    return text == (kept.setdefault(word, text) if kind == "remember" else kept[word])
