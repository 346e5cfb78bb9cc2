"""add_uses_chapkit"""

import sqlalchemy as sa
from alembic import op

revision = "c3d4e5f6a7b8"
down_revision = "b2c3d4e5f6a7"


def upgrade() -> None:
    op.add_column("modeltemplatedb", sa.Column("uses_chapkit", sa.Boolean(), nullable=False, server_default="false"))
