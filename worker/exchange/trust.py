"""Whose certificates are believed: those of the public CAs, or of REQUESTS_CA_BUNDLE. Always verifies."""

import os
import ssl
from functools import cache
from pathlib import Path

from requests.adapters import DEFAULT_CA_BUNDLE_PATH

from worker.errors import ConfigError

# The name that `requests` gave it; our own adapter would not look.
BUNDLE = "REQUESTS_CA_BUNDLE"


def trusted() -> ssl.SSLContext:
    """Serves all connections of the process. ConfigError if the bundle cannot be read."""
    return _context(os.environ.get(BUNDLE) or DEFAULT_CA_BUNDLE_PATH)


@cache
def _context(bundle: str) -> ssl.SSLContext:
    """Read once: the public CAs take about 15 ms, and `requests` reads them for each new connection."""
    is_folder = Path(bundle).is_dir()
    try:
        context = ssl.create_default_context(
            cafile=None if is_folder else bundle, capath=bundle if is_folder else None
        )
    except OSError as error:
        raise ConfigError(f"{BUNDLE}: no CA certificates can be read from {bundle}: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    # With OpenSSL 3 Python asks for the lenience of 1.1: an end without TLS's goodbye, which anybody on the way can make,
    # would be an end like any other.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    return context
