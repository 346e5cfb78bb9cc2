"""Docker's SDK for Python, loaded when it is needed."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from compose_chap.engine.failures import engine_errors
from compose_chap.engine.link import Link

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
