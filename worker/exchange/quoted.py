"""Our own token, made unreadable wherever the exchange quotes it: records that nobody can change must not keep it."""

import json
from functools import lru_cache
from urllib.parse import quote

from requests import PreparedRequest

# No real one is shorter, and a short one might be a word of the answer.
SHORTEST_TOKEN = 16
# Of a token that a cut goes through, so few characters tell nothing.
HARMLESS = 8
HIDDEN = "***"


def body_without_token(body: bytes, request: PreparedRequest, *, cut: bool) -> bytes:
    """An answer's body; `cut` says that it was longer, so that it may end within a token."""
    ways = _ways(request.headers.get("Authorization", ""))
    for way in ways:
        body = body.replace(way.encode(), HIDDEN.encode())
    if ways and b"\\" in body and any(way in (said := _spelled_out(body)) for way in ways):
        body = _without(said, ways).encode("utf-8", "backslashreplace")
    return _without_tail(body, ways) if cut else body


def text_without_token(text: str, request: PreparedRequest) -> str:
    """A header, or what an error says."""
    return _without(text, _ways(request.headers.get("Authorization", "")))


def _without(text: str, ways: frozenset[str]) -> str:
    for way in ways:
        text = text.replace(way, HIDDEN)
    return text


@lru_cache(maxsize=4)
def _ways(authorization: str) -> frozenset[str]:
    """How a token may be quoted back: as it is, or as in an address."""
    token = authorization.rpartition(" ")[2]
    return (
        frozenset((token, quote(token), quote(token, safe="")))
        if len(token) >= SHORTEST_TOKEN
        else frozenset()
    )


def _spelled_out(body: bytes) -> str:
    """JSON may write any character as an escape, and whoever reads it finds the token again; "" for no JSON."""
    try:
        return json.dumps(json.loads(body), ensure_ascii=False)
    except (ValueError, RecursionError):
        return ""


def _without_tail(body: bytes, ways: frozenset[str]) -> bytes:
    for way in ways:
        for length in range(len(way) - 1, HARMLESS, -1):
            if body.endswith(way[:length].encode()):
                return body[:-length] + HIDDEN.encode()
    return body
