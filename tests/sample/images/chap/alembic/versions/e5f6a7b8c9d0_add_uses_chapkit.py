"""add_uses_chapkit"""

import sqlalchemy as sa
from alembic import op

revision = "e5f6a7b8c9d0"
down_revision = "d4e5f6a7b8c9"


def upgrade() -> None:
    op.add_column("modeltemplatedb", sa.Column("uses_chapkit", sa.Boolean()))
