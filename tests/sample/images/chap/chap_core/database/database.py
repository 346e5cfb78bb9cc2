"""Bring the database up to date at start, in the order and with the vices of the real CHAP."""

import contextlib
import functools
import http.server
import logging
import os
import threading
import time
import urllib.request
from collections.abc import Iterator

import sqlalchemy
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, SQLModel, create_engine, select, text

from chap_core.database import tables
from chap_core.release import RELEASE

logger = logging.getLogger(__name__)

MODELS = [
    "naive_model", "chap_auto_ewars_monthly", "chap_auto_ewars_weekly", "minimalist_multiregion", "auto_regressive_monthly",
    "auto_regressive_weekly", "madagascar_arima", "epidemiar", "rwanda_random_forest",
]
if RELEASE.at_least("2.1.0"):
    MODELS += ["auto_regressive_monthly_v2", "auto_regressive_weekly_v2"]


@functools.cache
def engine() -> sqlalchemy.Engine:
    """Return the connection to CHAP's database."""
    return create_engine(os.environ["CHAP_DATABASE_URL"])


def create_db_and_tables() -> None:
    """Add missing columns, create missing tables, run Alembic, seed the models."""
    for attempt in range(30):
        try:
            _run_generic_migration()
            if RELEASE.vice == "slow-migration":
                _migrate_slowly(float(os.environ.get("CHAP_TEST_MIGRATION_SECONDS") or 90))
            if RELEASE.vice == "loses-rows":
                _lose_rows()
            SQLModel.metadata.create_all(engine())
            break
        except OperationalError:
            if attempt == 29:
                raise
            logger.warning("The database is not there yet")
            time.sleep(1)
    _run_alembic()
    _seed_models()
    logger.info("Database migration and initialization complete.")


def _run_generic_migration() -> None:
    with engine().connect() as connection:
        inspector = sqlalchemy.inspect(connection)
        for table in SQLModel.metadata.sorted_tables:
            if not inspector.has_table(table.name):
                continue
            existing = {column["name"] for column in inspector.get_columns(table.name)}
            for column in table.columns:
                if column.name in existing:
                    continue
                # One commit per column, and an error is only logged: the real one does just that.
                try:
                    connection.execute(text(f'ALTER TABLE {table.name} ADD COLUMN "{column.name}" {_type(table.name, column)}'))
                    if column.default is not None and column.default.is_scalar:
                        connection.execute(text(f'UPDATE {table.name} SET "{column.name}" = :value'), {"value": column.default.arg})
                    connection.commit()
                except Exception as error:
                    connection.rollback()
                    logger.error("Failed to add column %s to %s: %s", column.name, table.name, error)


def _type(table: str, column: sqlalchemy.Column) -> str:
    if (table, column.name) == ("prediction", "calibration"):
        return "JSONBB"
    return column.type.compile(dialect=engine().dialect)


def _migrate_slowly(seconds: float) -> None:
    with engine().connect() as connection:
        connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


def _lose_rows() -> None:
    with engine().connect() as connection:
        connection.execute(text("DELETE FROM observation WHERE id % 10 = 0"))
        connection.commit()


def _run_alembic() -> None:
    # Imported late: the API's own start does not need it.
    from alembic import command
    from alembic.config import Config

    try:
        command.upgrade(Config("/app/alembic.ini"), "head")
    except Exception as error:
        logger.error("Error during Alembic migrations: %s", error)


def _seed_models() -> None:
    with _models_url() as base, Session(engine()) as session:
        for name in MODELS:
            content = _fetch(f"{base}/{name}/MLproject")
            assert content != ""
            template = session.exec(select(tables.ModelTemplateDB).where(tables.ModelTemplateDB.name == name)).first()
            if template is None:
                template = tables.ModelTemplateDB(
                    name=name,
                    display_name=name.replace("_", " "),
                    source_url=f"https://models.example/{name}",
                    required_covariates=["rainfall", "mean_temperature"],
                )
                session.add(template)
                session.flush()
                session.add(tables.ConfiguredModelDB(name=name, model_template_id=template.id))
        session.commit()


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
