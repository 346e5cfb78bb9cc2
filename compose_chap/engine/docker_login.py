"""What `docker login` stored for a registry: for what is asked of it here, and for a pull by the engine."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Images call Docker Hub `docker.io`, and so does the SDK; the network calls it otherwise.
_HUB = "registry-1.docker.io"


def stored(command: Sequence[str], registry: str) -> dict[str, Any]:
    """Return what was stored for a registry (`host[:port]`), as the engine takes it with a pull; empty for nothing.

    `command` is `docker` with its global flags, of which `--config` says where it is stored.
    """
    import docker.auth
    import docker.errors

    try:
        written = json.loads((_folder(command) / "config.json").read_bytes())
        # Without settings the SDK would look for those of another folder.
        known = docker.auth.load_config(config_dict=written) if written else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a helper that is not installed
            found = known.resolve_authconfig("docker.io" if registry == _HUB else registry) if known else None
    except (OSError, ValueError, docker.errors.DockerException):
        return {}
    return dict(found or {})


def credentials(command: Sequence[str], registry: str) -> tuple[str, str] | None:
    """Return user and password that were stored for a registry, None for none."""
    # A helper's answer is spelled in capitals, an entry of the file itself is not.
    found = {key.lower(): value for key, value in stored(command, registry).items()}
    user, password = found.get("username"), found.get("password")
    return (user, password) if user and password else None


def registry_of(repository: str) -> str:
    """Return the registry of a repository as logins are stored for it."""
    import docker.auth

    return str(docker.auth.resolve_repository_name(repository)[0])


def _folder(command: Sequence[str]) -> Path:
    chosen = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    words = iter(command)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--config":
            chosen = value if equals else next(words, chosen)
    return Path(chosen)
