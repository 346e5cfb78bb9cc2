"""Verify a stack after a change, as checks.

A check has the same fields as in chap-checker: name, status, message, hint, details, duration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

from compose_chap.check import Check, Finding, answered, fail, failures, ok, skipped, warn
from compose_chap.engine.world import World
from compose_chap.errors import ChapError
from compose_chap.model import Role, Stack
from compose_chap.stack import schema
from compose_chap.stack.chap import Chap, Jobs, version_in
from compose_chap.stack.databases import server_of
from compose_chap.stack.observe import refreshed
from compose_chap.stack.schema import Schema
from compose_chap.transaction import wait
from compose_chap.transaction.run.baseline import Baseline, route_of

# A model service registers again within this time after CHAP is back: a keepalive of 10 to 15 s must fail first,
# then 30 s of grace, and a few seconds (observed with servicekit).
MODELS_BACK = 100.0

_NOT_RUNNING = "not running"
_Question = Callable[[World], Finding]


def check_api(
    world: World, stack: Stack, expected: str, tables: Mapping[str, int], now: Mapping[str, int] | None = None
) -> list[Check]:
    """Check the API of a stack: its version, its schema, and that no table has fewer rows than in `tables`.

    `now` are the rows that it has, where they were counted already.
    """
    chap = Chap(world.engine, stack.api.containers[0].id)
    questions: dict[str, _Question] = {
        "chap_version": lambda _: _version("API", chap.version(), expected),
        "schema": lambda world: _schema(schema.of_stack(world, stack)),
        "rows": lambda world: compare_rows(tables, now) if now is not None else _rows(world, stack, tables),
    }
    return _in_parallel(world, questions)


def check_everything(
    world: World, stack: Stack, expected: str, baseline: Baseline, credentials: Mapping[str, str]
) -> list[Check]:
    """Check everything that must be healthy after an operation, once API and workers run."""
    questions: dict[str, _Question] = {
        "worker_version": lambda world: _worker_versions(world, stack, expected),
        "ready": lambda world: _ready(world, stack),
        "models": lambda world: _models(world, stack, baseline),
        "route": lambda world: _route(world, stack, baseline),
        "other_containers": lambda world: _untouched(world, stack, baseline),
    }
    if stack.of(Role.DHIS2):
        questions["dhis2_chap_ping"] = lambda world: _through_dhis2(world, stack, credentials)
    return _in_parallel(world, questions)


def _in_parallel(world: World, questions: Mapping[str, _Question]) -> list[Check]:
    """Return the checks by these names, in their order. Each waits for another program."""
    with world.parallel(len(questions)) as (pool, beside):
        asked = [
            pool.submit(answered, name, world.clock, partial(question, beside)) for name, question in questions.items()
        ]
        return [check.result() for check in asked]


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
    reports = f"The {part} reports {f'version {actual}' if actual else 'no version'}"
    if not expected or actual == expected.removeprefix("v"):
        return ok(f"{reports}.")
    return fail(f"{reports}, not {expected.removeprefix('v')}.")


def _worker_versions(world: World, stack: Stack, expected: str) -> Finding:
    versions = {
        container.name: version_in(world.engine, container.id) if container.running else _NOT_RUNNING
        for worker in stack.of(Role.WORKER)
        for container in worker.containers
    }
    right = {expected.removeprefix("v")} if expected else set(versions.values()) - {_NOT_RUNNING}
    wrong = {name: actual for name, actual in versions.items() if actual not in right or len(right) > 1}
    details = {"versions": versions}
    if wrong:
        message = ", ".join(f"{name}: {actual or 'nothing'}" for name, actual in wrong.items())
        return fail(f"Not every worker reports {expected or 'the same version'}: {message}.", details=details)
    return ok(f"All workers report the same version ({len(versions)} asked).", details=details)


def _schema(schema_: Schema) -> Finding:
    return Finding(schema_.status, schema_.summary, details=schema_.to_json())


def _rows(world: World, stack: Stack, tables: Mapping[str, int]) -> Finding:
    return compare_rows(tables, server_of(world.engine, stack).counts(stack.access.name))


def queued(before: Jobs | None, after: Jobs | None) -> list[Check]:
    """Return a warning about the jobs that were queued while the workers stopped; none where there are none."""
    jobs = sorted(set(after.waiting) - set(before.waiting)) if before and after else []
    if not jobs:
        return []
    message = f"Queued while the workers stopped, and left to the new workers: {', '.join(jobs)}."
    hint = "Check that these jobs finish, and start again any that do not."
    return [Check("queued_jobs", "warn", message, hint, {"jobs": jobs})]


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
    health = wait.wait_for_api(world, stack, workers=True)
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
        return fail(f"Containers that should not have been touched have changed: {', '.join(changed)}.")
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
