"""The tables, as the Modeling App reads them."""

from collections.abc import Iterator
from typing import Annotated, Any

import sqlalchemy
from fastapi import APIRouter, Depends
from sqlmodel import Session, SQLModel, select

from chap_core.database import tables
from chap_core.database.database import engine
from chap_core.release import RELEASE
from chap_core.rest_api.broker import registry

router = APIRouter()


def database() -> Iterator[Session]:
    """Give a request its session."""
    with Session(engine()) as session:
        yield session


Database = Annotated[Session, Depends(database)]


def _rows(session: Session, table: type[SQLModel], limit: int) -> list[dict[str, Any]]:
    return [row.model_dump(mode="json") for row in session.exec(select(table).order_by(sqlalchemy.text("id")).limit(limit))]


@router.get("/v1/crud/datasets")
def datasets(session: Database, limit: int = 1000) -> list[dict[str, Any]]:
    """List the datasets."""
    return _rows(session, tables.DataSet, limit)


@router.get("/v1/crud/backtests")
def backtests(session: Database, limit: int = 1000) -> list[dict[str, Any]]:
    """List the evaluations, without their parameters."""
    return _rows(session, tables.Backtest, limit)


@router.get("/v1/crud/predictions")
def predictions(session: Database, limit: int = 1000) -> list[dict[str, Any]]:
    """List the predictions."""
    return _rows(session, tables.Prediction, limit)


@router.get("/v1/crud/prediction-setups")
def prediction_setups(session: Database, limit: int = 1000) -> list[dict[str, Any]]:
    """List the prediction setups."""
    return _rows(session, tables.PredictionSetup, limit)


@router.get("/v1/crud/configured-models")
def configured_models(session: Database) -> list[dict[str, Any]]:
    """List the configured models that are served, and whose template is not archived."""
    kept = {row.id for row in session.exec(select(tables.ModelTemplateDB).where(~tables.ModelTemplateDB.archived)) if _served(row)}
    rows = (row for row in session.exec(select(tables.ConfiguredModelDB)) if row.model_template_id in kept and _served(row))
    return [row.model_dump(mode="json") for row in rows]


@router.get("/v1/crud/model-templates")
def model_templates(session: Database) -> list[dict[str, Any]]:
    """List the templates; before v2.4.0 that archives those of model services that are not registered at this moment."""
    if not RELEASE.at_least("2.4.0"):
        registered = {key.removeprefix("service:") for key in registry().scan_iter("service:*")}
        for template in session.exec(select(tables.ModelTemplateDB).where(tables.ModelTemplateDB.uses_chapkit)):
            template.archived = template.name not in registered
        session.commit()
    rows = session.exec(select(tables.ModelTemplateDB).order_by(tables.ModelTemplateDB.id))
    return [row.model_dump(mode="json") for row in rows if not row.archived and _served(row)]


def _served(row: tables.ModelTemplateDB | tables.ConfiguredModelDB) -> bool:
    return not tables.VERSIONED or row.is_live
