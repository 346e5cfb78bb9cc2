"""The tables, as SQLModel classes; columns that came later appear from their version on."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel

from chap_core.release import RELEASE


def _json(default: Any = None) -> Any:
    return Field(default=default, sa_column=Column(JSON))


class FeatureType(SQLModel, table=True):
    """A kind of measurement."""

    name: str = Field(primary_key=True)
    display_name: str
    description: str


class FeatureSource(SQLModel, table=True):
    """Where measurements come from."""

    name: str = Field(primary_key=True)
    display_name: str
    url: str | None = None
    description: str
    provider: str
    supported_features: list[str] | None = _json()
    created: datetime | None = None


class ModelSpec(SQLModel, table=True):
    """A model as the catalogue describes it."""

    id: int | None = Field(primary_key=True, default=None)
    name: str
    display_name: str = "No Display Name"
    version: str | None = None
    source_url: str | None = None
    description: str = "No Description"
    author: str = "Unknown"
    author_note: str | None = None
    organization: str | None = None
    contact_email: str | None = None
    citation_info: str | None = None
    supported_period_type: str = "any"
    target_name: str | None = None


class ModelFeatureLink(SQLModel, table=True):
    """A measurement that a model needs."""

    model_id: int = Field(primary_key=True, foreign_key="modelspec.id")
    feature_type: str = Field(primary_key=True, foreign_key="featuretype.name")


class ModelTemplateDB(SQLModel, table=True):
    """A model that can be configured."""

    id: int | None = Field(primary_key=True, default=None)
    name: str = Field(unique=True)
    version: str | None = None
    source_url: str | None = None
    display_name: str = "No Display Name"
    description: str = "No Description"
    author: str = "Unknown"
    author_note: str | None = None
    author_assessed_status: str = "red"
    organization: str | None = None
    organization_logo_url: str | None = None
    contact_email: str | None = None
    citation_info: str | None = None
    supported_period_type: str = "any"
    required_covariates: list[str] | None = _json()
    allow_free_additional_continuous_covariates: bool = False
    user_options: dict[str, Any] | None = _json()
    target: str = "disease_cases"
    hpo_search_space: dict[str, Any] | None = _json()
    archived: bool = False
    min_prediction_length: int | None = None
    max_prediction_length: int | None = None
    requires_geo: bool = False
    uses_chapkit: bool = False
    documentation_url: str | None = None


class ConfiguredModelDB(SQLModel, table=True):
    """A template with its options chosen."""

    id: int | None = Field(primary_key=True, default=None)
    name: str = Field(unique=True)
    model_template_id: int = Field(foreign_key="modeltemplatedb.id")
    user_option_values: dict[str, Any] | None = _json()
    additional_continuous_covariates: list[str] | None = _json()
    archived: bool = False
    uses_chapkit: bool = False
    created: datetime | None = None


class DataSet(SQLModel, table=True):
    """A set of observations sent by DHIS2."""

    id: int | None = Field(primary_key=True, default=None)
    name: str
    created: datetime | None = None
    type: str | None = None
    geojson: str | None = None
    covariates: list[str] | None = _json()
    first_period: str | None = None
    last_period: str | None = None
    data_sources: list[Any] | None = _json()
    org_units: list[str] | None = _json()
    period_type: str | None = None
    if RELEASE.at_least("2.2.0"):
        source_revision: str | None = None


class Observation(SQLModel, table=True):
    """One measured value."""

    id: int | None = Field(primary_key=True, default=None)
    dataset_id: int = Field(foreign_key="dataset.id", index=True)
    period: str
    org_unit: str
    value: float | None = None
    feature_name: str | None = None
    element_id: str | None = None


class PredictionSetup(SQLModel, table=True):
    """A prediction that is run again and again."""

    id: int | None = Field(primary_key=True, default=None)
    name: str
    configured_model_id: int | None = Field(foreign_key="configuredmodeldb.id", default=None)
    created: datetime | None = None
    period_type: str | None = None
    start_period: str | None = None
    org_units: list[str] | None = _json()
    data_sources: list[Any] | None = _json()
    archived: bool = False
    last_run: datetime | None = None


class BackTest(SQLModel, table=True):
    """An evaluation of a model."""

    id: int | None = Field(primary_key=True, default=None)
    dataset_id: int = Field(foreign_key="dataset.id")
    model_id: str
    model_db_id: int | None = Field(foreign_key="configuredmodeldb.id", default=None)
    model_template_version: str | None = None
    name: str | None = None
    created: datetime | None = None
    org_units: list[str] | None = _json()
    split_periods: list[str] | None = _json()
    meta_data: str | None = None
    aggregate_metrics: dict[str, float] | None = _json()
    if RELEASE.at_least("2.1.0"):
        max_horizon_distance: int | None = None


class BackTestForecast(SQLModel, table=True):
    """The samples of one forecast of an evaluation."""

    id: int | None = Field(primary_key=True, default=None)
    backtest_id: int = Field(foreign_key="backtest.id", index=True)
    period: str
    org_unit: str
    values: list[float] | None = _json()
    last_train_period: str
    last_seen_period: str


class BackTestMetric(SQLModel, table=True):
    """One figure about an evaluation."""

    id: int | None = Field(primary_key=True, default=None)
    backtest_id: int = Field(foreign_key="backtest.id")
    metric_id: str
    period: str
    org_unit: str
    last_train_period: str
    last_seen_period: str
    value: float | None = None


class Prediction(SQLModel, table=True):
    """A prediction made with a model."""

    id: int | None = Field(primary_key=True, default=None)
    dataset_id: int = Field(foreign_key="dataset.id")
    model_id: str
    model_db_id: int | None = Field(foreign_key="configuredmodeldb.id", default=None)
    name: str
    created: datetime | None = None
    n_periods: int
    meta_data: str | None = None
    org_units: list[str] | None = _json()
    prediction_setup_id: int | None = Field(foreign_key="predictionsetup.id", default=None)
    if RELEASE.vice == "silent-migration":
        calibration: dict[str, float] | None = _json()


class PredictionSamplesEntry(SQLModel, table=True):
    """The samples of one place and period of a prediction."""

    id: int | None = Field(primary_key=True, default=None)
    prediction_id: int = Field(foreign_key="prediction.id", index=True)
    period: str
    org_unit: str
    values: list[float] | None = _json()
