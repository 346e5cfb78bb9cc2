"""drop_debugentry"""

from alembic import op

revision = "d4e5f6a7b8c9"
down_revision = "c3d4e5f6a7b8"


def upgrade() -> None:
    op.execute("DROP TABLE IF EXISTS debugentry")
