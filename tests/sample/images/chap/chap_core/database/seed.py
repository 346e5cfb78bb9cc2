"""Put CHAP's list of models into the database at every start."""

import contextlib
import hashlib
import http.server
import json
import logging
import os
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, select

from chap_core.database import tables
from chap_core.database.configured import configured_models
from chap_core.database.database import engine
from chap_core.release import RELEASE


@dataclass(frozen=True)
class Model:
    """A model of the list: where it comes from, and the label of its version."""

    name: str
    version: str | None = "v1"
    fetched: bool = True
    role: str | None = None


# The naive model has a version only since versions count, so that release adds it a second time.
NAIVE = Model("naive_model", "1" if tables.VERSIONED else None, fetched=False)
GIT = [
    "chap_auto_ewars_monthly", "chap_auto_ewars_weekly", "minimalist_multiregion", "auto_regressive_monthly",
    "auto_regressive_weekly", "madagascar_arima", "epidemiar", "rwanda_random_forest",
]
if RELEASE.at_least("2.1.0"):
    GIT += ["auto_regressive_monthly_v2", "auto_regressive_weekly_v2"]
BASELINES = ["global_median", "persistence", "seasonal_median"] if RELEASE.at_least("2.5.0") else []


def seed_models() -> None:
    """Add the models that are missing, those of the configured models' files among them."""
    # Alembic has disabled every logger that was there before it; this one comes after it, and speaks.
    logger = logging.getLogger(f"{__name__}.models")
    models = [NAIVE, *(Model(name) for name in GIT)]
    models += [Model(name, version) for name, version in configured_models()]
    models += [Model(name, "1", fetched=False, role="baseline") for name in BASELINES]
    with _models_url() as base, Session(engine()) as session:
        for model in models:
            try:
                if model.fetched:
                    assert _fetch(f"{base}/{model.name}/MLproject") != ""
                add_model(session, model)
                if tables.VERSIONED:
                    session.commit()
            except SQLAlchemyError:
                raise
            except Exception as error:
                if not tables.VERSIONED:
                    raise
                session.rollback()
                logger.error("Could not seed the model %s: %s. It is passed over.", model.name, error or "no answer")
        session.commit()


def add_model(session: Session, model: Model, **fields: object) -> tables.ModelTemplateDB:
    """Return the template of this name, and of this version where versions count; added when it is missing."""
    query = select(tables.ModelTemplateDB).where(tables.ModelTemplateDB.name == model.name)
    if tables.VERSIONED:
        query = query.where(tables.ModelTemplateDB.version == model.version)
    template = session.exec(query).first()
    if template is None:
        horizon = ("min_prediction_periods", "max_prediction_periods") if tables.VERSIONED else (
            "min_prediction_length", "max_prediction_length"
        )
        about = {
            "display_name": model.name.replace("_", " "),
            "source_url": f"https://models.example/{model.name}",
            "required_covariates": ["rainfall", "mean_temperature"],
            "user_options": {},
            **(dict(zip(horizon, (1, 6))) if model.fetched else {}),
            **({"role": model.role} if model.role else {}),
        }
        template = tables.ModelTemplateDB(name=model.name, version=model.version, **about | fields)
        session.add(template)
        session.flush()
        digest = {"configuration_digest": _digest()} if tables.VERSIONED else {}
        session.add(
            tables.ConfiguredModelDB(
                name=model.name, model_template_id=template.id, user_option_values={}, additional_continuous_covariates=[],
                uses_chapkit=template.uses_chapkit, **digest,
            )
        )
    if tables.VERSIONED:
        for each in session.exec(select(tables.ModelTemplateDB).where(tables.ModelTemplateDB.name == model.name)):
            each.is_live = each.id == template.id
    return template


def _digest() -> str:
    chosen = {"user_option_values": {}, "additional_continuous_covariates": []}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def _fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


class _MLproject(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"name: {self.path.split('/')[1]}\n".encode())

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def _models_url() -> Iterator[str]:
    # The real CHAP asks GitHub. Here it asks itself, unless the test names a place, for example one that does not answer.
    url = os.environ.get("CHAP_TEST_MODELS_URL", "")
    if RELEASE.vice == "seeding-fails":
        url = "http://127.0.0.1:9"
    if url:
        yield url
        return
    server = http.server.HTTPServer(("127.0.0.1", 0), _MLproject)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
