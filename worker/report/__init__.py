"""The audit report: built as values once, rendered as a table, JSON, CSV or an HTML page."""
