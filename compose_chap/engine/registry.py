"""The image registry's HTTP API: which tags there are, what a tag is. The only door of `httpx`.

Follows the OCI distribution specification, with the token dance of ghcr.io and Docker Hub.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from compose_chap.errors import RegistryError
from compose_chap.image import Reference

_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)

_TRIES = 4

_HUB = "registry-1.docker.io"


@dataclass(frozen=True)
class Manifest:
    """An image as the registry has it: digest, bytes to pull (compressed), layers by digest, time it was made."""

    digest: str
    size: int
    layers: Mapping[str, int]
    created: str


class Registry:
    """Asks registries about images. `insecure` says which of them speak plain HTTP.

    `credentials` gives user and password for a registry, None where it is used without.
    """

    def __init__(
        self,
        insecure: Callable[[str], bool] = lambda registry: False,
        credentials: Callable[[str], tuple[str, str] | None] = lambda registry: None,
        transport: httpx.BaseTransport | None = None,
        timeout: float = 15,
    ) -> None:
        self._insecure = insecure
        self._credentials = credentials
        self._tokens: dict[str, str] = {}
        self._client = httpx.Client(transport=transport, timeout=timeout, follow_redirects=True)

    def tags(self, repository: str) -> list[str]:
        """Return every tag of a repository. Raise RegistryError when the registry does not answer or has none such."""
        host, name = locate(repository)
        found: list[str] = []
        path = f"/v2/{name}/tags/list?n=1000"

        while path:
            answer = self._get(host, name, path)
            if answer.status_code == 404:
                raise RegistryError(f"The registry {host} has no repository {name}.")
            found += self._json(answer, host).get("tags") or []
            following = re.search(r'<([^>]+)>;\s*rel="next"', answer.headers.get("Link", ""))
            path = httpx.URL(following[1]).raw_path.decode() if following else ""
        return found

    def manifest(self, reference: Reference, platform: str = "linux/amd64") -> Manifest | None:
        """Return what the registry has for a reference and platform, None where it has not.

        Raise RegistryError when the registry does not answer.
        """
        host, name = locate(reference.repository)
        answer = self._get(host, name, f"/v2/{name}/manifests/{reference.digest or reference.tag or 'latest'}")
        if answer.status_code == 404:
            return None
        document = self._json(answer, host)
        digest = answer.headers.get("Docker-Content-Digest", "")

        if "manifests" in document:
            system, _, machine = platform.partition("/")
            chosen = [
                entry["digest"]
                for entry in document["manifests"]
                if entry.get("platform", {}).get("os") == system
                and entry["platform"].get("architecture") == machine.partition("/")[0]
            ]
            if not chosen:
                return None
            document = self._json(self._get(host, name, f"/v2/{name}/manifests/{chosen[0]}"), host)

        layers = {layer["digest"]: int(layer["size"]) for layer in document.get("layers", ())}
        configuration = self._get(host, name, f"/v2/{name}/blobs/{document['config']['digest']}")
        created = self._json(configuration, host).get("created") or "" if configuration.is_success else ""
        return Manifest(digest, sum(layers.values()), layers, created)

    def _get(self, host: str, name: str, path: str) -> httpx.Response:
        scheme = "http" if self._insecure(host) else "https"
        url = f"{scheme}://{host}{path}"
        headers = {"Accept": _MANIFESTS}

        try:
            if token := self._tokens.get(f"{host}/{name}"):
                headers["Authorization"] = token
            answer = self._ask(url, headers)
            if answer.status_code == 401:
                headers["Authorization"] = self._tokens[f"{host}/{name}"] = self._authorize(host, name, answer)
                answer = self._ask(url, headers)
        except httpx.HTTPError as error:
            raise RegistryError(
                f"The registry {host} does not answer: {error or type(error).__name__}.",
                hint="Is there a network? Images that are already on the server can be used without it.",
            ) from None

        if answer.status_code in (401, 403):
            raise RegistryError(
                f"The registry {host} does not let us read {name}.",
                hint=f"Log in with: docker login {'' if host == _HUB else host}".rstrip(),
            )
        return answer

    def _ask(self, url: httpx.URL | str, headers: Mapping[str, str]) -> httpx.Response:
        # A poor link breaks in the middle of an answer. One that does not answer at all is not asked again.
        for _ in range(_TRIES - 1):
            with suppress(httpx.ReadError, httpx.RemoteProtocolError):
                return self._client.get(url, headers=headers)
        return self._client.get(url, headers=headers)

    def _authorize(self, host: str, name: str, refusal: httpx.Response) -> str:
        challenge = refusal.headers.get("WWW-Authenticate", "")
        known = self._credentials(host)
        basic = "Basic " + base64.b64encode(":".join(known).encode()).decode() if known else ""

        if challenge.lower().startswith("basic"):
            return basic
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        if "realm" not in fields:
            raise RegistryError(f"The registry {host} asks for a login that this tool does not know.")
        question = {"service": fields.get("service", host), "scope": f"repository:{name}:pull"}
        url = httpx.URL(fields["realm"]).copy_merge_params(question)
        answer = self._ask(url, {"Authorization": basic} if basic else {})
        document = self._json(answer, host)
        return "Bearer " + str(document.get("token") or document.get("access_token") or "")

    @staticmethod
    def _json(answer: httpx.Response, host: str) -> dict[str, Any]:
        try:
            answer.raise_for_status()
            document = answer.json()
        except (httpx.HTTPStatusError, ValueError):
            raise RegistryError(f"The registry {host} answered {answer.status_code} where an answer was due.") from None
        if not isinstance(document, dict):
            raise RegistryError(f"The registry {host} answered something that is no registry's answer.")
        return document


def locate(repository: str) -> tuple[str, str]:
    """Return host and name of a repository, Docker Hub's defaults filled in."""
    host, slash, name = repository.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, name = "docker.io", repository
    if host not in ("docker.io", "index.docker.io"):
        return host, name
    return _HUB, name if "/" in name else f"library/{name}"


def is_loopback(registry: str) -> bool:
    """Whether a registry is on this machine, which Docker speaks to without TLS."""
    host = registry.rpartition(":")[0] or registry
    return host == "localhost" or host.startswith("127.")
