"""PostgreSQL's server and tools, inside its container: SQL, pg_dump, pg_restore, and what a dump holds.

Start at `server.Server`. Nothing here knows of CHAP's versions or of Compose.
"""
