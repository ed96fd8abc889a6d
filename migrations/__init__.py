"""How the audit's schema grows; run by `cancelq migrate` or by Alembic's own command line."""

# All revisions, oldest first: whoever only asks for the newest one needs no Alembic.
REVISIONS = ("0001", "0002")
