"""add_backtest_target_column"""

import sqlalchemy as sa
from alembic import op
from existing import add_column, has_unique

revision = "e7f8a3b4c5d6"
down_revision = "d6e7f8a3b4c5"

TABLE = "backtestspecification"
UNIQUE = "uq_backtestspecification_params"


def upgrade() -> None:
    add_column(TABLE, sa.Column("target_column", sa.String()))
    op.execute(f"UPDATE {TABLE} SET target_column = 'disease_cases' WHERE coalesce(target_column, '') = ''")
    op.alter_column(TABLE, "target_column", nullable=False)
    if has_unique(TABLE, UNIQUE):
        op.drop_constraint(UNIQUE, TABLE)
    op.create_unique_constraint(
        UNIQUE,
        TABLE,
        ["dataset_id", "target_column", "n_periods", "n_splits", "stride", "n_retrain", "future_weather_provider"],
    )
