"""cancelq beside plain Celery and beside the bare wire: same machine, same run, same simulator."""
