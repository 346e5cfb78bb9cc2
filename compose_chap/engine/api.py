"""The client of the engine's API, and its failures in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from compose_chap import timeline
from compose_chap.engine.link import Link
from compose_chap.errors import EngineError

if TYPE_CHECKING:
    from docker import APIClient

_QUIET_LIMIT = 60


def connect(way: Link) -> APIClient:
    """Return a client of the engine that a link leads to. Raise EngineError when none answers."""
    import docker
    from docker.transport import UnixHTTPAdapter

    class OnePool(UnixHTTPAdapter):
        """Connections that are used again: the SDK keeps them apart by the whole URL of what was asked."""

        def get_connection(self, url: str | bytes, proxies: Any = None) -> Any:
            return super().get_connection("engine", proxies)

    _leave_settings_alone()
    with engine_errors("reach the Docker engine", way):
        api = docker.APIClient(base_url=way.socket, version="auto", timeout=_QUIET_LIMIT)
        api.get_adapter("http+docker://").close()
        api.mount("http+docker://", OnePool(way.socket.replace("unix:", "http+unix:"), _QUIET_LIMIT))
        return api


def _leave_settings_alone() -> None:
    """Keep the SDK from reading Docker's settings: one odd login in them would end it, where Docker goes on.

    Each pull is given its login, and the settings say nothing else that is used here.
    """
    from docker import auth
    from docker.api import client

    setattr(client, "config", SimpleNamespace(load_general_config=dict))
    setattr(client, "auth", SimpleNamespace(load_config=lambda **_: auth.AuthConfig({})))


@contextmanager
def engine_errors(doing: str, way: Link | None = None) -> Iterator[None]:
    """Turn what the SDK and its HTTP library raise into sentences with a way out."""
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
                f"No permission to talk to the Docker engine at {way.address if way else 'its socket'}.",
                hint="Add your user to the group docker (then log in again), or run with sudo.",
            ) from None
        said = way.said if way else ""
        raise EngineError(
            f"Cannot {doing}: the Docker engine{f' at {way.address}' if way else ''} does not answer."
            + (f"\n{said}" if said else ""),
            state="Nothing can be said of the stack until the engine runs.",
            hint="Start it (for example: sudo systemctl start docker), or point to another with --context."
            if not way or way.local
            else "See whether Docker alone reaches it, with the same options: docker version",
        ) from None
