"""Serves /metrics and /health to those who watch. Few at a time, and none of them for long."""

import json
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from worker.app.health import Health
from worker.clock import monotonic
from worker.errors import ConfigError
from worker.settings import Endpoint

log = structlog.get_logger()
# More at once would cost the cancels more than a scrape is worth.
MOST_AT_ONCE = 8
# Far above what an answer takes; whoever is slower is cut off.
TIME_EACH = timedelta(seconds=5)


class Monitor(ThreadingHTTPServer):
    """An HTTP server whose guests are bounded in number and in time."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, where: Endpoint, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._guests: dict[Any, timedelta] = {}
        self.address_family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        try:
            super().__init__(where, Asked)
        except OSError as error:
            raise ConfigError(
                f"CANCELQ_METRICS_PORT: cannot listen at {where.host}:{where.port}: {error.strerror}"
            ) from error

    def begin(self, health: Callable[[], Health]) -> None:
        """Answer from now on."""
        self.health = health
        threading.Thread(target=self.serve_forever, name="monitor", daemon=True).start()
        host, port = self.socket.getsockname()[:2]
        log.info("monitor.serving", url=f"http://{f'[{host}]' if ':' in host else host}:{port}/")

    def server_bind(self) -> None:
        """Without a look-up of this host's name, which may take long."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        return len(self._guests) < MOST_AT_ONCE

    def process_request(self, request: Any, client_address: Any) -> None:
        self._guests[request] = monotonic() + TIME_EACH
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the host gives no thread: this one then answers, within the same bound
            self.process_request_thread(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._guests.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called twice a second."""
        now = monotonic()
        for guest, until in list(self._guests.items()):
            if now > until:
                self._guests.pop(guest, None)
                with suppress(OSError):
                    guest.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """A guest that hangs up is no news."""
        error = sys.exception()
        if not isinstance(error, OSError):
            log.error("monitor.broke", error=repr(error))


class Asked(BaseHTTPRequestHandler):
    """One question."""

    server: Monitor
    server_version = "cancelq"
    sys_version = ""
    timeout = TIME_EACH.total_seconds()

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.server.registry))
            case "/health":
                health = self.server.health()
                told = {
                    "status": "green" if health.green else "red",
                    "reasons": health.reasons,
                    "notes": health.notes,
                }
                self._answer(200 if health.green else 503, "application/json", json.dumps(told).encode())
            case _:
                self._answer(404, "text/plain", b"/metrics or /health\n")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Scrapes are no news."""
