"""add_requires_geo"""

import sqlalchemy as sa
from alembic import op

revision = "d4e5f6a7b8c9"
down_revision = "c3d4e5f6a7b8"


def upgrade() -> None:
    op.add_column("modeltemplatedb", sa.Column("requires_geo", sa.Boolean()))
