"""Verify a stack after a change, as checks.

A check has the same fields as in chap-checker: name, status, message, hint, details, duration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from compose_chap.check import Check, Finding, answered, fail, failures, ok, skipped, warn
from compose_chap.engine.world import World
from compose_chap.errors import ChapError
from compose_chap.model import Role, Stack
from compose_chap.postgres.database_schema import MARK_TABLE
from compose_chap.stack import schema
from compose_chap.stack.chap import Chap, Health, version_in
from compose_chap.stack.databases import server_of
from compose_chap.stack.observe import refreshed
from compose_chap.stack.schema import Schema
from compose_chap.transaction import evidence
from compose_chap.transaction.run.baseline import Baseline, route_of

# A model service registers again within this time after CHAP is back: a keepalive of 10 to 15 s must fail first,
# then 30 s of grace, and a few seconds (observed with servicekit).
MODELS_BACK = 100.0

# Tables in which CHAP itself adds rows: more rows there are not users' work. The last is Alembic's mark.
NOBODYS = (
    *("public.modeltemplatedb", "public.configuredmodeldb", "public.specificationbaseline"),
    MARK_TABLE,
)


def wait_for_api(
    world: World, stack: Stack, *, workers: bool, answers: Callable[[bool], None] = lambda silent: None
) -> Health:
    """Wait until the API is ready, and return its health at the end of the wait.

    Without `workers`, an API that only lacks its workers counts as ready. Progress, not a clock, decides: while
    the container runs and work is done in the database, a migration may take as long as it needs.
    `answers` is called at the first answer, with whether the API was silent until then. Raise EndedAtStart when the
    container ends.
    """
    api = stack.api.containers[0]
    chap, server = Chap(world.engine, api.id), server_of(world.engine, stack)
    begun = last = world.clock()
    seen: Any = None
    first, silent = True, False

    while True:
        container = world.engine.container(api.id)
        if container is None or not container.running or container.restarts > api.restarts:
            why = evidence.why_ended(world, api)
            raise EndedAtStart(f"CHAP failed to start: {why or 'its container is gone'}", why)

        health = chap.health()
        if health.level == "silent":
            silent = True
        elif first:
            answers(silent)
            first = False
        if health.ready or (not workers and only_workers_amiss(health)):
            return health

        now, sign = world.clock(), (health, server.activity(stack.access.name))
        if sign != seen or (health.level == "silent" and server.is_busy(stack.access.name)):
            seen, last = sign, now
        waited = (now - begun).total_seconds()
        world.notify("wait", "for its first answer" if health.level == "silent" else health.problems, waited, 0)
        if (now - last).total_seconds() > world.patience or waited > world.limit:
            return health
        world.sleep(0.2)


def only_workers_amiss(health: Health) -> bool:
    """Whether an API that is not ready only lacks its workers."""
    amiss = [part for part, state in health.checks.items() if state != "ok"]
    return health.level == "answering" and amiss == ["celery"]


def check_api(world: World, stack: Stack, expected: str, tables: Mapping[str, int]) -> list[Check]:
    """Check the API of a stack: its version, its schema, and that no table has fewer rows than in `tables`."""
    api = stack.api.containers[0]
    chap = Chap(world.engine, api.id)
    return [
        answered("chap_version", world.clock, lambda: _version("API", chap.version(), expected)),
        answered("schema", world.clock, lambda: _schema(schema.of_stack(world, stack))),
        answered("rows", world.clock, lambda: _rows(world, stack, tables)),
    ]


def check_everything(
    world: World, stack: Stack, expected: str, baseline: Baseline, credentials: Mapping[str, str]
) -> list[Check]:
    """Check everything that must be healthy after an operation, once API and workers run."""
    checks = [
        answered("worker_version", world.clock, lambda: _worker_versions(world, stack, expected)),
        answered("ready", world.clock, lambda: _ready(world, stack)),
        answered("models", world.clock, lambda: _models(world, stack, baseline)),
        answered("route", world.clock, lambda: _route(world, stack, baseline)),
        answered("other_containers", world.clock, lambda: _untouched(world, stack, baseline)),
    ]
    if stack.of(Role.DHIS2):
        checks.append(answered("dhis2_chap_ping", world.clock, lambda: _through_dhis2(world, stack, credentials)))
    return checks


def forgiving(checks: Iterable[Check]) -> list[Check]:
    """Return the checks with changes by others as warnings only: no rollback could revert them."""
    return [
        replace(check, status="warn") if check.failed and check.name in ("route", "other_containers") else check
        for check in checks
    ]


def as_before(checks: Iterable[Check], verdict: str) -> list[Check]:
    """Return the checks with a bad schema as a warning only, if it had the same verdict before."""
    return [
        replace(check, status="warn", message=f"As before: {check.message}")
        if check.name == "schema" and check.failed and check.details.get("verdict") == verdict
        else check
        for check in checks
    ]


def _version(part: str, actual: str, expected: str) -> Finding:
    if not expected:
        return ok(f"The {part} reports version {actual or 'nothing'}.")
    if actual == expected.removeprefix("v"):
        return ok(f"The {part} reports version {actual}.")
    return fail(f"The {part} reports version {actual or 'nothing'}, not {expected.removeprefix('v')}.")


def _worker_versions(world: World, stack: Stack, expected: str) -> Finding:
    versions = {
        container.name: version_in(world.engine, container.id) if container.running else "not running"
        for worker in stack.of(Role.WORKER)
        for container in worker.containers
    }
    wrong = {name: actual for name, actual in versions.items() if expected and actual != expected.removeprefix("v")}
    details = {"versions": versions}
    if wrong:
        message = ", ".join(f"{name}: {actual or 'nothing'}" for name, actual in wrong.items())
        return fail(f"Not every worker reports {expected}: {message}.", details=details)
    return ok(f"{len(versions)} worker(s) report the same version.", details=details)


def _schema(schema_: Schema) -> Finding:
    return Finding(schema_.status, schema_.summary, details=schema_.to_json())


def _rows(world: World, stack: Stack, tables: Mapping[str, int]) -> Finding:
    return compare_rows(tables, server_of(world.engine, stack).counts(stack.access.name))


def compare_rows(before: Mapping[str, int], after: Mapping[str, int]) -> Finding:
    """Check that no table lost rows; a table that is gone lost all of them. Nothing before, nothing lost."""
    if not before:
        return ok("The data are the previous ones: nothing had changed them yet.")
    lost = {table: (rows, after.get(table, 0)) for table, rows in before.items() if after.get(table, 0) < rows}
    total = f"{sum(before.values())} rows in {len(before)} tables"
    if lost:
        message = ", ".join(f"{table} had {old}, has {new}" for table, (old, new) in sorted(lost.items()))
        return fail(f"Rows are missing: {message}.", details={"lost": {k: list(v) for k, v in lost.items()}})
    return ok(f"No row is missing ({total}).", details={"now": dict(after)})


def _ready(world: World, stack: Stack) -> Finding:
    health = wait_for_api(world, stack, workers=True)
    details = {"checks": dict(health.checks)}
    if health.ready:
        return ok("CHAP is ready: " + (", ".join(health.checks) or "it answers") + ".", details=details)
    return fail(f"CHAP is not ready: {health.problems or health.level}.", details=details)


def _models(world: World, stack: Stack, baseline: Baseline) -> Finding:
    if not baseline.models:
        return skipped("No model service was registered before.")
    chap, missing = Chap(world.engine, stack.api.containers[0].id), [*baseline.models]

    def all_registered(waited: float) -> bool | None:
        missing[:] = sorted(set(baseline.models) - set(chap.models()))
        if missing:
            world.notify("wait", f"for {', '.join(missing)} to register again", waited, MODELS_BACK)
        return None if missing else True

    if not world.until(all_registered, MODELS_BACK, pause=1):
        message = f"Model services did not register again: {', '.join(missing)}."
        restart = ", ".join(f"docker restart {container}" for container in _model_containers(stack))
        return warn(message, hint=f"Restart them: {restart}")
    return ok(f"Registered: {', '.join(baseline.models)}.")


def _model_containers(stack: Stack) -> list[str]:
    return [container.name for service in stack.of(Role.MODEL) for container in service.containers]


def _route(world: World, stack: Stack, baseline: Baseline) -> Finding:
    if not baseline.route:
        return skipped("This project has no DHIS2 with a route to CHAP.")
    now = route_of(world, stack)
    if now != baseline.route:
        return fail(f"DHIS2's route to CHAP pointed at {baseline.route} and now at {now or 'nothing'}.")
    return ok(f"DHIS2's route still points at {now}.")


def _untouched(world: World, stack: Stack, baseline: Baseline) -> Finding:
    now = {
        service.name: {container.id for container in service.containers}
        for service in refreshed(world.engine, stack.project.name).services
    }
    # A container that had ended may be gone after a `docker container prune`.
    changed = [
        name
        for name, ids in baseline.untouched.items()
        if now.get(name, set()) - set(ids)
        or {container_id for container_id, ran in ids.items() if ran} - now.get(name, set())
    ]
    if changed:
        return fail(f"Containers that were not to be touched changed: {', '.join(changed)}.")
    return ok(f"The {len(baseline.untouched)} other services kept their containers.")


def _through_dhis2(world: World, stack: Stack, credentials: Mapping[str, str]) -> Finding:
    if not credentials:
        return skipped("No DHIS2 credentials were given.", hint="See: docker chap upgrade --help")
    (answer,) = Chap(world.engine, stack.api.containers[0].id).dhis2_get(
        stack.of(Role.DHIS2)[0].name, credentials, "/api/routes/chap/run/health"
    )
    details = {"http_status": answer.status, "path": "/api/routes/chap/run/health"}
    if answer.status == 200 and isinstance(answer.json, dict):
        return ok("CHAP answers through DHIS2's route.", details=details)
    if answer.status in (401, 403):
        return warn(f"DHIS2 refused the credentials ({answer.status}).", details=details)
    return fail(f"CHAP does not answer through DHIS2's route ({answer.status}).", details=details)


class EndedAtStart(ChapError):
    """CHAP's API ended at its start; `reason` comes from its log or exit status."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class VerifyFailed(ChapError):
    """The verification failed; `checks` says why."""

    code = "verify"

    def __init__(self, checks: list[Check]) -> None:
        super().__init__(failures(checks))
        self.checks = checks


def raise_if_failed(checks: list[Check]) -> list[Check]:
    """Return the checks. Raise VerifyFailed when one of them failed."""
    if any(check.failed for check in checks):
        raise VerifyFailed(checks)
    return checks
