"""extract_backtest_specification"""

import os

import sqlalchemy as sa
from alembic import op
from existing import add_column, has_column, has_foreign_key, has_table

revision = "f2a3b4c5d6e1"
down_revision = "e1f2a3b4c5d6"

TABLE = "backtestspecification"
NUMBERS = ("n_periods", "n_splits", "stride", "n_retrain")
MOVED = (*NUMBERS, "future_weather_provider")
KEY = ("dataset_id", *MOVED)


def upgrade() -> None:
    if not has_table(TABLE):
        _create_specifications()
    add_column("backtest", sa.Column("specification_id", sa.Integer()))
    if has_column("backtest", "n_periods"):
        _move_backtests()
    for column in MOVED:
        if has_column("backtest", column):
            op.drop_column("backtest", column)
    op.alter_column("backtest", "specification_id", nullable=False)
    if not has_foreign_key("backtest", TABLE):
        op.create_foreign_key(
            "fk_backtest_specification_id_backtestspecification",
            "backtest",
            TABLE,
            ["specification_id"],
            ["id"],
        )


def _create_specifications() -> None:
    op.create_table(
        TABLE,
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("dataset_id", sa.Integer(), sa.ForeignKey("dataset.id", ondelete="CASCADE"), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in NUMBERS),
        sa.Column("future_weather_provider", sa.String(), nullable=False),
        sa.Column("org_units", sa.JSON()),
        sa.UniqueConstraint(*KEY, name="uq_backtestspecification_params"),
    )


def _move_backtests() -> None:
    # Upstream's fault: where the start-up of v2.4.0 or newer has made the table, target_column is NOT NULL in it and has
    # no default, and this insert does not know it. With a backtest that comes from before v2.3.0, the upgrade fails.
    # CHAP_TEST_TARGET_COLUMN=disease_cases is a chain in which that is put right.
    target = os.environ.get("CHAP_TEST_TARGET_COLUMN")
    more, value = (", target_column", f", '{target}'") if target and has_column(TABLE, "target_column") else ("", "")
    key = ", ".join(KEY)
    op.execute(f"""
        INSERT INTO {TABLE} ({key}, org_units{more})
        SELECT {key}, coalesce(json_agg(DISTINCT unit ORDER BY unit) FILTER (WHERE unit IS NOT NULL), '[]'){value}
        FROM backtest LEFT JOIN LATERAL json_array_elements_text(
            CASE json_typeof(backtest.org_units) WHEN 'array' THEN backtest.org_units END) AS unit ON true
        GROUP BY {key} ORDER BY min(backtest.id)
    """)
    same = " AND ".join(f"backtest.{column} = s.{column}" for column in KEY)
    op.execute(f"UPDATE backtest SET specification_id = s.id FROM {TABLE} AS s WHERE {same}")
