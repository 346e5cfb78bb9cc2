"""add_archived_to_model_template"""

import sqlalchemy as sa
from existing import add_column

revision = "a1b2c3d4e5f6"
down_revision = "ff2b1bbb8418"


def upgrade() -> None:
    add_column("modeltemplatedb", sa.Column("archived", sa.Boolean(), nullable=False, server_default="false"))
