"""The printed ACL rules name exactly the commands that the functions' sources use."""

import re
from collections.abc import Iterator
from importlib.resources import files

import pytest

from worker.ledger import library
from worker.ledger.access import CLIENT_COMMANDS, PRODUCER, PRODUCER_FUNCTIONS, WORKER, probe_calls, rules

FOLDER = files("worker.ledger") / "functions"
CALL = re.compile(r"(?:\bredis\.p?call|\bwrite)\(\s*(?:'(\w+)'|([^'\s]))")
TOP_LEVEL = re.compile(r"^local function (\w+)\(.*?^end$", re.MULTILINE | re.DOTALL)
# The one place where the command is not written down.
DISPATCH = "return redis.call(...)"


def text() -> str:
    return re.sub(r"--.*", "", library.source())


def bodies() -> dict[str, str]:
    """Each top-level function's text, by name."""
    return {found[1]: found[0] for found in TOP_LEVEL.finditer(text())}


def commands(source: str) -> set[str]:
    return {found[1].lower() for found in CALL.finditer(source) if found[1]}


def reachable(function: str, seen: set[str] | None = None) -> Iterator[str]:
    """The commands that a function and all it calls may use."""
    seen = set() if seen is None else seen
    seen.add(function)
    known = bodies()
    body = known[function].partition("\n")[2]
    yield from commands(body)
    for name in known:
        if name not in seen and re.search(rf"(?<!function )\b{name}\(", body):
            yield from reachable(name, seen)


def registered() -> dict[str, str]:
    """The public functions, and the local ones behind them."""
    plain = re.findall(r"register_function\('(\w+)', (\w+)\)", text())
    full = re.findall(r"function_name = '(\w+)', callback = (\w+)", text())
    return dict([*plain, *full])


def test_every_command_is_written_down_where_it_is_called() -> None:
    hidden = [found[0] for found in CALL.finditer(text().replace(DISPATCH, "")) if found[2]]
    assert hidden == ["write(."]  # the dispatcher's own head
    assert all(name in registered() for name in PRODUCER_FUNCTIONS)


def test_a_producer_gets_what_its_functions_use_and_no_more() -> None:
    used = {name for function in PRODUCER_FUNCTIONS for name in reachable(registered()[function])}
    assert used == set(PRODUCER.functions_use)


def test_a_worker_gets_what_all_functions_use_and_no_more() -> None:
    assert commands(text()) == set(WORKER.functions_use)


def test_the_walk_finds_what_hides_behind_other_functions() -> None:
    assert {"time", "lpush", "rpush", "hget"} <= set(reachable("enqueue"))
    assert "zcount" not in set(reachable("enqueue"))


@pytest.mark.parametrize("role", [PRODUCER, WORKER], ids=lambda role: role.name)
def test_no_role_may_do_what_hurts_others(role: object) -> None:
    (line,) = [line for line in rules("cancelq") if role.name in line]  # type: ignore[attr-defined]
    for word in (
        "flushall",
        "keys",
        "+@",
        "allkeys",
        "allcommands",
        "config|set",
        "shutdown",
        "+del ",
        "eval",
    ):
        assert word not in line


def test_the_rules_keep_to_the_ledgers_keys() -> None:
    producer, worker = rules("mine")
    assert re.findall(r"~\S+", producer) == ["~{mine}", "~{mine}:*"]
    assert re.findall(r"~\S+", worker) == [
        *("~{mine}", "~{mine}:*"),
        f"~{library.LOAD_KEY}",
    ]
    assert "&" not in producer
    assert re.findall(r"&\S+", worker) == ["&/*.celeryev/*"]
    assert ">CHANGE-ME" in producer
    assert ">CHANGE-ME" in worker


def test_older_servers_get_rules_that_they_understand() -> None:
    assert "waitaof" not in " ".join(rules("cancelq", server=(7, 0)))
    assert "+waitaof" in " ".join(rules("cancelq", server=(7, 2)))


def test_every_command_of_a_worker_is_asked_for() -> None:
    asked = {name for name, _ in probe_calls("cancelq")}
    assert asked >= set(WORKER.functions_use) | {
        "fcall",
        "function|load",
        "config|get",
        "brpop",
        "publish",
    }
    assert CLIENT_COMMANDS
