"""add_prediction_lengths"""

import sqlalchemy as sa
from alembic import op

revision = "b2c3d4e5f6a7"
down_revision = "a1b2c3d4e5f6"


def upgrade() -> None:
    op.add_column("modeltemplatedb", sa.Column("min_prediction_length", sa.Integer()))
