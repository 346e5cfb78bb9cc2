"""What `docker login` stored for a registry: for our own requests, and for a pull by the engine."""

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

# Image references and the SDK say `docker.io` for Docker Hub; its API has another host name.
_HUB = "registry-1.docker.io"
_LARGEST = 4 << 20  # bytes of Docker's config file


def stored(command: Sequence[str], registry: str) -> dict[str, Any]:
    """Return what was stored for a registry (`host[:port]`), as the engine takes it with a pull; empty for nothing.

    `command` is `docker` with its global flags; `--config` says where the logins are. Entries that cannot be read are
    ignored, as Docker does.
    """
    import docker.auth
    import docker.errors

    config = _logins(_folder(command) / "config.json")
    if not config:
        return {}
    logins = docker.auth.AuthConfig(config)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a helper that is not installed
            login = logins.resolve_authconfig("docker.io" if registry == _HUB else registry)
    except (OSError, ValueError, LookupError, TypeError, docker.errors.DockerException):
        return {}
    return dict(login or {})


def _logins(path: Path) -> dict[str, Any]:
    """Return the logins in Docker's config file, as the SDK takes them; empty where there are none."""
    try:
        config = parse(read_file(path, _LARGEST, EngineError, links=True), str(path), EngineError)
        entries = auths.members() if (auths := config.get("auths")) else {}
        helpers = configured.members() if (configured := config.get("credHelpers")) else {}
        store = config.get("credsStore")
        logins = {
            "auths": {name: login for name, entry in entries.items() if (login := _login(entry))},
            "credHelpers": {name: helper.text() for name, helper in helpers.items()},
            "credsStore": store.text() if store else None,
        }
    except (FileNotFoundError, EngineError):
        return {}
    return logins if any(logins.values()) else {}


def _login(entry: Value) -> dict[str, str]:
    """Return the login in an entry, empty when it has no usable one."""
    with suppress(EngineError, ValueError):
        if token := entry.get("identitytoken"):
            return {"IdentityToken": token.filled()}
        if auth := entry.get("auth"):
            user, colon, password = base64.b64decode(auth.text()).decode().partition(":")
            return {"username": user, "password": password.rstrip("\0")} if colon else {}
    return {}


def credentials(command: Sequence[str], registry: str) -> tuple[str, str] | None:
    """Return the user and password stored for a registry, None where there are none."""
    # A credential helper answers with capitalised keys, the file itself has small letters.
    login = {key.lower(): value for key, value in stored(command, registry).items()}
    user, password = login.get("username"), login.get("password")
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
