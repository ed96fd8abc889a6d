"""Where Redis is: the configured one, or the embedded Valkey of CANCELQ_HOME."""

from collections.abc import Iterator
from contextlib import contextmanager

from worker.embedded.valkey import ensure
from worker.errors import ConfigError
from worker.settings import Settings


@contextmanager
def redis_place(settings: Settings) -> Iterator[str]:
    """Yield the address (it may carry a password: never print it); what was started for this ends with it."""
    if settings.redis_url is not None:
        yield settings.redis_url.get_secret_value()
        return
    try:
        server = ensure(settings.home)
    except OSError as error:
        raise ConfigError(f"CANCELQ_HOME: {settings.home} cannot be used: {error.strerror}") from error
    with server:
        yield server.url


def is_known(settings: Settings) -> bool:
    """Whether there is a ledger to ask: a configured one, or an embedded one that was used before."""
    return settings.redis_url is not None or (settings.home / "valkey").is_dir()
