"""Evaluations: what one of them is, how one is saved, and the baseline runs that v2.5.0 and newer queue by themselves."""

import os
import time
from datetime import datetime, timezone
from typing import Any

from fastapi import APIRouter, BackgroundTasks, HTTPException
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, select

from chap_core.database import specification_tables, tables
from chap_core.database.database import engine
from chap_core.release import RELEASE
from chap_core.rest_api import celery_tasks
from chap_core.rest_api.crud import Database

router = APIRouter()


@router.get("/v1/crud/backtests/{identity}/full")
def backtest(identity: int, session: Database) -> dict[str, Any]:
    """Return one evaluation with its parameters: fails where it has none, as on a database that is not migrated."""
    row = session.get(tables.Backtest, identity)
    if row is None:
        raise HTTPException(404, "Backtest not found")
    answer = row.model_dump(mode="json")
    if tables.SPECIFIED:
        specification = session.get(specification_tables.BacktestSpecification, row.specification_id)
        answer |= {name: getattr(specification, name) for name in tables.Params.model_fields}
    return answer


# For tests only: the real one does this at the end of a job.


@router.post("/v1/test/backtest")
def save(dataset_id: int, session: Database) -> dict[str, int | None]:
    """Commit an evaluation of the dataset with the usual parameters, and return its id."""
    model = session.exec(select(tables.ConfiguredModelDB).order_by(tables.ConfiguredModelDB.id)).first()
    row = save_backtest(session, dataset_id, model, "written", tables.Params())
    if RELEASE.at_least("2.5.0"):
        request_baselines(row.specification_id)
    return {"id": row.id}


def save_backtest(
    session: Session, dataset_id: int, model: tables.ConfiguredModelDB, name: str, params: tables.Params
) -> tables.Backtest:
    """Commit an evaluation; its specification is committed before it, and stays when it fails."""
    more: dict[str, Any] = {}
    if tables.SPECIFIED:
        more["specification_id"] = _specification(session, dataset_id, params)
    elif tables.VERSIONED:
        more = params.model_dump()
    if RELEASE.at_least("2.3.1"):
        more["chap_version"] = RELEASE.version
    row = tables.Backtest(
        dataset_id=dataset_id, model_id=model.name, model_db_id=model.id, name=name, created=datetime.now(timezone.utc), **more
    )
    session.add(row)
    session.commit()
    return row


def _specification(session: Session, dataset_id: int, params: tables.Params) -> int:
    table = specification_tables.BacktestSpecification
    query = select(table).where(table.dataset_id == dataset_id)
    for name, value in params.model_dump().items():
        query = query.where(getattr(table, name) == value)
    row = session.exec(query).first()
    if row is None:
        row = table(dataset_id=dataset_id, org_units=[], **params.model_dump())
        session.add(row)
        session.commit()
    return row.id


if RELEASE.at_least("2.4.0"):

    @router.get("/v1/crud/backtest-specifications")
    def specifications(session: Database) -> list[dict[str, Any]]:
        """List the specifications."""
        return [row.model_dump(mode="json") for row in session.exec(select(specification_tables.BacktestSpecification))]

    @router.get("/v1/crud/backtest-specifications/{identity}")
    def specification(identity: int, session: Database, later: BackgroundTasks) -> dict[str, Any]:
        """Return one specification with its evaluations; from v2.5.0 on to read it queues its baselines."""
        row = session.get(specification_tables.BacktestSpecification, identity)
        if row is None:
            raise HTTPException(404, "Specification not found")
        of_it = select(tables.Backtest).where(tables.Backtest.specification_id == identity)
        answer = row.model_dump(mode="json") | {"backtests": [each.model_dump(mode="json") for each in session.exec(of_it)]}
        if RELEASE.at_least("2.5.0"):
            later.add_task(request_baselines, identity)
        return answer


def request_baselines(specification_id: int) -> None:
    """Queue a job for every baseline that has no run on this specification yet."""
    table = specification_tables.SpecificationBaseline
    with Session(engine()) as session:
        templates = select(tables.ModelTemplateDB.id).where(tables.ModelTemplateDB.role == "baseline")
        for model in session.exec(
            select(tables.ConfiguredModelDB).where(tables.ConfiguredModelDB.model_template_id.in_(templates))
        ).all():
            row = table(specification_id=specification_id, configured_model_id=model.id, claimed_at=datetime.now())
            session.add(row)
            try:
                session.commit()
            except IntegrityError:
                session.rollback()  # it has been claimed before
                continue
            celery_tasks.run.start("run_baseline", f"baseline/{model.name}", run_baseline, row.id)


def run_baseline(identity: int) -> int | None:
    """Save the baseline's evaluation; run by the worker."""
    time.sleep(float(os.environ.get("CHAP_TEST_BASELINE_SECONDS") or 0))
    with Session(engine()) as session:
        row = session.get(specification_tables.SpecificationBaseline, identity)
        specification = session.get(specification_tables.BacktestSpecification, row.specification_id)
        params = tables.Params(**{name: getattr(specification, name) for name in tables.Params.model_fields})
        model = session.get(tables.ConfiguredModelDB, row.configured_model_id)
        saved = save_backtest(session, specification.dataset_id, model, "baseline", params)
        row.status, row.backtest_id = "done", saved.id
        session.commit()
        return saved.id
