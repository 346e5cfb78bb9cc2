"""Docker's API over HTTP, at the engine's Unix socket.

Loading the SDK takes longer than most answers of the engine. So what nearly every command asks, and what runs in
containers, goes over HTTP; the SDK does the rest.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlencode

_QUIET_LIMIT = 60


class Refused(Exception):
    """The engine does not do what it is asked, and says why; `status` is that of HTTP."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Http:
    """The engine at a Unix socket (`unix:///…`), asked over HTTP.

    Any thread may ask. Every request raises Refused, and OSError, HTTPException or JSONDecodeError where none answers.
    """

    def __init__(self, address: str) -> None:
        self._path = "/" + address.removeprefix("unix://").lstrip("/")
        # Over ssh each connection is a process here and one on the server.
        self._idle: list[_Connection] = []

    @cached_property
    def _version(self) -> str:
        # A path without a version is deprecated, says Docker.
        connection = self._connection()
        answer = _answer(connection, "HEAD", "/_ping", None, {})
        answer.read()
        self._release(connection, answer)
        version = answer.headers.get("Api-Version")
        return f"/v{version}" if version else ""

    def get(self, path: str, **query: Any) -> Any:
        """Return the answer to a question, parsed."""
        return self._ask("GET", f"{path}?{urlencode(query)}")

    def look_up(self, path: str) -> dict[str, Any] | None:
        """Return what the engine has at a path, which may have a name of it, None where it has nothing."""
        try:
            answer = self.get(quote(path, safe="/:"))
        except Refused as error:
            if error.status == 404:
                return None
            raise
        if not isinstance(answer, dict):
            raise http.client.HTTPException("no JSON object")
        return answer

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the answer to a request, parsed."""
        return self._ask("POST", path, body)

    def upgrade(self, path: str, body: Mapping[str, Any]) -> tuple[_Connection, http.client.HTTPResponse]:
        """Return a connection that is a stream both ways after a request, and the answer, which reads from it."""
        connection = _Connection(self._path)
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
        answer = _answer(connection, "POST", self._version + path, body, upgrade)
        if answer.status != http.client.SWITCHING_PROTOCOLS:
            raise _refusal(answer.status, answer.read())
        return connection, answer

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        path = self._version + path
        connection = self._connection()
        answer = _answer(connection, method, path, body, {})
        text = answer.read()
        self._release(connection, answer)
        if answer.status >= 400:
            raise _refusal(answer.status, text)
        return json.loads(text.decode(errors="replace"))

    def _release(self, connection: _Connection, answer: http.client.HTTPResponse) -> None:
        if not answer.will_close:
            self._idle.append(connection)

    def _connection(self) -> _Connection:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                # An idle connection has nothing to read but its end.
                ended = select.poll()
                ended.register(connection.sock, select.POLLIN)
                if not ended.poll(0):
                    return connection
                connection.close()
        return _Connection(self._path)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_QUIET_LIMIT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def __del__(self) -> None:
        self.close()


def _answer(
    connection: _Connection, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    text = None if body is None else json.dumps(body)
    connection.request(method, path, text, {"Content-Type": "application/json", **headers})
    return connection.getresponse()


def _refusal(status: int, text: bytes) -> Refused:
    why = text.decode(errors="replace").strip()
    with suppress(ValueError, LookupError, TypeError):
        why = str(json.loads(why)["message"])
    return Refused(status, why)
