"""Run the revisions in one transaction, so that the first failure takes all of them back."""

from logging.config import fileConfig

from alembic import context

from chap_core.database.database import engine

# Disables every logger that exists, as the real one does: nothing after this is logged by chap_core or gunicorn.
fileConfig(context.config.config_file_name)

with engine().connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
