"""add_backtest_future_weather_provider"""

import sqlalchemy as sa
from alembic import op
from existing import add_column

revision = "e1f2a3b4c5d6"
down_revision = "d0e1f2a3b4c5"


def upgrade() -> None:
    add_column("backtest", sa.Column("future_weather_provider", sa.String()))
    op.execute(
        "UPDATE backtest SET future_weather_provider = 'climatology' WHERE coalesce(future_weather_provider, '') = ''"
    )
    op.alter_column("backtest", "future_weather_provider", nullable=False)
