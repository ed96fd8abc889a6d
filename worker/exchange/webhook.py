"""Posts alerts to CANCELQ_ALERT_URL. Its answer matters to nobody but the next try."""

from datetime import timedelta

from requests import Request

from worker.exchange.client import no_permit
from worker.exchange.line import Line, Timeouts
from worker.exchange.wire import Wire
from worker.reply import Answered
from worker.secret import SecretStr

# Short: the same alert is tried again, and the worker must be able to stop.
TIMEOUTS = Timeouts(connect=timedelta(seconds=2), read=timedelta(seconds=3), total=timedelta(seconds=4))
ANSWER_CAP = 4096


class Webhook:
    """One receiver of alerts; its address may carry a secret and is never shown."""

    def __init__(self, url: SecretStr) -> None:
        self._url = url
        self._line = Line(TIMEOUTS)

    def post(self, alert: bytes) -> str | None:
        """Deliver one JSON text; what went wrong, or None once the receiver has taken it."""
        headers = {"Content-Type": "application/json", "User-Agent": "cancelq"}
        request = Request("POST", self._url.get_secret_value(), headers=headers, data=alert).prepare()
        reply = self._line.send(request, Wire(no_permit, TIMEOUTS.total), ANSWER_CAP)
        if not isinstance(reply, Answered):
            return type(reply).__name__
        return None if 200 <= reply.status < 300 else f"HTTP {reply.status}"

    def close(self) -> None:
        self._line.close()
