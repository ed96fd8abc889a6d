"""Reads a script or an admin request and refuses what it does not know, naming the key and what would be right."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .book import STATUSES, Rules
from .fields import Reader, ScriptError, at_least, flag, number, one_of, span, text, text_map, whole, wrong
from .mix import FAULTS, PROFILES, Mix
from .moments import Span
from .sessions import User
from .steps import FOREVER, Drip, Penalty, Step

# Enough for the longest soak, small enough that a slip of the finger does not eat the memory.
MOST_ORDERS = 2_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """What happens to an order by itself, `after` seconds from now."""

    after: float
    status: str | None = None
    fill: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSpec:
    """Orders as a script describes them: one id, or a range that shares everything else."""

    ids: range
    account: str = "DEMO1"
    status: str = "Working"
    qty: int = 4
    filled: int = 0
    after: float = 0.0  # seconds until the first of them is placed …
    every: float = 0.0  # … and between two
    read_lag: float | None = None
    settle: float | None = None
    traits: Mapping[str, Any] = field(default_factory=dict)
    posts: tuple[Step, ...] | None = None
    reads: tuple[Step, ...] | None = None
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Script:
    defaults: Mapping[str, Any] = field(default_factory=dict)
    orders: tuple[OrderSpec, ...] = ()
    mix: Mix | None = None
    auth: Mapping[str, Any] = field(default_factory=dict)
    lists: tuple[Step, ...] | None = None
    contracts: Mapping[str, int] = field(default_factory=dict)


def load(path: Path) -> Script:
    """The script in a file."""
    try:
        return script(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ScriptError(f"{path}: not a readable JSON file: {error}") from None


def script(value: Any) -> Script:
    found = _object(value, "script", SCRIPT)
    return Script(
        defaults=defaults(found.get("defaults", {})),
        orders=orders(found.get("orders", [])),
        mix=mix(found["faults"]) if "faults" in found else None,
        auth=found.get("auth", {}),
        lists=found.get("lists"),
        contracts=found.get("contracts", {}),
    )


def defaults(value: Any) -> dict[str, Any]:
    """Some of the Rules, by name."""
    return _object(value, "defaults", DEFAULTS)


def apply_defaults(rules: Rules, found: Mapping[str, Any]) -> None:
    for name, setting in found.items():
        setattr(rules, name, setting)


def orders(value: Any) -> tuple[OrderSpec, ...]:
    items = value if isinstance(value, list) else [value]
    specs = tuple(order(item, f"orders[{i}]") for i, item in enumerate(items))
    if sum(len(spec.ids) for spec in specs) > MOST_ORDERS:
        raise ScriptError(f"orders: more than {MOST_ORDERS} orders; ask for fewer")
    return specs


def order(value: Any, where: str) -> OrderSpec:
    found = _object(value, where, ORDER)
    known: dict[str, Any] = {
        ORDER_NAMES.get(name, name): v for name, v in found.items() if name not in TRAITS
    }
    known["traits"] = {name: found[name] for name in TRAITS if name in found}
    known["ids"] = _ids(known, where)
    if "posts" in known:
        known["posts"] = _steps(known["posts"], f"{where}.posts", POST)
    if "reads" in known:
        known["reads"] = _steps(known["reads"], f"{where}.reads", READ)
    if "events" in known:
        listed = enumerate(_list(known["events"], f"{where}.events"))
        known["events"] = tuple(_event(item, f"{where}.events[{i}]") for i, item in listed)
    spec = OrderSpec(**known)
    if spec.filled > spec.qty:
        raise ScriptError(f"{where}.filled: {spec.filled} is more than the order's qty of {spec.qty}")
    return spec


def mix(value: Any) -> Mix:
    """A profile by name, or probabilities (over a profile, when "profile" names one)."""
    if isinstance(value, str):
        return PROFILES[one_of(*PROFILES)(value, "faults")]
    found = _object(value, "faults", MIX)
    base = PROFILES[found.pop("profile", "none")]
    chances = {name: p for name, p in {**base.faults, **found}.items() if name in FAULTS}
    total = sum(chances.values())
    if total > 1 + 1e-9:
        raise ScriptError(f"faults: the probabilities add up to {total:.3f}; right would be at most 1")
    rest = {name: v for name, v in found.items() if name not in FAULTS}
    return replace(base, faults=chances, **rest)


def auth(value: Any, where: str) -> dict[str, Any]:
    """Users, sessions, and the next logins and renewals."""
    found = _object(value, where, AUTH)
    for name in ("logins", "renewals"):
        if name in found:
            found[name] = _steps(found[name], f"{where}.{name}", AUTH_STEP)
    return found


def step(value: Any, where: str, known: Mapping[str, Reader]) -> Step:
    found = _object(value, where, known)
    ticket = {name: found.pop(name) for name in ("p-ticket", "p-time", "p-captcha") if name in found}
    if ticket:
        if "p-ticket" not in ticket:
            raise ScriptError(f"{where}.p-ticket: missing; right would be a text beside p-time")
        found["penalty"] = Penalty(
            ticket["p-ticket"], ticket.get("p-time", 1), ticket.get("p-captcha", False)
        )
    if "not_found" in found:
        found |= {"repeat": found["not_found"], "not_found": True}
    made = Step(**found)
    if made.effect is not None and (made.drop or made.reset):
        raise ScriptError(f'{where}.effect: drop and reset say themselves "before" or "after" the effect')
    return made


def _steps(value: Any, where: str, known: Mapping[str, Reader]) -> tuple[Step, ...]:
    return tuple(step(item, f"{where}[{i}]", known) for i, item in enumerate(_list(value, where)))


def _event(value: Any, where: str) -> Event:
    found = _object(value, where, {"after": at_least(0), "ordStatus": one_of(*STATUSES), "fill": whole(1)})
    if ("ordStatus" in found) == ("fill" in found):
        raise ScriptError(f"{where}: right would be either ordStatus or fill, beside after")
    return Event(found.get("after", 0.0), found.get("ordStatus"), found.get("fill"))


def _ids(known: dict[str, Any], where: str) -> range:
    single, first, many = known.pop("id", None), known.pop("from", None), known.pop("count", None)
    if single is not None and first is None and many is None:
        return range(single, single + 1)
    if single is None and first is not None and many is not None:
        return range(first, first + many)
    raise ScriptError(f'{where}.id: right would be either "id", or "from" with "count"')


def _object(value: Any, where: str, known: Mapping[str, Reader]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ScriptError(f"{where}: right would be a JSON object, not {json.dumps(value)[:60]}")
    for name in value:
        if name not in known:
            raise ScriptError(f"{where}.{name}: unknown key; {_right(name, known)}")
    return {name: known[name](part, f"{where}.{name}") for name, part in value.items()}


def _right(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"right would be one of: {', '.join(names)}"


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ScriptError(f"{where}: right would be a list, not {json.dumps(value)[:60]}")
    return value


def _as_is(value: Any, _where: str) -> Any:
    return value


def _lists(value: Any, where: str) -> tuple[Step, ...]:
    return _steps(value, where, READ)


def _contracts(value: Any, where: str) -> dict[str, int]:
    return _object(value, where, dict.fromkeys(value if isinstance(value, dict) else (), whole(1)))


def _users(value: Any, where: str) -> dict[str, User]:
    items = [_object(item, f"{where}[{i}]", USER) for i, item in enumerate(_list(value, where))]
    for i, item in enumerate(items):
        if not {"name", "password"} <= item.keys():
            raise ScriptError(f"{where}[{i}]: right would be a name and a password")
    return {item["name"]: User(**item) for item in items}


def _accounts(value: Any, where: str) -> frozenset[str]:
    return frozenset(text(item, where) for item in _list(value, where))


def _symptoms(value: Any, where: str) -> tuple[int, ...]:
    return tuple(whole(400, 599)(item, where) for item in _list(value, where)) or (408,)


def _effect(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return "before" if value else "none"
    return one_of("before", "after", "none")(value, where)


def _repeat(value: Any, where: str) -> int:
    return FOREVER if value is True else whole(1)(value, where)


def _shows(value: Any, where: str) -> tuple[dict[str, Any], ...]:
    listed = _list(value if isinstance(value, list) else [value], where)
    if not listed or not all(isinstance(item, dict) for item in listed):
        raise wrong(value, where, "an object of changed fields, or a list of them")
    return tuple(listed)


def _late_reject(value: Any, where: str) -> str:
    return "OtherExecutionRelated" if value is True else text(value, where)


def _reset(value: Any, where: str) -> str:
    return "before" if value is True else one_of("before", "after")(value, where)


def _garbage(value: Any, where: str) -> str:
    return "\x16\x03 this is not HTTP" if value is True else text(value, where)


def _drip(value: Any, where: str) -> Drip:
    known: dict[str, Reader] = {"bytes_per_second": number(0.01), "part": one_of("headers", "body")}
    return Drip(**_object(value, where, known))


_probability: Callable[[Any, str], float] = number(0, 1)
_span: Callable[[Any, str], Span] = span

DEFAULTS: Mapping[str, Reader] = {
    "seed": whole(-(2**62)),
    "token": text,
    "latency": _span,
    "read_latency": _span,
    "read_lag": _span,
    "settle": _span,
}
MIX: Mapping[str, Reader] = {
    "profile": one_of(*PROFILES),
    "partial_fill": _probability,
    "read_error": _probability,
    "read_drop": _probability,
    "slow_seconds": _span,
    **dict.fromkeys(FAULTS, _probability),
}
_TRAVEL: Mapping[str, Reader] = {
    "reply": _as_is,
    "status": whole(100, 999),
    "text": text,
    "headers": text_map,
    "location": text,
    "delay": at_least(0),
    "drop": one_of("before", "after"),
    "reset": _reset,
    "drip": _drip,
    "body_bytes": whole(0),
    "content_length": whole(0),
    "cut_body": whole(1),
    "garbage": _garbage,
    "gzip": flag,
    "repeat": _repeat,
}
POST: Mapping[str, Reader] = {
    **_TRAVEL,
    "reason": text,
    "failure_text": text,
    "with_command": flag,
    "effect": _effect,
    "effect_delay": at_least(0),
    "settle": at_least(0),
    "late_reject": _late_reject,
    "quiet": flag,
    "fill_first": flag,
    "fill_after": flag,
    "partial_fill": whole(1),
    "p-ticket": text,
    "p-time": at_least(0),
    "p-captcha": flag,
}
READ: Mapping[str, Reader] = {
    **_TRAVEL,
    "not_found": _repeat,
    "shows": _shows,
    "of": one_of("order", "command", "report", "fill"),
}
AUTH_STEP: Mapping[str, Reader] = {**_TRAVEL, "p-ticket": text, "p-time": at_least(0), "p-captcha": flag}
USER: Mapping[str, Reader] = {"name": text, "password": text, "sec": text, "accounts": _accounts}
AUTH: Mapping[str, Reader] = {
    "users": _users,
    "life": at_least(0),
    "most": whole(1),
    "most_failed": whole(1),
    "evicted": _symptoms,
    "logins": _as_is,
    "renewals": _as_is,
    "expire": flag,
}
TRAITS: Mapping[str, Reader] = {
    "action": one_of("Buy", "Sell"),
    "contractId": whole(1),
    "spreadDefinitionId": whole(1),
    "executionProviderId": whole(1),
    "ocoId": whole(1),
    "parentId": whole(1),
    "linkedId": whole(1),
    "admin": flag,
}
ORDER_NAMES = {"ordStatus": "status"}
ORDER: Mapping[str, Reader] = {
    **TRAITS,
    "id": whole(1),
    "from": whole(1),
    "count": whole(0),
    "account": text,
    "ordStatus": one_of(*STATUSES),
    "qty": whole(1),
    "filled": whole(0),
    "after": at_least(0),
    "every": at_least(0),
    "read_lag": at_least(0),
    "settle": at_least(0),
    "posts": _as_is,
    "reads": _as_is,
    "events": _as_is,
}
SCRIPT: Mapping[str, Reader] = {
    **dict.fromkeys(("defaults", "orders", "faults"), _as_is),
    "auth": auth,
    "lists": _lists,
    "contracts": _contracts,
}
