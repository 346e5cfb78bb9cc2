"""add_max_horizon_distance"""

import sqlalchemy as sa
from alembic import op

revision = "a7b8c9d0e1f2"
down_revision = "f6a7b8c9d0e1"


def upgrade() -> None:
    op.add_column("backtest", sa.Column("max_horizon_distance", sa.Integer()))
