"""How the audit's schema grows; run by `cancelq migrate` or by Alembic's own command line."""

from migrations.views_0001 import VIEWS

__all__ = ["REVISIONS", "VIEWS"]

# All revisions, oldest first: whoever only asks for the newest one needs no Alembic. VIEWS are as the newest leaves them.
REVISIONS = ("0001", "0002")
