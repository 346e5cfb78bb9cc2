"""fix_hpo_search_space"""

from alembic import op

revision = "ff2b1bbb8418"
down_revision = "fe59a33965ed"


def upgrade() -> None:
    for table, column, empty in (
        ("modeltemplatedb", "hpo_search_space", "NULL"),
        ("modeltemplatedb", "user_options", "'{}'"),
        ("configuredmodeldb", "user_option_values", "'{}'"),
    ):
        op.execute(f"UPDATE {table} SET {column} = {empty} WHERE {column}::text = '[]'")
