"""All who watch one worker process: Flower's news, metrics, health. Built before the work, served beside it."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta

import structlog

from worker.app.health import Pulse, examine
from worker.app.metrics import LedgerCollector, Meter, Reading
from worker.app.monitor import Monitor
from worker.app.news import News
from worker.settings import Settings
from worker.work.crew import Crew
from worker.work.happening import Happening

log = structlog.get_logger()


class Watchers:
    """Tell it what happens; nothing that goes wrong in here reaches the work."""

    def __init__(self, settings: Settings, *, policy_version: str) -> None:
        self.news = News()
        self._pulse = Pulse(settings.total_timeout)
        self._meter = Meter(
            ledger=settings.ledger,
            live=str(settings.is_live).lower(),
            dry_run=str(settings.dry_run).lower(),
            policy=policy_version,
        )
        self._where = settings.metrics_port
        self._monitor: Monitor | None = None

    def __call__(self, happening: Happening) -> None:
        for listener in (self.news, self._pulse, self._meter):
            try:
                listener(happening)
            except Exception:
                log.exception("watcher.broke", watcher=type(listener).__name__)

    def listen(self, opened: ExitStack) -> None:
        """Take the port, if one is set; ConfigError if it can't be had. Whoever asks is answered once `serve` is called."""
        if self._where is not None:
            self._monitor = Monitor(self._where, self._meter.registry)
            opened.callback(self._monitor.server_close)

    def serve(self, crew: Crew, beats: Callable[[], Mapping[str, timedelta]], opened: ExitStack) -> None:
        """Answer /metrics and /health."""
        if self._monitor is None:
            return
        sources = {
            Reading.IN_HAND: lambda: float(len(crew.hand)),
            Reading.FLOWER_DROPPED: lambda: float(self.news.dropped),
        }
        if (journal := crew.journal) is not None:
            sources[Reading.JOURNAL_DEPTH] = lambda: float(journal.depth() if journal.exists else 0)
        if crew.sealing is not None:
            sources[Reading.SEALING_FAILING] = crew.sealing.failing
        self._meter.registry.register(LedgerCollector(crew.ledger, sources))
        self._monitor.begin(lambda: examine(self._pulse, beats(), crew.ledger))
        opened.callback(self._monitor.shutdown)
