"""When a worker seals: at intervals while rows are added, and at its end. In no cancel's way."""

from contextlib import suppress
from datetime import timedelta

import structlog

from worker.audit.chain import Head
from worker.audit.seals import Sealer
from worker.audit.writer import AuditWriter
from worker.clock import monotonic
from worker.errors import AuditUnavailable, LedgerUnavailable
from worker.ledger.client import Ledger

# So much, at most and a look, can be rewritten before a seal tells; each seal of a busy fleet names all of its chains.
SEAL_EVERY = timedelta(seconds=60)
# A look costs a statement or two; the first of a fleet to find a seal due makes it.
LOOK_EVERY = timedelta(seconds=15)

log = structlog.get_logger()


class Sealing:
    """Seals this process's chain, and of the others' what the ledger was told: those that died have nobody else."""

    def __init__(self, sealer: Sealer, *, ledger: Ledger, audit: AuditWriter, writer: str) -> None:
        self._sealer = sealer
        self._ledger = ledger
        self._audit = audit
        self._writer = writer
        self._failing_since: timedelta | None = None

    def look(self) -> None:
        """Seal if it is time; AuditUnavailable if that cannot be."""
        try:
            self._require_database()
            if self._sealer.rested() >= SEAL_EVERY:
                self._seal()
        except Exception:
            self._failing_since = self._failing_since or monotonic()
            raise
        self._failing_since = None

    def finish(self) -> None:
        """Seal what there is; it is tried once, since the next worker seals it all the same."""
        if self._audit.head() == Head():
            return
        try:
            self._require_database()
            self._seal()
        except Exception as error:  # noqa: BLE001  # whatever it is: the process ends as it should
            log.warning("audit.not_sealed", reason=str(error))

    def failing(self) -> float:
        """For how many seconds sealing has failed; 0 while it works."""
        since = self._failing_since
        return 0.0 if since is None else (monotonic() - since).total_seconds()

    def _seal(self) -> None:
        heads = self._heads()
        made = self._sealer.seal(heads)
        if made is not None:
            log.info("audit.sealed", number=made.seq, digest=made.digest)

    def _heads(self) -> dict[str, Head]:
        heads: dict[str, Head] = {}
        with suppress(LedgerUnavailable):
            heads = {writer: Head(*head) for writer, head in self._ledger.heads().items()}
        own = self._audit.head()
        return {**heads, self._writer: own} if own.seq > 0 else heads

    def _require_database(self) -> None:
        """Rows of a journal are not sealed, and asking a database that is away only takes time."""
        if self._audit.journaling:
            raise AuditUnavailable("the audit's newest rows are in the journal")
