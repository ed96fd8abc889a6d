"""The exchange, as a real HTTP server that misbehaves on demand and keeps the truth. Knows nothing of the rest."""
