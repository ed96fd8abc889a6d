"""What can go wrong, as one tree. Results of a cancel are values, never exceptions.

CancelqError
├── ConfigError            a setting is wrong; names the setting and what would be right
├── EnqueueError           a request's fate at the door; carries .request_id
│   ├── NotStored          certainly not in the ledger
│   └── MaybeStored        perhaps in the ledger; repeating with the same request id is safe
├── LedgerUnavailable      Redis did not answer within its bound
├── SpoolUnusable          a producer's file did not take a request; says why
├── Refused                what an operator asked is not done; says why
├── LibraryTooNew          the ledger's functions are newer than this program
├── AuditUnavailable       the database did not take a commit within its bound
├── FactRejected           the database will never take this one fact
├── LeaseLapsed            the right to send was lost before the first byte left
├── NotRead                a list of the exchange's could not be read within its bound; says why
├── NotAsWritten           the audit's rows cannot be read as what they are; names the first that was changed
└── Withheld               a login may make no call now: lock-out, penalty, or its budget is spent
"""


class CancelqError(Exception):
    """Everything that cancelq raises on purpose."""


class ConfigError(CancelqError):
    """A setting is missing, wrong or contradicts another one."""


class EnqueueError(CancelqError):
    """A cancel request was not acknowledged; `request_id` makes a repetition safe."""

    def __init__(self, message: str, request_id: str) -> None:
        super().__init__(message)
        self.request_id = request_id


class NotStored(EnqueueError):
    """The request certainly did not reach the ledger."""


class MaybeStored(EnqueueError):
    """The request left, its acknowledgement never came: it may be in the ledger."""


class LedgerUnavailable(CancelqError):
    """Redis refused, vanished or did not answer in time."""


class SpoolUnusable(CancelqError):
    """The file that keeps requests while Redis is away cannot be written, read or locked in time."""


class Refused(CancelqError):
    """What an operator asked is not done, and nothing was changed."""


class LibraryTooNew(CancelqError):
    """The server carries a newer functions library; an older program must not replace it."""


class AuditUnavailable(CancelqError):
    """The database could not commit now; the same facts may be tried again."""


class FactRejected(CancelqError):
    """The database refuses this one fact for good (its neighbours were stored)."""


class LeaseLapsed(CancelqError):
    """The claim ran out before the first byte was written; nothing was sent."""


class NotRead(CancelqError):
    """The exchange's lists could not be read, so nothing is known of what is open."""


class NotAsWritten(CancelqError):
    """A row of the audit holds what nobody wrote there, and cannot be read."""


class Withheld(CancelqError):
    """The login may make no call now; nothing was sent."""
