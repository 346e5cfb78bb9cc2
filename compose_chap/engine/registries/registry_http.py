"""Requests to a registry: bounded in bytes and time, and a password is never sent to another host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread

import httpx

from compose_chap import timeline
from compose_chap.errors import RegistryError
from compose_chap.reading import Value, parse

_TRIES = 4
_LARGEST = 8 << 20  # bytes of an answer: a page of 1000 tags has some 50 KB
_LONGEST = 60.0  # seconds for an answer, however it drips
_MOST_REDIRECTS = 5


@dataclass(frozen=True)
class Response:
    """An HTTP response: its status, headers and body, and the host that sent it."""

    host: str
    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def good(self) -> bool:
        """Whether the request succeeded."""
        return 200 <= self.status < 300

    def document(self, what: str) -> Value:
        """Return the body as JSON; error messages call it `what`. Raise RegistryError."""
        if not self.good:
            raise RegistryError(f"The registry {self.host} failed (HTTP {self.status}).")
        value = parse(self.body, what, RegistryError)
        _ = value.members()
        return value

    def next_page(self) -> str:
        """Return the path of the next page, empty on the last."""
        following = re.search(r'<([^<>]+)>;\s{0,9}rel="?next', self.headers.get("Link", ""))
        try:
            return httpx.URL(following[1]).raw_path.decode() if following else ""
        except httpx.InvalidURL:
            raise RegistryError(f"The registry {self.host} gives a next page that is not an address.") from None


class RegistryHttp:
    """Requests to a registry, by `httpx`."""

    def __init__(self, transport: httpx.BaseTransport | None, timeout: float) -> None:
        self._client = httpx.Client(transport=transport, timeout=timeout)

    def get(
        self, host: str, url: str, headers: Mapping[str, str], parameters: Mapping[str, str] | None = None
    ) -> Response:
        """Return the answer of a registry, called `host` in errors. Raise RegistryError when it does not answer.

        Redirects are followed: to another host without the login, and never from TLS to plain HTTP.
        """
        try:
            address = httpx.URL(url)
            return self._follow(host, address.copy_merge_params(parameters) if parameters else address, dict(headers))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise RegistryError(
                f"The registry {host} does not answer: {error or type(error).__name__}.",
                hint="Is there a network? Images that are already on the server can be used without it.",
            ) from None

    def _follow(self, host: str, url: httpx.URL, headers: dict[str, str]) -> Response:
        for _ in range(_MOST_REDIRECTS + 1):
            answer = self._fetch_with_retries(host, url, headers)
            if answer.status not in (301, 302, 303, 307, 308) or "Location" not in answer.headers:
                return answer
            target = url.join(answer.headers["Location"])
            if url.scheme == "https" and target.scheme != "https":
                raise RegistryError(f"The registry {host} redirects to an address without TLS ({target.host}).")
            if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
                headers.pop("Authorization", None)
            url = target
        raise RegistryError(f"The registry {host} redirects without end.")

    def _fetch_with_retries(self, host: str, url: httpx.URL, headers: Mapping[str, str]) -> Response:
        # A poor network breaks in the middle of an answer: try again. A registry that never answers is not tried again.
        for _ in range(_TRIES - 1):
            with suppress(httpx.ReadError, httpx.RemoteProtocolError):
                return self._fetch(host, url, headers)
        return self._fetch(host, url, headers)

    def _fetch(self, host: str, url: httpx.URL, headers: Mapping[str, str]) -> Response:
        # httpx limits the time of each read, and an answer may drip from its first header on.
        results: SimpleQueue[Response | Exception] = SimpleQueue()

        def fetch() -> None:
            try:
                results.put(self._fetch_unlimited(host, url, headers))
            except Exception as error:
                results.put(error)

        with timeline.during("question", "registry"):
            Thread(target=fetch, daemon=True).start()
            try:
                result = results.get(timeout=_LONGEST)
            except Empty:
                raise RegistryError(f"The registry {host} does not finish its answer.") from None
        if isinstance(result, Exception):
            raise result
        return result

    def _fetch_unlimited(self, host: str, url: httpx.URL, headers: Mapping[str, str]) -> Response:
        body = bytearray()
        asked = {"Accept-Encoding": "identity", **headers}
        with self._client.stream("GET", url, headers=asked) as answer:
            # Packed several times, a few bytes would unpack to more than the memory.
            if answer.headers.get("Content-Encoding", "identity").lower() not in ("identity", "gzip"):
                raise RegistryError(f"The registry {host} sends an answer packed in a way that nobody asked for.")
            for piece in answer.iter_bytes():
                body += piece
                if len(body) > _LARGEST:
                    raise RegistryError(f"The registry {host} sends an endless answer.")
            return Response(host, answer.status_code, answer.headers, bytes(body))
