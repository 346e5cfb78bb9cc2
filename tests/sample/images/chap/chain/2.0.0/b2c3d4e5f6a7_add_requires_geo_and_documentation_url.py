"""add_requires_geo_and_documentation_url"""

import sqlalchemy as sa
from alembic import op

revision = "b2c3d4e5f6a7"
down_revision = "a1b2c3d4e5f6"


def upgrade() -> None:
    op.add_column("modeltemplatedb", sa.Column("requires_geo", sa.Boolean(), nullable=False, server_default="false"))
    op.add_column("modeltemplatedb", sa.Column("documentation_url", sa.String()))
