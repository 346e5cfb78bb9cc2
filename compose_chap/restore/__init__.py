"""Put a backup, or any dump of PostgreSQL, back: into a database beside the live one, and then the names are swapped.

The door is `restore.execute`. The command `restore` calls it, and `rehearse` reads its sources with it.
"""
