"""add_backtest_chap_version"""

import sqlalchemy as sa
from existing import add_column

revision = "a3b4c5d6e7f2"
down_revision = "f2a3b4c5d6e1"


def upgrade() -> None:
    add_column("backtest", sa.Column("chap_version", sa.String()))
