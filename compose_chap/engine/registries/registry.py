"""The image registry's API: which tags exist, and what each tag is.

Follows the OCI distribution specification, with the token authentication of ghcr.io and Docker Hub.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx

from compose_chap.engine.registries.registry_http import RegistryHttp, Response
from compose_chap.errors import RegistryError
from compose_chap.image import Reference
from compose_chap.reading import Value

_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)

_HUB = "registry-1.docker.io"
_TOKEN_SERVERS = {_HUB: "auth.docker.io", "registry.gitlab.com": "gitlab.com"}

_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,}")
# A scheme, or one of its fields: `Bearer realm="https://...",service="..."`.
_CHALLENGE = re.compile(
    r'([A-Za-z][\w-]*)(?=\s+[\w-]+\s*=|\s*(?:,|$))|([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))'
)

_LONGEST_CHALLENGE = 4096
_MOST_PAGES, _MOST_PLATFORMS, _MOST_LAYERS = 500, 1000, 1000


@dataclass(frozen=True)
class ImageManifest:
    """An image as the registry has it: digest, layers by digest with their bytes (compressed), time it was made."""

    digest: str
    layers: Mapping[str, int]
    created: str


class Registry:
    """A client of image registries. `insecure` says which of them speak plain HTTP.

    `credentials` returns user and password for a registry, None for anonymous access.
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
        self._http = RegistryHttp(transport, timeout)

    def tags(self, repository: str) -> list[str]:
        """Return every tag of a repository. Raise RegistryError when there is no answer or no such repository."""
        host, name = locate(repository)
        names: list[str] = []
        path, seen = f"/v2/{name}/tags/list?n=1000", set[str]()

        while path:
            if path in seen or len(seen) >= _MOST_PAGES:
                raise RegistryError(f"The registry {host} sends an endless list of tags of {name}.")
            seen.add(path)
            answer = self._get(host, name, path)
            if answer.status == 404:
                raise RegistryError(f"The registry {host} has no repository {name}.")
            page = answer.document(f"The list of tags of {name} at {host}").get("tags")
            names += page.texts() if page else ()
            path = answer.next_page()
        return names

    def manifest(self, reference: Reference, platform: str = "linux/amd64") -> ImageManifest | None:
        """Return the manifest of a reference for a platform, None where the registry has none.

        Raise RegistryError when the registry does not answer, or its answer is not an image.
        """
        host, name = locate(reference.repository)
        answer = self._get(host, name, f"/v2/{name}/manifests/{reference.digest or reference.tag or 'latest'}")
        if answer.status == 404:
            return None
        document, body = answer.document(f"The manifest of {reference} at {host}"), answer.body

        if manifests := document.get("manifests"):
            chosen = [entry for entry in manifests.items(_MOST_PLATFORMS) if _is_for(entry, platform)]
            if not chosen:
                return None
            digest = _digest(chosen[0].at("digest"))
            document = self._get(host, name, f"/v2/{name}/manifests/{digest}").document(
                f"The manifest {digest} of {name} at {host}"
            )
        if not document.get("config"):
            raise RegistryError(
                f"Docker cannot pull {reference} from {host}: it is in the old format schema 1, or another.",
                hint="Pull it with an old Docker and push it again, or build it again.",
            )
        listed = document.get("layers")
        items = listed.items(_MOST_LAYERS) if listed else ()
        layers = {_digest(layer.at("digest")): layer.at("size").integer() for layer in items}
        configuration = self._get(host, name, f"/v2/{name}/blobs/{_digest(document.at('config').at('digest'))}")
        created = None
        if configuration.good:
            created = configuration.document(f"The configuration of {reference} at {host}").get("created")
        claimed = answer.headers.get("Docker-Content-Digest", "") or f"sha256:{hashlib.sha256(body).hexdigest()}"
        digest = _digest(Value(claimed, f"The answer of {host}", RegistryError, "Docker-Content-Digest"))
        if digest.startswith("sha256:") and digest != f"sha256:{hashlib.sha256(body).hexdigest()}":
            raise RegistryError(f"The registry {host} says that {reference} is {digest}, but sends something else.")
        return ImageManifest(digest, layers, created.text(64) if created else "")

    def _get(self, host: str, name: str, path: str) -> Response:
        url = f"{'http' if self._insecure(host) else 'https'}://{host}{path}"
        headers = {"Accept": _MANIFESTS}
        if token := self._tokens.get(f"{host}/{name}"):
            headers["Authorization"] = token
        answer = self._http.get(host, url, headers)
        if answer.status == 401:
            headers["Authorization"] = self._tokens[f"{host}/{name}"] = self._authorize(host, name, url, answer)
            answer = self._http.get(host, url, headers)
        if answer.status in (401, 403):
            raise _refused(host, name)
        return answer

    def _authorize(self, host: str, name: str, url: str, refusal: Response) -> str:
        """Return the Authorization header that the registry's refusal asks for. Raise RegistryError."""
        known = self._credentials(host)
        basic = "Basic " + base64.b64encode(":".join(known).encode()).decode() if known else ""
        offered = challenges(refusal.headers.get_list("WWW-Authenticate"))
        if "bearer" not in offered:
            if "basic" in offered:
                return basic
            raise RegistryError(f"The registry {host} asks for a login that this tool does not know.")
        fields = offered["bearer"]
        realm = fields.get("realm", "")
        question = {"service": fields.get("service", host), "scope": f"repository:{name}:pull"}
        trusted = may_know_the_password(url, realm)
        answer = self._http.get(host, realm, {"Authorization": basic} if basic and trusted else {}, question)
        if answer.status in (401, 403):
            raise _refused(host, name, "" if trusted or not basic else realm)
        document = answer.document(f"The answer of the token server of {host}")
        token = document.get("token") or document.get("access_token")
        return f"Bearer {token.filled()}" if token else ""


