"""Restore a backup, or any dump of PostgreSQL: into a side database, whose name is then swapped with the live one.

Start at `restore.execute`. The command `restore` calls it; `verify`, `rehearse`, `recover` and copies read
dumps with it.
"""
