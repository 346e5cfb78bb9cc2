"""Wait for CHAP's jobs to end, and report the jobs that would be lost."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import unquote, urlsplit

from compose_chap.engine.world import World
from compose_chap.errors import EngineError
from compose_chap.model import Role, Stack
from compose_chap.stack.chap import Chap, Jobs

# The queue of Celery that CHAP's jobs wait in.
_QUEUE = "celery"
# Without a password no user is named either. `$AUTH` is not an argument: those of a process can be seen by others.
_QUEUED = (
    "sh",
    "-c",
    "for client in valkey-cli redis-cli; do if command -v $client >/dev/null; then"
    ' [ -z "$REDISCLI_AUTH" ] || user="--user $3";'
    ' exec timeout 2 $client -p "$1" -n "$2" $user LLEN "$4"; fi; done; exit 127',
    "sh",
)


def wait_for_jobs(world: World, stack: Stack, limit: float) -> Jobs:
    """Wait up to `limit` seconds until no job runs or waits, and return the jobs at the end.

    Raise EngineError when CHAP or its workers cannot be asked.
    """
    chap = Chap(world.engine, stack.api.containers[0].id)

    def ended(waited: float) -> Jobs | None:
        jobs = chap.jobs(stack.workers)
        if not (jobs.running or jobs.waiting) or waited >= limit:
            return jobs
        world.notify("drain", f"{len(jobs.running)} running, {len(jobs.waiting)} waiting", waited, limit)
        return None

    return world.until(ended, limit, pause=2) or chap.jobs(stack.workers)


def waiting_jobs(world: World, stack: Stack) -> Jobs | None:
    """Return the jobs that wait for a worker, according to CHAP's own list; those of CHAP itself are in `own`.

    None where CHAP does not run, has no such list, or cannot be asked.
    """
    if not stack.api.running:
        return None
    with suppress(EngineError):
        return Chap(world.engine, stack.api.containers[0].id).waiting_jobs()
    return None


def queued_jobs(world: World, stack: Stack) -> int | None:
    """Return how many jobs wait in the broker, asked with its own client; CHAP need not run.

    None where the broker is not in this project, or its client cannot ask it.
    """
    with suppress(EngineError, ValueError):
        url = urlsplit(stack.api.containers[0].environment.get("CELERY_BROKER", ""))
        brokers = [service.containers[0] for service in stack.of(Role.BROKER) if service.containers]
        named = [container for container in brokers if url.hostname in container.names]
        if url.scheme == "redis" and named:
            question = [str(url.port or 6379), url.path.strip("/") or "0", unquote(url.username or "default"), _QUEUE]
            password = unquote(url.password or "")
            environment = {"REDISCLI_AUTH": password, "VALKEYCLI_AUTH": password} if password else {}
            asked = world.engine.run(named[0].id, [*_QUEUED, *question], environment=environment)
            return int(asked.stdout)
    return None


def take_no_more(world: World, stack: Stack) -> frozenset[str]:
    """Tell the workers to take no more jobs; return the containers of those that surely have none.

    Nothing is lost when these are killed: what is queued from now on waits in the broker for the next workers.
    """
    api, workers = stack.api.containers[0], [c.id for worker in stack.of(Role.WORKER) for c in worker.containers]
    # Without the broker's address CHAP's own code would have to be imported: that takes longer than a worker's stop.
    asked = workers and api.running and api.environment.get("CELERY_BROKER")
    return Chap(world.engine, api.id).idle(workers) if asked else frozenset()


def own_jobs(jobs: Jobs) -> str:
    """Return a message about the jobs that CHAP queued by itself, empty for none."""
    message = f"Jobs that CHAP queued by itself (baselines): {len(jobs.own)}. It queues a lost one again a day later."
    return message if jobs.own else ""


def lost_jobs(world: World, stack: Stack) -> str:
    """Return a message about the jobs that would be lost if CHAP were stopped now, empty for none."""
    api = stack.api.containers[0]
    if not api.running:
        return ""
    try:
        jobs = Chap(world.engine, api.id).jobs(stack.workers)
    except EngineError:
        return "The workers do not say which jobs run. A job that runs when CHAP stops is lost."
    if not (jobs.running or jobs.waiting):
        return own_jobs(jobs)
    running, waiting = len(jobs.running), len(jobs.waiting)
    return f"Jobs: {running} running, which are lost when CHAP stops; {waiting} waiting, which may be lost."
