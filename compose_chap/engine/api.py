"""The engine's API: over HTTP, or with the SDK, and its failures as messages for people.

Loading the SDK takes longer than most answers of the engine. So what nearly every command asks, and what runs in
containers, goes over HTTP; the SDK does the rest.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from compose_chap import timeline
from compose_chap.engine.link import Link
from compose_chap.errors import EngineError
from compose_chap.ownership import as_root

if TYPE_CHECKING:
    from docker import APIClient

_QUIET_LIMIT = 60

_CHUNK = 64 * 1024
_STDERR_KEPT = 64 * 1024

# The SDK's HTTP library loads three MiB of tables to guess a character set by, and takes any library of this name for
# that. The engine writes UTF-8.
_GUESSING = ModuleType("charset_normalizer")
setattr(_GUESSING, "__version__", "3.4.0")
setattr(_GUESSING, "detect", lambda _: {"encoding": "utf-8"})
sys.modules.setdefault("charset_normalizer", _GUESSING)


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
        answer = _answer(connection, "POST", path, body, {"Connection": "Upgrade", "Upgrade": "tcp"})
        if answer.status != http.client.SWITCHING_PROTOCOLS:
            raise _refusal(answer.status, answer.read())
        return connection, answer

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        connection = self._connection()
        answer = _answer(connection, method, path, body, {})
        text = answer.read()
        if not answer.will_close:
            self._idle.append(connection)
        if answer.status >= 400:
            raise _refusal(answer.status, text)
        return json.loads(text.decode(errors="replace"))

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


class Execution:
    """A process inside a container, its three standard streams on one connection to the engine."""

    def __init__(self, http: Http, identity: str) -> None:
        """Start the process of an exec that was created. Raise Refused, OSError."""
        self._http, self._identity = http, identity
        self._connection, self._answer = http.upgrade(f"/exec/{identity}/start", {"Detach": False, "Tty": False})
        # The client gives up after 60 quiet seconds; pg_restore is often quiet for longer.
        self._connection.sock.settimeout(None)
        self.stderr = b""

    def send(self, data: bytes) -> None:
        """Write to the standard input of the process. Raise EngineError when it has ended."""
        try:
            self._connection.sock.sendall(data)
        except OSError as error:
            raise EngineError(f"The process in the container ended early: {error.strerror}.") from None

    def end_input(self) -> None:
        """Close the standard input of the process."""
        try:
            self._connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def feed(self, pieces: Iterable[bytes]) -> bool:
        """Write all pieces and end the input; return whether the process read all of them.

        Errors raised by `pieces` pass through.
        """
        all_taken = True
        for data in pieces:
            try:
                self.send(data)
            except EngineError:
                # It ended early: its stderr says why.
                all_taken = False
                break
        self.end_input()
        return all_taken

    def output(self) -> Iterator[bytes]:
        """Yield the standard output as it comes; standard error collects in `stderr` (its last 64 KiB)."""
        while len(header := self._read(8)) == 8:
            stream, left = struct.unpack(">BxxxL", header)

            while left > 0 and (data := self._read(min(left, _CHUNK))):
                left -= len(data)
                if stream == 2:
                    self.stderr = (self.stderr + data)[-_STDERR_KEPT:]
                else:
                    yield data

    def _read(self, size: int) -> bytes:
        # A connection that breaks looks like one that ended: `status` tells the two apart.
        try:
            # Not from the socket: the first bytes of the stream may already sit in the buffer behind the headers.
            return self._answer.fp.read(size)
        except OSError:
            return b""

    def status(self) -> int:
        """Return the exit status of the process after its output ended.

        Raise EngineError when the engine cannot say: then the stream was cut, and the output read so far is incomplete.
        """
        with engine_errors("ask how the process in the container ended"):
            for pause in (*[0.005] * 20, *[0.05] * 100):  # it ends a moment after its output
                inspected = self._http.get(f"/exec/{self._identity}/json")
                if not inspected["Running"] and inspected["ExitCode"] is not None:
                    return int(inspected["ExitCode"])
                time.sleep(pause)
        raise EngineError("The connection to the Docker engine was lost while a command ran in a container.")

    def close(self) -> None:
        """Close the connection; this also ends a process that still runs under the watchdog."""
        self.end_input()
        self._answer.close()
        self._connection.close()


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
                f"No permission to talk to the Docker engine at {link.address if link else 'its socket'}.",
                hint="Add your user to the group docker (then log in again), or run with sudo.",
            ) from None
        last_error = link.last_error if link else ""
        raise EngineError(
            f"Cannot {doing}: the Docker engine{f' at {link.address}' if link else ''} does not answer."
            + (f"\n{last_error}" if last_error else ""),
            state="The state of the stack is unknown until the engine runs.",
            hint=f"Name another with --context, or start it: {as_root('systemctl start docker')}"
            if not link or link.local
            else "See whether Docker alone reaches it, with the same options: docker version",
        ) from None
