"""The gaps are in the program, each in one place, and nothing in the program can make one fatal."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from worker import gaps
from worker.gaps import Gap, reached

ROOT = Path(__file__).parents[2]
PROGRAM = [
    path for part in ("worker", "models", "migrations") for path in sorted((ROOT / part).rglob("*.py"))
]


def test_each_gap_is_reached_in_one_place() -> None:
    places = Counter(
        ast.unparse(node.args[0])
        for path in PROGRAM
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "reached"
    )
    assert places == {f"Gap.{gap.name}": 1 for gap in Gap}


@pytest.mark.parametrize("gap", Gap)
def test_reaching_a_gap_does_nothing_where_nobody_listens(gap: Gap) -> None:
    assert gaps.observer is None
    reached(gap)


def test_nothing_in_the_program_listens() -> None:
    elsewhere = [path for path in PROGRAM if path.name != "gaps.py"]
    assert [path for path in elsewhere if "observer" in path.read_text()] == []
    tree = ast.parse((ROOT / "worker/gaps.py").read_text())
    imports = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imports == {"collections.abc", "enum"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.Global)]
