"""The HTTP surface that DHIS2 and an operator see."""

import hmac
import json
import os
import platform
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any

from celery.exceptions import TimeoutError as NoAnswer
from fastapi import Body, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from sqlmodel import text

import chap_core
from chap_core.database import seed, tables
from chap_core.database.database import engine
from chap_core.release import RELEASE
from chap_core.rest_api import backtests, celery_tasks, crud
from chap_core.rest_api.broker import jobs, registry
from chap_core.rest_api.crud import Database

TOKEN = os.environ.get("CHAP_API_TOKEN", "") if RELEASE.at_least("2.2.0") else ""
OPEN_PATHS = {"/health", "/health/ready", "/system/info"}
REGISTRY_SECONDS = int(os.environ.get("CHAP_TEST_REGISTRY_SECONDS") or 30)

app = FastAPI(title="CHAP", version=chap_core.__version__, root_path=os.environ.get("CHAP_ROOT_PATH", ""))


@app.middleware("http")
async def _ask_for_token(request: Request, call_next: Any) -> Response:
    if TOKEN and request.url.path not in OPEN_PATHS:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        given = given if scheme.lower() in ("bearer", "apitoken") else request.headers.get("X-Service-Key", "")
        if not hmac.compare_digest(given.encode(), TOKEN.encode()):
            return JSONResponse({"detail": "Missing or invalid API token"}, 401, {"WWW-Authenticate": "Bearer"})
    return await call_next(request)


app.include_router(crud.router)
app.include_router(backtests.router)


@app.exception_handler(Exception)
async def _unhandled(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "Internal server error", "error": str(error), "type": type(error).__name__}, 500)


@app.get("/health")
def health() -> dict[str, str]:
    """Say that all is well, whatever the state of the rest."""
    return {"status": "success", "message": "healthy"}


@app.get("/health/ready")
def ready(response: Response) -> dict[str, Any]:
    """Look at the database, the broker and the worker."""
    checks = {"db": _try(_ask_database), "redis": _try(lambda: jobs().ping()), "celery": _try(_ping_worker)}
    if RELEASE.vice == "never-ready":
        checks["celery"] = "error: no workers responded"
    return _verdict(checks, response)


@app.get("/health/probe")
def probe(response: Response) -> dict[str, Any]:
    """Send a task to the worker and wait two seconds for it: fails when all its processes are busy."""
    return _verdict({"celery_db_roundtrip": _try(_roundtrip)}, response)


def _try(check: Any) -> str:
    try:
        check()
    except LookupError as error:
        return f"error: {error.args[0]}"
    except NoAnswer:
        return "error: TimeoutError"
    except Exception as error:
        return f"error: {type(error).__name__}"
    return "ok"


def _ask_database() -> None:
    with engine().connect() as connection:
        connection.execute(text("SELECT 1"))


def _ping_worker() -> None:
    if not celery_tasks.app.control.ping(timeout=1.0):
        raise LookupError("no workers responded")


def _roundtrip() -> None:
    result = celery_tasks.run.apply_async((celery_tasks.ask_database,), expires=2)
    result.get(timeout=2)


def _verdict(checks: dict[str, str], response: Response) -> dict[str, Any]:
    good = all(answer == "ok" for answer in checks.values())
    response.status_code = 200 if good else 503
    return {"status": "success" if good else "unhealthy", "checks": checks}


@app.get("/system/info")
def system_info() -> dict[str, Any]:
    """Say which version this is."""
    info: dict[str, Any] = {
        "chap_core_version": chap_core.__version__,
        "python_version": platform.python_version(),
        "server_date": datetime.now(timezone.utc).isoformat(),
        "server_time_zone_id": "Etc/UTC",
        "revision": "",
    }
    if RELEASE.at_least("2.2.0"):
        info["auth_required"] = bool(TOKEN)
    return info


# Model services register themselves and must ask again and again to stay.


@app.get("/v2/services")
def services() -> dict[str, Any]:
    """List the model services that are registered now."""
    found = [json.loads(value) for key in sorted(registry().scan_iter("service:*")) if (value := registry().get(key))]
    return {"count": len(found), "services": found}


@app.post("/v2/services/$register")
def register(request: Annotated[dict[str, Any], Body()], session: Database) -> dict[str, Any]:
    """Register a model service and bring its template out of the archive."""
    info = request["info"]
    service = {"id": info["id"], "url": request["url"], "info": info, "registered_at": celery_tasks.now()}
    _keep(service)
    model = seed.Model(info["id"], info.get("version"), fetched=False)
    template = seed.add_model(session, model, uses_chapkit=True, source_url=request["url"])
    template.display_name = info.get("display_name", info["id"])
    template.version = info.get("version")
    template.archived = False
    session.commit()
    return {
        "id": info["id"], "status": "registered", "service_url": request["url"], "message": "Service registered",
        "ttl_seconds": REGISTRY_SECONDS, "ping_url": f"/v2/services/{info['id']}/$ping",
    }


