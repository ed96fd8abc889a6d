"""Imported last by the server that understudies are forked from, and by nobody else.

What all of them would do anew is done: SQLAlchemy's mappers know each other, and no collector of theirs looks at (and
so copies) what they share.
"""

import gc

from sqlalchemy.orm import configure_mappers

configure_mappers()
gc.collect()
gc.freeze()
