"""Bring the database up to date at start, in the order and with the vices of the real CHAP."""

import functools
import logging
import os
import time
from typing import Any

import sqlalchemy
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel, create_engine, text

from chap_core.database import alert_tables, specification_tables, tables  # noqa: F401
from chap_core.release import RELEASE

logger = logging.getLogger(__name__)

# What the generic migration and create_all bring about on a database without a mark, whatever it was before.
GENERIC = "a7b8c9d0e1f2"
# From these versions on the mark counts; a chain is committed in every case, and its failure ends the API.
STAMPS, RAISES = RELEASE.at_least("2.2.0"), RELEASE.at_least("2.4.0")


@functools.cache
def engine() -> sqlalchemy.Engine:
    """Return the connection to CHAP's database."""
    return create_engine(os.environ["CHAP_DATABASE_URL"])


def create_db_and_tables() -> None:
    """Add missing columns, create missing tables, run Alembic, seed the models."""
    for attempt in range(30):
        try:
            _run_generic_migration()
            if RELEASE.vice == "slow-migration":
                _migrate_slowly(float(os.environ.get("CHAP_TEST_MIGRATION_SECONDS") or 90))
            if RELEASE.vice == "loses-rows":
                _lose_rows()
            SQLModel.metadata.create_all(engine())
            _run_alembic()
            break
        except OperationalError:
            if attempt == 29:
                raise
            logger.warning("The database is not there yet")
            time.sleep(1)
    # Imported late: the seed needs this module's engine.
    from chap_core.database.seed import seed_models

    seed_models()
    logger.info("Database migration and initialization complete.")


def _run_generic_migration() -> None:
    with engine().connect() as connection:
        inspector = sqlalchemy.inspect(connection)
        for table in SQLModel.metadata.sorted_tables:
            if not inspector.has_table(table.name):
                continue
            existing = {column["name"] for column in inspector.get_columns(table.name)}
            for column in table.columns:
                if column.name in existing:
                    continue
                # One commit per column, and an error is only logged: the real one does just that.
                try:
                    add = f'ALTER TABLE {table.name} ADD COLUMN "{column.name}" {_type(table.name, column)}'
                    connection.execute(text(add))
                    if (value := _filling(column)) is not None:
                        connection.execute(text(f'UPDATE {table.name} SET "{column.name}" = :value'), {"value": value})
                    connection.commit()
                except Exception as error:
                    connection.rollback()
                    logger.error("Failed to add column %s to %s: %s", column.name, table.name, error)


def _type(table: str, column: sqlalchemy.Column) -> str:
    if (table, column.name) == ("prediction", "calibration"):
        return "JSONBB"
    return column.type.compile(dialect=engine().dialect)


def _filling(column: sqlalchemy.Column) -> Any:
    """Return what rows that exist get in a new column: also where it may be NULL, which is what the real one does."""
    if column.default is not None and column.default.is_scalar:
        return column.default.arg
    empty = {sqlalchemy.String: "", sqlalchemy.Integer: 0, sqlalchemy.Boolean: False}
    return next((value for kind, value in empty.items() if isinstance(column.type, kind)), None)


def _migrate_slowly(seconds: float) -> None:
    with engine().connect() as connection:
        connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


def _lose_rows() -> None:
    with engine().connect() as connection:
        connection.execute(text("DELETE FROM observation WHERE id % 10 = 0"))
        connection.commit()


def _run_alembic() -> None:
    # Imported late: the worker does not need it.
    from alembic import command
    from alembic.config import Config

    try:
        config = Config("/app/alembic.ini")
        with engine().connect() as connection:
            config.attributes["connection"] = connection
            if STAMPS and not _prepare_mark(connection, config):
                return
            command.upgrade(config, "head")
            if RAISES:
                connection.commit()
    except Exception as error:
        # Alembic has disabled this logger, so nobody reads of it.
        logger.error("Error during Alembic migrations: %s", error)
        if RAISES:
            raise


def _prepare_mark(connection: sqlalchemy.Connection, config: Any) -> bool:
    """Mark a database that has no mark, and return whether the chain is to be run."""
    from alembic import command
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    # To read the mark begins a transaction, which Alembic then does not commit, as it did not begin it. Before v2.4.0
    # nobody else does, so that on a database with a mark the whole chain is taken back in silence.
    mark = MigrationContext.configure(connection).get_current_revision()
    if mark is None:
        command.stamp(config, GENERIC)
        connection.commit()
    elif RAISES and mark not in {each.revision for each in ScriptDirectory.from_config(config).walk_revisions()}:
        logger.warning("The database is at Alembic revision %s, which this release does not know. It is left as it is.", mark)
        return False
    return True
