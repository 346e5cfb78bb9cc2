"""add_documentation_url"""

import sqlalchemy as sa
from alembic import op

revision = "f6a7b8c9d0e1"
down_revision = "e5f6a7b8c9d0"


def upgrade() -> None:
    op.add_column("modeltemplatedb", sa.Column("documentation_url", sa.String()))
