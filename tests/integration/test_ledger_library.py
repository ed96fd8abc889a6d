"""The functions library is upgraded in place and never downgraded, whoever loads it."""

import threading
from collections.abc import Iterator

import pytest
from redis import Redis

from tests.parts.valkey import PrivateValkey
from worker.errors import LibraryTooNew
from worker.ledger import library

OURS = library.version_of(library.source())


def version(number: int) -> str:
    return library.source().replace(f"local VERSION = {OURS}", f"local VERSION = {number}")


@pytest.fixture
def server(private_valkey: PrivateValkey) -> Iterator["Redis"]:
    with Redis.from_url(private_valkey.url, decode_responses=True) as redis:
        yield redis


def test_a_fresh_server_gets_the_library(server: "Redis") -> None:
    assert library.loaded_version(server) == 0
    assert library.load(server) == OURS
    assert library.loaded_version(server) == OURS


def test_an_older_library_is_upgraded_in_place(server: "Redis") -> None:
    library.load(server, version(OURS - 1))
    assert library.load(server) == OURS


def test_a_newer_compatible_library_is_left_alone(server: "Redis") -> None:
    library.load(server, version(OURS + 1))
    assert library.load(server) == OURS + 1
    assert library.loaded_version(server) == OURS + 1


def test_a_library_of_a_newer_generation_is_too_new(server: "Redis") -> None:
    library.load(server, version(OURS + library.GENERATION))
    with pytest.raises(LibraryTooNew, match="upgrade this cancelq"):
        library.load(server)
    assert library.loaded_version(server) == OURS + library.GENERATION


def test_of_loaders_at_once_the_newest_wins(private_valkey: PrivateValkey) -> None:
    texts = [version(OURS + n) for n in range(4)] * 2
    start = threading.Barrier(len(texts))

    def load(text: str) -> None:
        with Redis.from_url(private_valkey.url, decode_responses=True) as redis:
            start.wait()
            library.load(redis, text)

    threads = [threading.Thread(target=load, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Redis.from_url(private_valkey.url, decode_responses=True) as redis:
        assert library.loaded_version(redis) == OURS + 3


def test_a_loader_that_looked_before_the_other_loaded_looks_again(server: "Redis") -> None:
    """The race itself: the newer library arrives between the older loader's look and its load."""

    class Late(Redis):
        def fcall(self, *arguments: object) -> object:
            answer = 0 if first else super().fcall(*arguments)  # type: ignore[arg-type]
            if first:
                first.clear()
                library.load(server, version(OURS + 1))
            return answer

    first = [True]
    with Late(connection_pool=server.connection_pool) as late:
        assert library.load(late) == OURS + 1
    assert library.loaded_version(server) == OURS + 1


def test_the_library_survives_a_kill_of_the_server(private_valkey: PrivateValkey) -> None:
    with Redis.from_url(private_valkey.url, decode_responses=True) as redis:
        library.load(redis)
    private_valkey.kill()
    with Redis.from_url(private_valkey.start(), decode_responses=True) as redis:
        assert library.loaded_version(redis) == OURS
