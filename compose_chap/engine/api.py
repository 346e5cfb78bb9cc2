"""The client of the engine's API, and its failures as messages for people."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from compose_chap import timeline
from compose_chap.engine.link import Link
from compose_chap.errors import EngineError

if TYPE_CHECKING:
    from docker import APIClient

_QUIET_LIMIT = 60

# The SDK's HTTP library loads three MiB of tables to guess a character set by, and takes any library of this name for
# that. The engine writes UTF-8.
_GUESSING = ModuleType("charset_normalizer")
setattr(_GUESSING, "__version__", "3.4.0")
setattr(_GUESSING, "detect", lambda _: {"encoding": "utf-8"})
sys.modules.setdefault("charset_normalizer", _GUESSING)


def connect(link: Link) -> APIClient:
    """Return a client of the engine at the end of a link. Raise EngineError when it does not answer."""
    import docker
    from docker.transport import UnixHTTPAdapter

    class SinglePool(UnixHTTPAdapter):
        """One connection pool for all requests; the SDK would make a pool for each URL."""

        def get_connection(self, url: str | bytes, proxies: Any = None) -> Any:
            return super().get_connection("engine", proxies)

    _ignore_docker_config()
    with engine_errors("reach the Docker engine", link):
        api = docker.APIClient(base_url=link.socket, version="auto", timeout=_QUIET_LIMIT)
        api.get_adapter("http+docker://").close()
        api.mount("http+docker://", SinglePool(link.socket.replace("unix:", "http+unix:"), _QUIET_LIMIT))
        return api


def _ignore_docker_config() -> None:
    """Keep the SDK from reading Docker's config file: a malformed login there makes it fail, where Docker goes on.

    Each pull passes its own login, and nothing else in that file is used here.
    """
    from docker import auth
    from docker.api import client

    setattr(client, "config", SimpleNamespace(load_general_config=dict))
    setattr(client, "auth", SimpleNamespace(load_config=lambda **_: auth.AuthConfig({})))


@contextmanager
def engine_errors(doing: str, link: Link | None = None) -> Iterator[None]:
    """Turn what the SDK and its HTTP library raise into EngineErrors with a hint."""
    import docker.errors
    import requests.exceptions

    try:
        with timeline.during("engine", doing):
            yield
    except docker.errors.APIError as error:
        raise EngineError(f"Docker could not {doing}: {error.explanation or error}") from None
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        if "Permission denied" in str(error):
            raise EngineError(
                f"No permission to talk to the Docker engine at {link.address if link else 'its socket'}.",
                hint="Add your user to the group docker (then log in again), or run with sudo.",
            ) from None
        last_error = link.last_error if link else ""
        raise EngineError(
            f"Cannot {doing}: the Docker engine{f' at {link.address}' if link else ''} does not answer."
            + (f"\n{last_error}" if last_error else ""),
            state="The state of the stack is unknown until the engine runs.",
            hint="Start it (for example: sudo systemctl start docker), or point to another with --context."
            if not link or link.local
            else "See whether Docker alone reaches it, with the same options: docker version",
        ) from None
