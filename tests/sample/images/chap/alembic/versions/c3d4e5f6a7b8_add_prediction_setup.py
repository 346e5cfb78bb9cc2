"""add_prediction_setup"""

import sqlalchemy as sa
from alembic import op

revision = "c3d4e5f6a7b8"
down_revision = "b2c3d4e5f6a7"


def upgrade() -> None:
    op.add_column("prediction", sa.Column("prediction_setup_id", sa.Integer()))