def challenges(headers: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the ways to log in that WWW-Authenticate headers offer: scheme (small letters) and its fields."""
    schemes: dict[str, dict[str, str]] = {}
    fields: dict[str, str] = {}
    for scheme, name, quoted, plain in _CHALLENGE.findall(", ".join(headers)[:_LONGEST_CHALLENGE]):
        if scheme:
            fields = schemes.setdefault(scheme.lower(), {})
        else:
            fields[name.lower()] = plain or re.sub(r"\\(.)", r"\1", quoted)
    return schemes


def may_know_the_password(registry: str, realm: str) -> bool:
    """Whether a token server (URL) may get the password of a registry (URL).

    Only the same host may, and never without TLS where the registry uses TLS. The token servers of Docker Hub and
    GitLab have another host name, which is known.
    """
    try:
        ours, theirs = httpx.URL(registry), httpx.URL(realm)
    except httpx.InvalidURL:
        return False
    same = theirs.host == ours.host or theirs.host == _TOKEN_SERVERS.get(ours.host)
    return same and (theirs.scheme == "https" or ours.scheme == theirs.scheme == "http")


def _refused(host: str, name: str, realm: str = "") -> RegistryError:
    login = f"Log in with: docker login {'' if host == _HUB else host}".rstrip()
    if not realm:
        return RegistryError(f"The registry {host} does not let us read {name}.", hint=login)
    return RegistryError(
        f"The registry {host} does not let us read {name} without a login, and wants the password sent to {realm}.",
        state="The password was not sent: it is for the registry alone.",
        hint=f"Pull the images yourself, then name the version: docker pull {host}/{name}:VERSION",
    )


def _digest(value: Value) -> str:
    text = value.text(256)
    if not _DIGEST.fullmatch(text):
        raise value.wrong("is not a digest such as sha256:...")
    return text


def _is_for(entry: Value, platform: str) -> bool:
    """Whether an entry of an index is the image for a platform such as `linux/amd64`."""
    system, _, machine = platform.partition("/")
    described = entry.get("platform")
    wanted = {"os": system, "architecture": machine.partition("/")[0]}
    return described is not None and all(
        (part := described.get(name)) and part.data == value for name, value in wanted.items()
    )


def locate(repository: str) -> tuple[str, str]:
    """Return host and name of a repository, Docker Hub's defaults filled in."""
    host, slash, name = repository.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, name = "docker.io", repository
    if host not in ("docker.io", "index.docker.io"):
        return host, name
    return _HUB, name if "/" in name else f"library/{name}"
