"""add_alert"""

import sqlalchemy as sa
from alembic import op
from existing import has_table

revision = "d6e7f8a3b4c5"
down_revision = "c5d6e7f8a3b4"


def upgrade() -> None:
    if has_table("alert"):
        return
    op.create_table(
        "alert",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("time_period", sa.String(), nullable=False),
        sa.Column("org_unit", sa.String(), nullable=False),
        sa.Column(
            "alert_policy_id", sa.Integer(), sa.ForeignKey("alertpolicy.id", ondelete="RESTRICT"), nullable=False, index=True
        ),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("prediction_id", sa.Integer(), sa.ForeignKey("prediction.id", ondelete="RESTRICT")),
        sa.Column("created", sa.DateTime()),
        sa.Column("approved", sa.String(), nullable=False, server_default="pending", index=True),
        sa.Column("approved_by", sa.String()),
        sa.Column("approved_at", sa.DateTime()),
        sa.UniqueConstraint("prediction_id", "org_unit", "time_period", name="uq_alert_prediction_org_unit_period"),
    )
