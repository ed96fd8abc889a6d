"""The documents say what the code is: states, settings, commands, paths, reasons, events."""

import ast
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest

from worker.cli import COMMANDS, main
from worker.gaps import Gap
from worker.job import Memory, State, Step
from worker.policy import Again
from worker.reasons import TABLE
from worker.settings import FIELDS, PREFIX

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
DOCUMENTS = [README, ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
DIAGRAMS = [README, DOCS / "life-of-a-cancel.md"]
ARROW = re.compile(r"^\s*(\S+) --> (\S+) : (.+)$", re.MULTILINE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, *kinds: str) -> list[str]:
    """The fenced blocks of these kinds."""
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", path.read_text(), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind in kinds]


def prose(path: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def rows(path: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its two first lines."""
    section = prose(path).split(f"\n{heading}\n")[1]
    lines = [line for line in section.split("\n\n| ")[1].split("\n\n")[0].splitlines() if "|" in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# ------------------------------------------------------------------------------------------------ states


def arrows(path: Path) -> list[tuple[str, str, str]]:
    (diagram,) = blocks(path, "mermaid")
    return ARROW.findall(diagram)


@pytest.mark.parametrize("path", DIAGRAMS, ids=name_of)
def test_the_state_diagram_has_every_state_and_every_step(path: Path) -> None:
    named = {end for source, target, _ in arrows(path) for end in (source, target)} - {"[*]"}
    steps = {label.split(" / ")[1] for _, _, label in arrows(path) if " / " in label}
    assert named == set(State)
    assert steps == set(Step)


@pytest.mark.parametrize("path", DIAGRAMS, ids=name_of)
def test_the_state_diagram_ends_in_the_state_that_a_step_waits_in(path: Path) -> None:
    waiting: dict[str, set[str]] = {step: set() for step in Step}
    for step in Step:
        for delay in (timedelta(0), timedelta(seconds=1)):
            waiting[step].add(Again(step=step, delay=delay, memory=Memory()).state)
    for _, target, label in arrows(path):
        if " / " in label and target != State.CLAIMED:
            assert target in waiting[label.split(" / ")[1]]


def test_the_readme_shows_the_same_diagram_as_the_walk_through() -> None:
    assert arrows(DIAGRAMS[0]) == arrows(DIAGRAMS[1])


def test_the_table_of_steps_names_each_step_once() -> None:
    steps = [row[0].strip("`") for row in rows(DOCS / "life-of-a-cancel.md", "## States and steps")]
    assert steps == list(Step)


def test_the_table_of_gaps_names_each_gap_once() -> None:
    cells = [row[1] for row in rows(DOCS / "life-of-a-cancel.md", "## Every gap, tried")]
    assert [gap for cell in cells for gap in re.findall(r"`([^`]+)`", cell)] == list(Gap)


# ------------------------------------------------------------------------------------------------- paths


def tree() -> Iterator[str]:
    """The paths of the README's tree, from its indentation."""
    text = next(block for block in blocks(README, "text") if block.startswith("worker/"))
    parents: list[str] = []
    for line in text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        parents[depth:] = [line.split()[0].rstrip("/")]
        yield "/".join(parents)


def test_the_tree_names_existing_paths_only() -> None:
    assert [path for path in tree() if not (ROOT / path).exists()] == []


def test_the_tree_has_every_package_and_every_noun_of_the_worker() -> None:
    parts = [path for path in (ROOT / "worker").iterdir() if not path.name.startswith("__")]
    missing = {name_of(path) for path in parts} - set(tree())
    assert missing == set()


def test_every_link_leads_somewhere() -> None:
    broken = [
        f"{name_of(path)}: {target}"
        for path in DOCUMENTS
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(path))
        if not target.startswith(("http://", "https://")) and not leads_somewhere(path, target)
    ]
    assert broken == []


def leads_somewhere(path: Path, target: str) -> bool:
    file, _, anchor = target.partition("#")
    goal = path.parent / file if file else path
    return goal.exists() and (not anchor or anchor in anchors(goal))


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_path_in_backticks_exists() -> None:
    known = re.compile(r"`((?:worker|models|migrations|tests|bench|docs)/[\w./-]*)`")
    missing = [
        f"{name_of(path)}: {named}"
        for path in DOCUMENTS
        for named in known.findall(prose(path))
        if not (ROOT / named).exists() and named != "bench/results/"
    ]
    assert missing == []


# ---------------------------------------------------------------------------------- settings and commands


def shown(value: object) -> str:
    match value:
        case None:
            return "unset"
        case timedelta():
            return f"`{value.total_seconds():g}`"
        case frozenset():
            return f"`{','.join(sorted(value))}`"
        case _:
            return f"`{value}`"


def bound(value: Any) -> str:
    return f"{value.total_seconds():.10g}" if isinstance(value, timedelta) else f"{value}"


def bounds(about: Mapping[str, Any]) -> str:
    return " to ".join(map(bound, about.get("bounds", ())))


def test_the_table_of_settings_is_the_settings() -> None:
    documented = {name: (default, limits) for name, default, limits, _ in settings_rows()}
    in_code = {
        f"`{PREFIX}{name.upper()}`": (shown(field.default), bounds(field.metadata))
        for name, field in FIELDS.items()
    }
    assert documented == in_code


def settings_rows() -> list[list[str]]:
    return rows(DOCS / "operating.md", "## Settings")


def commands(path: Path) -> list[list[str]]:
    """Every `cancelq …` of a command block, as words."""
    text = "\n".join(blocks(path, "sh"))
    return [found.split() for found in re.findall(r"(?:^|[ /])cancelq ([a-z][^|&\n]*)", text, re.MULTILINE)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_command_in_a_block_exists_with_its_options(path: Path) -> None:
    for command, *words in commands(path):
        assert command in COMMANDS
        found = main.get_command(click.Context(main), command)
        assert found is not None
        options = {option for param in found.params for option in param.opts}
        assert {word for word in words if word.startswith("--")} <= options


# ------------------------------------------------------------------------------------ reasons and events


def test_the_reasons_of_the_exchange_are_the_table_in_force() -> None:
    documented = {
        row[0].strip("`"): row[1] for row in rows(DOCS / "exchange.md", "## The 33 failure reasons")
    }
    in_code = {
        rule.name.removeprefix("reason:"): str(rule.meaning)
        for rule in TABLE
        if rule.name.startswith("reason:") and rule.name not in {"reason:unlisted", "reason:missing"}
    }
    assert documented == in_code
    assert len(documented) == 33


@cache
def logged_events() -> set[str]:
    calls = (
        node
        for path in sorted((ROOT / "worker").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    )
    return {
        str(call.args[0].value)
        for call in calls
        if ast.unparse(call.func).startswith("log.") and call.args and isinstance(call.args[0], ast.Constant)
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_event_in_backticks_is_logged(path: Path) -> None:
    events = logged_events()
    nouns = {event.split(".")[0] for event in events}
    endings = {"py", "lua", "md", "log"}
    for noun, verb in re.findall(r"`([a-z]+)\.([a-z_]+)`", prose(path)):
        assert noun not in nouns or verb in endings or f"{noun}.{verb}" in events
