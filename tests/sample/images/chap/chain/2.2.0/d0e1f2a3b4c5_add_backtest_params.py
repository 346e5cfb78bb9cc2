"""add_backtest_params"""

import sqlalchemy as sa
from alembic import op
from existing import add_column

revision = "d0e1f2a3b4c5"
down_revision = "c9d0e1f2a3b4"

COLUMNS = ("n_periods", "n_splits", "stride", "n_retrain")
# A split is a last seen period; its place is a count of months or weeks, so that the stride is the smallest distance.
WORK_OUT = r"""
WITH split AS (
    SELECT backtest_id, last_seen_period, count(DISTINCT period) AS ahead,
           CASE WHEN last_seen_period ~ '^\d{4}-?\d{2}$'
                THEN left(last_seen_period, 4)::int * 12 + right(last_seen_period, 2)::int
                WHEN last_seen_period ~ '^\d{4}(-|Sun)?W\d{1,2}$'
                THEN (to_date(left(last_seen_period, 4) || lpad(substring(last_seen_period FROM '\d+$'), 2, '0'), 'IYYYIW')
                      - date '1970-01-05') / 7
           END AS place
    FROM backtestforecast GROUP BY backtest_id, last_seen_period
), step AS (
    SELECT *, place - lag(place) OVER (PARTITION BY backtest_id ORDER BY place) AS distance FROM split
), backtest_params AS (
    SELECT backtest_id, max(ahead) AS n_periods, count(*) AS n_splits,
           coalesce(min(distance), CASE WHEN bool_or(last_seen_period LIKE '%W%') THEN 4 ELSE 1 END) AS stride
    FROM step GROUP BY backtest_id
)
UPDATE backtest SET n_periods = p.n_periods, n_splits = p.n_splits, stride = p.stride, n_retrain = 1
FROM backtest_params AS p WHERE p.backtest_id = backtest.id AND ({missing})
"""
WITHOUT_FORECASTS = "UPDATE backtest SET n_periods = 3, n_splits = 7, stride = 1, n_retrain = 1 WHERE {missing}"


def upgrade() -> None:
    for column in COLUMNS:
        add_column("backtest", sa.Column(column, sa.Integer()))
    # The start-up fills a new column with 0.
    missing = " OR ".join(f"coalesce(backtest.{column}, 0) = 0" for column in COLUMNS)
    op.execute(WORK_OUT.replace("{missing}", missing))
    op.execute(WITHOUT_FORECASTS.replace("{missing}", missing))
    for column in COLUMNS:
        op.alter_column("backtest", column, nullable=False)
