"""add_alert_policy"""

import sqlalchemy as sa
from alembic import op
from existing import add_column, has_foreign_key, has_table

revision = "c5d6e7f8a3b4"
down_revision = "b4c5d6e7f8a3"


def upgrade() -> None:
    if not has_table("alertpolicy"):
        op.create_table(
            "alertpolicy",
            sa.Column("id", sa.Integer(), primary_key=True),
            sa.Column("name", sa.String(), nullable=False),
            sa.Column("levels", sa.JSON()),
            sa.Column("created", sa.DateTime()),
        )
    add_column("predictionsetup", sa.Column("alert_policy_id", sa.Integer()))
    if not has_foreign_key("predictionsetup", "alertpolicy"):
        # The start-up fills a new column with 0, and no policy is 0.
        op.execute(
            "UPDATE predictionsetup SET alert_policy_id = NULL WHERE alert_policy_id NOT IN (SELECT id FROM alertpolicy)"
        )
        op.create_foreign_key(
            "fk_predictionsetup_alert_policy",
            "predictionsetup",
            "alertpolicy",
            ["alert_policy_id"],
            ["id"],
            ondelete="RESTRICT",
        )
