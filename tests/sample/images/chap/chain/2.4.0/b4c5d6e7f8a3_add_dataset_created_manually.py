"""add_dataset_created_manually"""

import sqlalchemy as sa
from existing import add_column

revision = "b4c5d6e7f8a3"
down_revision = "a3b4c5d6e7f2"


def upgrade() -> None:
    add_column("dataset", sa.Column("created_manually", sa.Boolean(), nullable=False, server_default=sa.false()))