@app.put("/v2/services/{identity}/$ping")
def ping(identity: str) -> dict[str, Any]:
    """Keep a service registered; 404 tells it to register again."""
    service = _service(identity)
    _keep(service)
    return {"id": identity, "status": "alive", "expires_at": service["expires_at"]}


@app.get("/v2/services/{identity}")
def service(identity: str) -> dict[str, Any]:
    """Return one registered service."""
    return _service(identity)


@app.delete("/v2/services/{identity}", status_code=204)
def deregister(identity: str) -> None:
    """Forget a service."""
    registry().delete(f"service:{identity}")


if RELEASE.at_least("2.1.0"):

    @app.get("/v2/services/{identity}/run/{path:path}")
    def run_on_service(identity: str, path: str) -> Response:
        """Pass a read-only request on to the model service."""
        try:
            with urllib.request.urlopen(f"{_service(identity)['url']}/{path}", timeout=5) as answer:
                return Response(answer.read(), answer.status, media_type=answer.headers.get_content_type())
        except urllib.error.HTTPError as error:
            return Response(error.read(), error.code, media_type=error.headers.get_content_type())
        except OSError as error:
            raise HTTPException(502, f"The service does not answer: {error}") from error


def _service(identity: str) -> dict[str, Any]:
    value = registry().get(f"service:{identity}")
    if value is None:
        raise HTTPException(404, f"Service {identity} not found")
    return json.loads(value)


def _keep(service: dict[str, Any]) -> None:
    now = datetime.now(timezone.utc)
    service.update(
        last_updated=now.isoformat(), last_ping_at=now.isoformat(), expires_at=(now + timedelta(seconds=REGISTRY_SECONDS)).isoformat()
    )
    registry().set(f"service:{service['id']}", json.dumps(service), ex=REGISTRY_SECONDS)


# Jobs live in the broker's memory.


@app.get("/v1/jobs")
def job_list(status: Annotated[list[str] | None, Query()] = None, type: str | None = None) -> list[dict[str, Any]]:
    """List the jobs the broker remembers."""
    found = [_job(jobs().hgetall(key)) for key in jobs().scan_iter("job_meta:*")]
    found = [job for job in found if (not status or job["status"] in status) and (not type or job["type"] == type)]
    return sorted(found, key=lambda job: job["start_time"] or "", reverse=True)


@app.get("/v1/jobs/{identity}")
def job_status(identity: str) -> str:
    """Return a job's status."""
    return _known_job(identity)["status"]


@app.get("/v1/jobs/{identity}/logs")
def job_logs(identity: str) -> PlainTextResponse:
    """Return what a job wrote."""
    _known_job(identity)
    file = Path(os.environ.get("CHAP_LOGS_DIR", "/data/logs")) / f"task_{Path(identity).name}.status.txt"
    return PlainTextResponse(file.read_text() if file.exists() else "")


@app.post("/v1/jobs/{identity}/cancel")
def job_cancel(identity: str) -> dict[str, str]:
    """Stop a job."""
    _known_job(identity)
    celery_tasks.app.control.revoke(identity, terminate=True)
    jobs().hset(f"job_meta:{identity}", mapping={"status": "REVOKED", "end_time": celery_tasks.now()})
    return {"message": "Job cancelled"}


@app.delete("/v1/jobs/{identity}")
def job_delete(identity: str) -> dict[str, str]:
    """Forget a job that is over."""
    if _known_job(identity)["status"] in ("PENDING", "STARTED"):
        raise HTTPException(400, "Cannot delete a running job. Cancel it first.")
    jobs().delete(f"job_meta:{identity}")
    return {"message": "Job deleted"}


def _known_job(identity: str) -> dict[str, str]:
    found = jobs().hgetall(f"job_meta:{identity}")
    if not found:
        raise HTTPException(404, "Job not found")
    return found


def _job(record: dict[str, str]) -> dict[str, Any]:
    return {field: record.get(field) for field in ("id", "type", "name", "status", "start_time", "end_time", "result", "prediction_setup_id")}


# For tests only: a job of known length, and a row written through the API.


@app.post("/v1/test/sleep")
def start_sleep(seconds: float) -> dict[str, str]:
    """Start a job that lasts so many seconds."""
    return {"id": celery_tasks.run.start("create_backtest", f"sleep {seconds:g}", celery_tasks.sleep, seconds)}


@app.post("/v1/test/write")
def write(name: str, session: Database) -> dict[str, int | None]:
    """Commit one row and return its id."""
    row = tables.DataSet(name=name, created=datetime.now(timezone.utc), type="written")
    session.add(row)
    session.commit()
    return {"id": row.id}
