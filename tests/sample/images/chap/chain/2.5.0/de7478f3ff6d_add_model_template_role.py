"""add_model_template_role"""

import sqlalchemy as sa
from alembic import op
from existing import add_column

revision = "de7478f3ff6d"
down_revision = "e7f8a3b4c5d6"


def upgrade() -> None:
    add_column("modeltemplatedb", sa.Column("role", sa.String(32)))
    op.execute("UPDATE modeltemplatedb SET role = NULL WHERE role = ''")
