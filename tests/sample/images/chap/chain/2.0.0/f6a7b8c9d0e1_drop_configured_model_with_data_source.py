"""drop_configured_model_with_data_source"""

from alembic import op

revision = "f6a7b8c9d0e1"
down_revision = "e5f6a7b8c9d0"


def upgrade() -> None:
    op.execute("DROP TABLE IF EXISTS configuredmodelwithdatasource")
