"""The tables that say which evaluations are comparable: from v2.3.0, baselines from v2.5.0."""

from datetime import datetime

from sqlalchemy import Column, String, UniqueConstraint
from sqlmodel import Field, SQLModel

from chap_core.database.tables import SPECIFIED, Params, as_json
from chap_core.release import RELEASE

_TARGET = ("target_column",) if RELEASE.at_least("2.4.0") else ()


if SPECIFIED:

    class BacktestSpecification(Params, table=True):
        """A dataset and the parameters that evaluations of it have in common."""

        __table_args__ = (
            UniqueConstraint("dataset_id", *_TARGET, *Params.model_fields, name="uq_backtestspecification_params"),
        )
        id: int | None = Field(primary_key=True, default=None)
        dataset_id: int = Field(foreign_key="dataset.id", ondelete="CASCADE")
        org_units: list[str] | None = as_json()
        if _TARGET:
            target_column: str = "disease_cases"


if RELEASE.at_least("2.5.0"):

    class SpecificationBaseline(SQLModel, table=True):
        """The run of one baseline model on one specification. No revision makes this table."""

        __table_args__ = (
            UniqueConstraint("specification_id", "configured_model_id", name="uq_specificationbaseline_model"),
        )
        id: int | None = Field(primary_key=True, default=None)
        specification_id: int = Field(foreign_key="backtestspecification.id", ondelete="CASCADE")
        configured_model_id: int = Field(foreign_key="configuredmodeldb.id")
        status: str = Field(default="pending", sa_column=Column(String(32), nullable=False))
        backtest_id: int | None = Field(default=None, foreign_key="backtest.id", ondelete="CASCADE")
        message: str | None = None
        claimed_at: datetime
