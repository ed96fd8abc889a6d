"""`python -m …simulator`: the same command without the rest of the program."""

from .command import simulator

simulator()
