"""Every answer a cancel can get, as tables: what its POSTs and reads meet, and what must come of it."""
