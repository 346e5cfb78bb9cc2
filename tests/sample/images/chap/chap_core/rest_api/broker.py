"""The three databases of the broker: messages, jobs, and the registry of model services."""

import functools
import os

import redis

HOST = os.environ.get("REDIS_HOST", "redis")
PORT = int(os.environ.get("REDIS_PORT", "6379"))
MESSAGES = os.environ.get("CELERY_BROKER", f"redis://{HOST}:{PORT}") + "/0"
RESULTS = f"redis://{HOST}:{PORT}/2"


@functools.cache
def jobs() -> redis.Redis:
    """Return where jobs and results are kept: in memory only."""
    return redis.Redis(HOST, PORT, db=2, decode_responses=True, socket_timeout=2, socket_connect_timeout=2)


@functools.cache
def registry() -> redis.Redis:
    """Return where model services are registered, each for a short time."""
    return redis.Redis(HOST, PORT, db=3, decode_responses=True, socket_timeout=2, socket_connect_timeout=2)
