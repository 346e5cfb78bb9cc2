"""add_archived_to_model_template"""

import sqlalchemy as sa
from alembic import op

revision = "a1b2c3d4e5f6"
down_revision = "ff2b1bbb8418"


def upgrade() -> None:
    # The start-up has added it already: this fails, and with it the whole transaction.
    op.add_column("modeltemplatedb", sa.Column("archived", sa.Boolean(), nullable=False, server_default="false"))
