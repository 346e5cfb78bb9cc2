"""add_prediction_setup"""

import sqlalchemy as sa
from alembic import op

revision = "e5f6a7b8c9d0"
down_revision = "d4e5f6a7b8c9"


def upgrade() -> None:
    # No release guards this one: it stops every database that is marked with an older revision.
    op.create_table(
        "predictionsetup",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created", sa.DateTime()),
        sa.Column("backtest_id", sa.Integer(), sa.ForeignKey("backtest.id"), nullable=False, unique=True),
        sa.Column("configured_model_id", sa.Integer(), sa.ForeignKey("configuredmodeldb.id"), nullable=False),
        sa.Column("start_period", sa.String()),
        sa.Column("org_units", sa.JSON()),
        sa.Column("covariate_sources", sa.JSON()),
        sa.Column("period_type", sa.String()),
        sa.Column("schedule_cron_expression", sa.String()),
        sa.Column("schedule_enabled", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("quantile_targets", sa.JSON()),
    )
    op.add_column("prediction", sa.Column("prediction_setup_id", sa.Integer(), sa.ForeignKey("predictionsetup.id")))
