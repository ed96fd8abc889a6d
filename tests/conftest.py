"""Makes the parts of `tests/parts` available to every test."""

pytest_plugins = [
    "tests.parts.databases",
    "tests.parts.doctor",
    "tests.parts.exchange",
    "tests.parts.fleet",
    "tests.parts.receiver",
    "tests.parts.tls",
    "tests.parts.up",
    "tests.parts.valkey",
    "tests.parts.why",
]
