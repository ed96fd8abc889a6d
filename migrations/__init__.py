"""How the audit's schema grows; run by `cancelq migrate` or by Alembic's own command line."""
