"""The tables of alerts: from v2.4.0."""

from datetime import datetime
from typing import Any

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

from chap_core.database.tables import as_json
from chap_core.release import RELEASE


if RELEASE.at_least("2.4.0"):

    class AlertPolicy(SQLModel, table=True):
        """The levels at which a prediction raises an alert."""

        id: int | None = Field(primary_key=True, default=None)
        name: str
        levels: list[Any] | None = as_json()
        created: datetime | None = None

    class Alert(SQLModel, table=True):
        """One alert, for a place and a period."""

        __table_args__ = (
            UniqueConstraint("prediction_id", "org_unit", "time_period", name="uq_alert_prediction_org_unit_period"),
        )
        id: int | None = Field(primary_key=True, default=None)
        time_period: str
        org_unit: str
        alert_policy_id: int = Field(foreign_key="alertpolicy.id", ondelete="RESTRICT", index=True)
        level: str
        prediction_id: int | None = Field(default=None, foreign_key="prediction.id", ondelete="RESTRICT")
        created: datetime | None = None
        approved: str = Field(default="pending", index=True, sa_column_kwargs={"server_default": "pending"})
        approved_by: str | None = None
        approved_at: datetime | None = None
