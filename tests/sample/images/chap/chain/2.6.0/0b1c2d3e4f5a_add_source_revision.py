"""add_source_revision"""

import sqlalchemy as sa
from existing import add_column

revision = "0b1c2d3e4f5a"
down_revision = "de7478f3ff6d"


def upgrade() -> None:
    add_column("dataset", sa.Column("source_revision", sa.String()))
