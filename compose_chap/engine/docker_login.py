"""What `docker login` stored for a registry: for what is asked of it here, and for a pull by the engine."""

from __future__ import annotations

import base64
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from compose_chap.errors import EngineError
from compose_chap.reading import Value, parse, read_file

# Images call Docker Hub `docker.io`, and so does the SDK; the network calls it otherwise.
_HUB = "registry-1.docker.io"
_LARGEST = 4 << 20  # bytes of Docker's settings


def stored(command: Sequence[str], registry: str) -> dict[str, Any]:
    """Return what was stored for a registry (`host[:port]`), as the engine takes it with a pull; empty for nothing.

    `command` is `docker` with its global flags, of which `--config` says where it is stored. What is odd there, Docker
    passes over, and so is it here.
    """
    import docker.auth
    import docker.errors

    settings = _settings(_folder(command) / "config.json")
    if not settings:
        return {}
    known = docker.auth.AuthConfig(settings)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a helper that is not installed
            found = known.resolve_authconfig("docker.io" if registry == _HUB else registry)
    except (OSError, ValueError, LookupError, TypeError, docker.errors.DockerException):
        return {}
    return dict(found or {})


def _settings(path: Path) -> dict[str, Any]:
    """Return what Docker's settings say of logins, as the SDK takes it; empty where they say nothing."""
    try:
        settings = parse(read_file(path, _LARGEST, EngineError, links=True), str(path), EngineError)
        entries = auths.members() if (auths := settings.get("auths")) else {}
        helpers = per.members() if (per := settings.get("credHelpers")) else {}
        store = settings.get("credsStore")
        found = {
            "auths": {name: login for name, entry in entries.items() if (login := _login(entry))},
            "credHelpers": {name: helper.text() for name, helper in helpers.items()},
            "credsStore": store.text() if store else None,
        }
    except (FileNotFoundError, EngineError):
        return {}
    return found if any(found.values()) else {}


def _login(entry: Value) -> dict[str, str]:
    """Return the login that an entry holds, empty when it holds none that can be used."""
    with suppress(EngineError, ValueError):
        if token := entry.get("identitytoken"):
            return {"IdentityToken": token.filled()}
        if auth := entry.get("auth"):
            user, colon, password = base64.b64decode(auth.text()).decode().partition(":")
            return {"username": user, "password": password.rstrip("\0")} if colon else {}
    return {}


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
