"""Imports run down only, and each technology has one room."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# From the roof down; a file may import its own floor and those below.
FLOORS: list[set[str]] = [
    {"cli", "__main__"},
    {"demo"},
    {"app", "doctor"},
    {"report"},
    {"work"},
    {"ledger", "exchange", "audit", "embedded"},
    {"policy"},
    {"verdict"},
    {"reasons", "reply", "settings", "job", "logins"},
    {"clock", "errors", "gaps", "rate_limit", "secret", "session"},
]
ROOMS = {
    "redis": {"worker/ledger"},
    "requests": {"worker/exchange"},
    "sqlalchemy": {
        "worker/audit",
        "models",
        "migrations",
        "worker/work/crew.py",
        "worker/report",
    },
    "alembic": {"worker/audit", "migrations"},
    "celery": {"worker/app"},
    "flower": {"worker/app"},
    "tornado": {"worker/app"},
    "kombu": {"worker/app"},
    "prometheus_client": {"worker/app"},
    "tenacity": {"worker/work", "worker/audit", "worker/ledger"},
    "aiohttp": {"worker/simulator"},
    "rich": {"worker/cli", "worker/report"},
    "jinja2": {"worker/report"},
    "click": {"worker/cli", "worker/simulator"},
}


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path: Path) -> Iterator[str]:
    """Modules imported when the program runs; what only a type checker imports opens no door."""
    tree = ast.parse(path.read_text())
    for_types = {id(inner) for node in ast.walk(tree) if is_for_types(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def floor(part: str) -> int:
    return next(i for i, parts in enumerate(FLOORS) if part in parts)


@pytest.mark.parametrize("path", sources("worker"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_down_only(path: Path) -> None:
    own = path.relative_to(ROOT / "worker").parts[0].removesuffix(".py")
    if own in {"simulator", "__init__"}:
        return
    for module in imported(path):
        parts = module.split(".")
        if parts[0] == "worker" and len(parts) > 1 and parts[1] != own:
            allowed = own == "cli" and parts[1] == "simulator"
            assert allowed or floor(parts[1]) >= floor(own), f"{path.name} may not import {module}"


@pytest.mark.parametrize("path", sources("worker/simulator"), ids=lambda p: p.name)
def test_the_simulator_knows_nothing_of_the_rest(path: Path) -> None:
    assert not [m for m in imported(path) if m.split(".")[0] in {"worker", "models", "migrations"}]


@pytest.mark.parametrize("path", sources("models"), ids=lambda p: p.name)
def test_the_models_know_nothing_of_the_worker(path: Path) -> None:
    assert not [m for m in imported(path) if m.split(".")[0] in {"worker", "migrations"}]


@pytest.mark.parametrize(
    "path", sources("worker", "models", "migrations"), ids=lambda p: str(p.relative_to(ROOT))
)
def test_each_technology_has_one_room(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    for module in imported(path):
        rooms = ROOMS.get(module.split(".")[0])
        assert rooms is None or any(place.startswith(room) for room in rooms), f"{place} imports {module}"
