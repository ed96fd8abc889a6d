"""Other queues at the same job, in an environment of their own: imports neither cancelq's parts nor Celery."""
