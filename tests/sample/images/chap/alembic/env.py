"""Run the revisions on the connection that CHAP hands over, or on one of our own for the command `alembic`."""

import os
from logging.config import fileConfig

from alembic import context
from sqlalchemy import Connection, create_engine


def _run(connection: Connection) -> None:
    # Alembic commits only what it began itself: a connection that is in a transaction already is left uncommitted.
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()


# Disables every logger that exists, as the real one does: nothing after this is logged by chap_core or gunicorn.
fileConfig(context.config.config_file_name)

given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    with create_engine(os.environ["CHAP_DATABASE_URL"]).connect() as own:
        _run(own)
