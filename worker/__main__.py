"""`python -m worker` is `cancelq`."""

from worker.cli import main

main(prog_name="cancelq")
