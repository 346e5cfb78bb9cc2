"""add_hpo_search_space"""

from alembic import op

revision = "ff2b1bbb8418"
down_revision = "fe59a33965ed"


def upgrade() -> None:
    op.execute("ALTER TABLE modeltemplatedb ADD COLUMN IF NOT EXISTS hpo_search_space JSON")
