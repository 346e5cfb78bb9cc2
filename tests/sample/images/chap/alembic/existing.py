"""What the database has already: the start-up adds columns and tables before a revision runs."""

import sqlalchemy as sa
from alembic import op


def has_table(table: str) -> bool:
    """Return whether the table is there."""
    return _inspector().has_table(table)


def has_column(table: str, column: str) -> bool:
    """Return whether the table has the column."""
    return column in {each["name"] for each in _inspector().get_columns(table)}


def has_unique(table: str, name: str) -> bool:
    """Return whether the table has a unique constraint of this name."""
    return name in {each["name"] for each in _inspector().get_unique_constraints(table)}


def has_foreign_key(table: str, referred: str) -> bool:
    """Return whether a foreign key, whatever its name, leads from one table to the other."""
    return referred in {each["referred_table"] for each in _inspector().get_foreign_keys(table)}


def add_column(table: str, column: sa.Column) -> None:
    """Add the column unless the table has it."""
    if not has_column(table, column.name):
        op.add_column(table, column)


def _inspector() -> sa.Inspector:
    return sa.inspect(op.get_bind())
