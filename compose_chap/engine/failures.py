"""The engine's failures as messages for people."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager

from compose_chap import timeline
from compose_chap.engine.http import Refused
from compose_chap.engine.link import Link
from compose_chap.errors import EngineError
from compose_chap.ownership import as_root


@contextmanager
def engine_errors(doing: str, link: Link) -> Iterator[None]:
    """Turn what `Http`, the SDK and its HTTP library raise into EngineErrors with a hint."""
    try:
        with timeline.during("engine", doing):
            yield
    except Exception as error:
        import docker.errors

        if isinstance(error, (Refused, docker.errors.APIError)):
            why = getattr(error, "explanation", "") or error
            raise EngineError(f"Docker could not {doing}: {why}") from None
        # What the SDK's HTTP library raises are OSErrors.
        lost = (OSError, http.client.HTTPException, json.JSONDecodeError, docker.errors.DockerException)
        if not isinstance(error, lost):
            raise
        if "Permission denied" in str(error):
            raise EngineError(
                f"No permission to talk to the Docker engine at {link.address}.",
                hint="Add your user to the group docker (then log in again), or run with sudo.",
            ) from None
        raise EngineError(
            f"Cannot {doing}: the Docker engine at {link.address} does not answer.\n{link.last_error}".rstrip(),
            state="The state of the stack is unknown until the engine runs.",
            hint=f"Name another with --context, or start it: {as_root('systemctl start docker')}"
            if link.local
            else "See whether Docker alone reaches it, with the same options: docker version",
        ) from None
