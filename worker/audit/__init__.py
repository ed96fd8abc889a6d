"""The audit: facts on disk, chained and append-only; the only room with SQL in it."""
