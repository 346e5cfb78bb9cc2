"""PostgreSQL's server and tools, inside its container: SQL, pg_dump, pg_restore, and what a dump holds.

The door is `server.Server`. Nothing here knows of CHAP's versions or of Compose.
"""
