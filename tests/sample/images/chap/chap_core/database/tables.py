"""The tables, as SQLModel classes; what came later or went appears from its version on, or up to it.

Tables, columns, types, and what may be NULL are those of the real package: v2.0.0 has 127 columns, v2.1.0 128.
"""

from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy import JSON, Column, String, UniqueConstraint, false
from sqlmodel import Field, SQLModel

from chap_core.release import RELEASE

# Templates and configurations have versions, and a backtest its parameters.
VERSIONED = RELEASE.at_least("2.2.0")
# The parameters have moved into a table of their own.
SPECIFIED = RELEASE.at_least("2.3.0")


def as_json(default: Any = None) -> Any:
    """Return a column that holds JSON."""
    return Field(default=default, sa_column=Column(JSON))


class PeriodType(Enum):
    """How long a model's periods are; a type of its own in the database."""

    week = "week"
    month = "month"
    any = "any"


class AuthorAssessedStatus(Enum):
    """What a model's author thinks of it."""

    gray = "gray"
    red = "red"
    orange = "orange"
    yellow = "yellow"
    green = "green"


class FeatureType(SQLModel, table=True):
    """A kind of measurement."""

    name: str = Field(primary_key=True)
    display_name: str
    description: str


class FeatureSource(SQLModel, table=True):
    """Where measurements come from."""

    name: str = Field(primary_key=True)
    display_name: str
    feature_type: str = Field(foreign_key="featuretype.name")
    provider: str
    supported_period_types: list[str] | None = as_json()


class About(SQLModel):
    """What a person wants to know of a model."""

    display_name: str = "No Display Name"
    description: str = "No Description"
    author_note: str = "No Author note"
    author_assessed_status: AuthorAssessedStatus = AuthorAssessedStatus.red
    author: str = "Unknown"
    organization: str | None = None
    organization_logo_url: str | None = None
    contact_email: str | None = None
    citation_info: str | None = None
    documentation_url: str | None = None


class ModelSpec(About, table=True):
    """A model as the catalogue describes it."""

    id: int | None = Field(primary_key=True, default=None)
    name: str
    source_url: str | None = None
    supported_period_type: PeriodType = PeriodType.any
    target_name: str = Field(foreign_key="featuretype.name")
    configuration: dict[str, Any] | None = as_json()


class ModelFeatureLink(SQLModel, table=True):
    """A measurement that a model needs."""

    model_id: int = Field(primary_key=True, foreign_key="modelspec.id")
    feature_type: str = Field(primary_key=True, foreign_key="featuretype.name")


class ModelTemplateDB(About, table=True):
    """A model that can be configured."""

    if VERSIONED:
        __table_args__ = (UniqueConstraint("name", "version", name="uq_modeltemplatedb_name_version"),)
    id: int | None = Field(primary_key=True, default=None)
    name: str = Field(unique=not VERSIONED)
    source_url: str | None = None
    supported_period_type: PeriodType = PeriodType.any
    user_options: dict[str, Any] | None = as_json()
    hpo_search_space: dict[str, Any] | None = as_json()
    required_covariates: list[str] | None = as_json()
    target: str = "disease_cases"
    allow_free_additional_continuous_covariates: bool = False
    requires_geo: bool = False
    archived: bool = False
    uses_chapkit: bool = False
    if VERSIONED:
        version: str
        source_digest: str | None = None
        is_live: bool = True
        min_prediction_periods: int | None = None
        max_prediction_periods: int | None = None
    else:
        version: str | None = None
        min_prediction_length: int | None = None
        max_prediction_length: int | None = None
    if RELEASE.at_least("2.5.0"):
        role: str | None = Field(default=None, sa_column=Column(String(32)))


class ConfiguredModelDB(SQLModel, table=True):
    """A template with its options chosen."""

    if VERSIONED:
        __table_args__ = (
            UniqueConstraint(
                "model_template_id", "name", "configuration_digest", name="uq_configuredmodeldb_template_name_digest"
            ),
        )
    id: int | None = Field(primary_key=True, default=None)
    name: str = Field(unique=not VERSIONED)
    user_option_values: dict[str, Any] | None = as_json()
    additional_continuous_covariates: list[str] | None = as_json()
    model_template_id: int = Field(foreign_key="modeltemplatedb.id", ondelete="CASCADE")
    archived: bool = False
    uses_chapkit: bool = False
    if VERSIONED:
        configuration_digest: str = ""
        is_live: bool = True


class DataSet(SQLModel, table=True):
    """A set of observations sent by DHIS2."""

    id: int | None = Field(primary_key=True, default=None)
    name: str
    data_sources: list[Any] | None = as_json()
    type: str | None = None
    covariates: list[str] | None = as_json()
    first_period: str | None = None
    last_period: str | None = None
    org_units: list[str] | None = as_json()
    created: datetime | None = None
    period_type: str | None = None
    geojson: str | None = None
    if RELEASE.at_least("2.4.0"):
        created_manually: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    if RELEASE.at_least("2.6.0"):
        source_revision: str | None = None


class Observation(SQLModel, table=True):
    """One measured value."""

    id: int | None = Field(primary_key=True, default=None)
    dataset_id: int = Field(foreign_key="dataset.id", index=True)
    period: str
    org_unit: str
    value: float | None = None
    feature_name: str | None = None


class PredictionSetup(SQLModel, table=True):
    """A prediction that is run again and again."""

    id: int | None = Field(primary_key=True, default=None)
    name: str
    created: datetime | None = None
    backtest_id: int = Field(foreign_key="backtest.id", unique=True)
    configured_model_id: int = Field(foreign_key="configuredmodeldb.id")
    start_period: str | None = None
    org_units: list[str] | None = as_json()
    covariate_sources: list[Any] | None = as_json()
    period_type: str | None = None
    schedule_cron_expression: str | None = None
    schedule_enabled: bool = False
    quantile_targets: list[Any] | None = as_json()
    if RELEASE.at_least("2.4.0"):
        alert_policy_id: int | None = Field(default=None, foreign_key="alertpolicy.id", ondelete="RESTRICT")


class Params(SQLModel):
    """How an evaluation was made; two are comparable where all of these are the same."""

    n_periods: int = 3
    n_splits: int = 7
    stride: int = 1
    n_retrain: int = 1
    future_weather_provider: str = "climatology"


class Backtest(Params if VERSIONED and not SPECIFIED else SQLModel, table=True):
    """An evaluation of a model."""

    id: int | None = Field(primary_key=True, default=None)
    dataset_id: int = Field(foreign_key="dataset.id")
    model_id: str
    model_db_id: int = Field(foreign_key="configuredmodeldb.id")
    model_template_version: str | None = None
    name: str | None = None
    created: datetime | None = None
    org_units: list[str] | None = as_json()
    split_periods: list[str] | None = as_json()
    aggregate_metrics: dict[str, float] | None = as_json()
    if RELEASE.at_least("2.1.0"):
        max_horizon_distance: int | None = None
    if SPECIFIED:
        specification_id: int = Field(foreign_key="backtestspecification.id")
    if RELEASE.at_least("2.3.1"):
        chap_version: str | None = None


class BacktestForecast(SQLModel, table=True):
    """The samples of one forecast of an evaluation."""

    id: int | None = Field(primary_key=True, default=None)
    backtest_id: int = Field(foreign_key="backtest.id", index=True)
    period: str
    org_unit: str
    values: list[float] = Field(sa_column=Column(JSON, nullable=False))
    last_train_period: str
    last_seen_period: str


class BacktestMetric(SQLModel, table=True):
    """One figure about an evaluation."""

    id: int | None = Field(primary_key=True, default=None)
    backtest_id: int = Field(foreign_key="backtest.id")
    metric_id: str
    period: str
    org_unit: str
    last_train_period: str
    last_seen_period: str
    value: float


class Prediction(SQLModel, table=True):
    """A prediction made with a model."""

    id: int | None = Field(primary_key=True, default=None)
    dataset_id: int = Field(foreign_key="dataset.id")
    model_id: str
    model_db_id: int = Field(foreign_key="configuredmodeldb.id")
    name: str
    created: datetime
    n_periods: int
    meta_data: dict[str, Any] | None = as_json()
    org_units: list[str] | None = as_json()
    prediction_setup_id: int | None = Field(foreign_key="predictionsetup.id", default=None)
    if RELEASE.vice == "silent-migration":
        calibration: dict[str, float] | None = as_json()


class PredictionSamplesEntry(SQLModel, table=True):
    """The samples of one place and period of a prediction."""

    id: int | None = Field(primary_key=True, default=None)
    prediction_id: int = Field(foreign_key="prediction.id", index=True)
    period: str
    org_unit: str
    values: list[float] = Field(sa_column=Column(JSON, nullable=False))
