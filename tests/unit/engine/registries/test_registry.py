"""The registry's answers: what is odd ends in one clear error, and a password goes to nobody else."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from compose_chap.engine.registries import registry_http
from compose_chap.engine.registries.registry import Registry, challenges, may_know_the_password
from compose_chap.errors import RegistryError
from compose_chap.image import Reference

HOST = "registry.example"
IMAGE = Reference(f"{HOST}/chap-core", "v2.1.0")
CONFIG = "sha256:" + "c" * 64
LAYER = "sha256:" + "a" * 64
MANIFEST = {"config": {"digest": CONFIG}, "layers": [{"digest": LAYER, "size": 7}]}
SECRET = base64.b64encode(b"chap:s3cret/with:all").decode()


def registry(answer: Callable[[httpx.Request], httpx.Response], **more: Any) -> Registry:
    return Registry(transport=httpx.MockTransport(answer), **more)


def with_manifest(document: Any, **headers: str) -> Registry:
    def answer(request: httpx.Request) -> httpx.Response:
        if "/blobs/" in request.url.path:
            return httpx.Response(200, json={"created": "2026-01-01T00:00:00Z"})
        return httpx.Response(200, json=document, headers=headers)

    return registry(answer)


def test_a_digest_that_the_registry_does_not_name_is_computed() -> None:
    manifest = with_manifest(MANIFEST).manifest(IMAGE)
    body = httpx.Response(200, json=MANIFEST).content
    assert manifest and manifest.digest == "sha256:" + hashlib.sha256(body).hexdigest()
    assert manifest.layers == {LAYER: 7} and manifest.created.startswith("2026")


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ([], "the document is not an object"),
        ({**MANIFEST, "layers": {}}, "layers is not a list"),
        ({**MANIFEST, "layers": [7]}, r"layers\[0\] is not an object"),
        ({**MANIFEST, "layers": [{"digest": LAYER}]}, r"layers\[0\].size is missing"),
        ({**MANIFEST, "layers": [{"digest": LAYER, "size": "7"}]}, r"layers\[0\].size is not a whole number"),
        ({**MANIFEST, "layers": [{"digest": LAYER, "size": -7}]}, r"layers\[0\].size is not between"),
        ({**MANIFEST, "layers": [{"digest": LAYER, "size": 1e300}]}, r"layers\[0\].size is not a whole number"),
        ({"config": {"digest": "../../etc"}}, "config.digest is not a digest"),
        ({"config": "x"}, "config is not an object"),
        ({"manifests": "x"}, "manifests is not a list"),
        ({"manifests": [{"platform": {"os": "linux", "architecture": "amd64"}}]}, r"manifests\[0\].digest is missing"),
        ({"schemaVersion": 1, "fsLayers": [], "history": []}, "schema 1"),
    ],
)
def test_an_odd_manifest_raises_an_error_with_the_field(document: Any, why: str) -> None:
    with pytest.raises(RegistryError, match=why):
        with_manifest(document).manifest(IMAGE)


def test_an_index_whose_entries_say_no_platform_has_none_that_fits() -> None:
    assert (
        with_manifest({"manifests": [{"digest": LAYER}, {"platform": None}, {"platform": {}}]}).manifest(IMAGE) is None
    )


@pytest.mark.parametrize("digest", ["rubbish", "sha256:" + "f" * 64])
def test_a_digest_that_is_not_that_of_the_answer_is_refused(digest: str) -> None:
    with pytest.raises(RegistryError, match="not a digest such as|sends something else"):
        with_manifest(MANIFEST, **{"Docker-Content-Digest": digest}).manifest(IMAGE)


@pytest.mark.parametrize("tags", ["v2.0.0", 7, {"v2.0.0": 1}, [7], [None], [["v2.0.0"]]])
def test_tags_of_another_type_raise_an_error(tags: Any) -> None:
    with pytest.raises(RegistryError, match="The list of tags of chap-core at registry.example cannot be used: tags"):
        registry(lambda _: httpx.Response(200, json={"tags": tags})).tags(IMAGE.repository)


def test_no_tags_are_none() -> None:
    assert registry(lambda _: httpx.Response(200, json={"tags": None})).tags(IMAGE.repository) == []


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"tags": NaN}', b"[" * 100_000, b"\xff\xfe"])
def test_an_invalid_document_raises_an_error(body: bytes) -> None:
    with pytest.raises(RegistryError, match="cannot be used"):
        registry(lambda _: httpx.Response(200, content=body)).tags(IMAGE.repository)


def test_a_next_page_that_repeats_ends() -> None:
    link = {"Link": '</v2/chap-core/tags/list?n=1000&last=x>; rel="next"'}
    with pytest.raises(RegistryError, match="sends an endless list of tags"):
        registry(lambda _: httpx.Response(200, json={"tags": []}, headers=link)).tags(IMAGE.repository)


def test_pages_without_end_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compose_chap.engine.registries.registry._MOST_PAGES", 20)
    count = itertools.count()

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"tags": []}, headers={"Link": f'</v2/x?last={next(count)}>; rel="next"'})

    with pytest.raises(RegistryError, match="sends an endless list of tags"):
        registry(answer).tags(IMAGE.repository)
    assert next(count) == 20


def test_an_answer_of_400_megabytes_is_not_read_to_its_end() -> None:
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(400):
            sent += 1 << 20
            yield b" " * (1 << 20)

    with pytest.raises(RegistryError, match="sends an endless answer"):
        registry(lambda _: httpx.Response(200, content=pieces())).tags(IMAGE.repository)
    assert sent < 20 << 20


def test_an_answer_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_http, "_LONGEST", 0.5)

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            time.sleep(0.05)
            yield b" "

    begun = time.monotonic()
    with pytest.raises(RegistryError, match="does not finish its answer"):
        registry(lambda _: httpx.Response(200, content=pieces())).tags(IMAGE.repository)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("location", ["https://[", "gopher://x/", "https://registry.example/again"])
def test_a_redirect_to_nowhere_raises_an_error(location: str) -> None:
    with pytest.raises(RegistryError, match=r"registry\.example (does not answer|redirects)"):
        registry(lambda _: httpx.Response(307, headers={"Location": location})).tags(IMAGE.repository)


# The password


class Trap:
    """A registry with a password that tries to have it sent elsewhere; it notes who was sent what."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self.sent: list[tuple[str, str]] = []

        def noted(request: httpx.Request) -> httpx.Response:
            self.sent.append((f"{request.url.scheme}://{request.url.host}", request.headers.get("Authorization", "")))
            return answer(request)

        self.registry = registry(noted, credentials=lambda _: ("chap", "s3cret/with:all"))

    def who_knows(self) -> set[str]:
        """Return who was sent the password."""
        return {who for who, what in self.sent if SECRET in what}


def asks(challenge: str) -> httpx.Response:
    return httpx.Response(401, headers={"WWW-Authenticate": challenge})


@pytest.mark.parametrize("realm", ["https://evil.example/token", "http://registry.example/token", "//evil.example/t"])
def test_a_realm_elsewhere_or_without_tls_is_not_sent_the_password(realm: str) -> None:
    trap = Trap(
        lambda request: httpx.Response(403) if "/t" in request.url.path[:2] else asks(f'Bearer realm="{realm}"')
    )
    with pytest.raises(RegistryError) as refused:
        trap.registry.tags(IMAGE.repository)
    assert trap.who_knows() == set()
    if realm.startswith("http"):
        assert f"wants the password sent to {realm}" in refused.value.message
        assert "The password was not sent" in refused.value.state
        assert refused.value.hint.endswith(f"docker pull {HOST}/chap-core:VERSION")


@pytest.mark.parametrize("location", ["https://evil.example/v2/x", "https://registry.example:8443/v2/x"])
def test_a_redirect_elsewhere_is_not_sent_the_password(location: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == HOST and request.url.port is None and not request.headers.get("Authorization"):
            return asks('Basic realm="x"')
        if request.url.host == HOST and request.url.port is None:
            return httpx.Response(307, headers={"Location": location})
        return httpx.Response(200, json={"tags": ["v2.0.0"]})

    trap = Trap(answer)
    assert trap.registry.tags(IMAGE.repository) == ["v2.0.0"]
    assert trap.who_knows() == {f"https://{HOST}"}
    assert trap.sent[-1][1] == ""


def test_a_redirect_out_of_tls_is_not_followed() -> None:
    trap = Trap(lambda request: httpx.Response(307, headers={"Location": f"http://{HOST}/v2/x"}))
    with pytest.raises(RegistryError, match="redirects to an address without TLS"):
        trap.registry.tags(IMAGE.repository)
    assert {who for who, _ in trap.sent} == {f"https://{HOST}"}


def test_the_token_server_of_a_registry_is_sent_the_password_and_nobody_else() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/token":
            return httpx.Response(200, json={"token": "t0ken"})
        if request.headers.get("Authorization") == "Bearer t0ken":
            return httpx.Response(200, json={"tags": ["v2.0.0"]})
        return asks(f'Basic realm="x", Bearer realm="https://{request.url.host}/token",service="x"')

    trap = Trap(answer)
    assert trap.registry.tags(IMAGE.repository) == ["v2.0.0"]
    assert trap.who_knows() == {f"https://{HOST}"}


def test_a_token_server_that_refuses_says_how_to_log_in() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/token":
            return httpx.Response(403, json={"errors": [{"code": "DENIED"}]})
        return asks(f'Bearer realm="https://{HOST}/token"')

    with pytest.raises(RegistryError, match="does not let us read chap-core") as refused:
        registry(answer).tags(IMAGE.repository)
    assert refused.value.hint == f"Log in with: docker login {HOST}"


@pytest.mark.parametrize("body", [{"token": 7}, {"token": ["x"]}, [], {"token": ""}])
def test_an_invalid_token_raises_an_error(body: Any) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/token":
            return httpx.Response(200, content=json.dumps(body).encode())
        return asks(f'Bearer realm="https://{HOST}/token"')

    with pytest.raises(RegistryError, match="token server"):
        registry(answer).tags(IMAGE.repository)


@pytest.mark.parametrize(
    ("ours", "realm", "may"),
    [
        ("https://ghcr.io/v2/", "https://ghcr.io/token", True),
        ("https://registry-1.docker.io/v2/", "https://auth.docker.io/token", True),
        ("https://registry.gitlab.com/v2/", "https://gitlab.com/jwt/auth", True),
        ("https://registry.example:5000/v2/", "https://registry.example:5001/auth", True),
        ("http://127.0.0.1:5000/v2/", "http://127.0.0.1:5001/auth", True),
        ("http://127.0.0.1:5000/v2/", "https://127.0.0.1:5001/auth", True),
        ("https://registry.example/v2/", "http://registry.example/auth", False),
        ("https://ghcr.io/v2/", "https://auth.docker.io/token", False),
        ("https://ghcr.io/v2/", "https://ghcr.io.evil.example/token", False),
        ("https://ghcr.io/v2/", "https://ghcr.io@evil.example/token", False),
        ("https://ghcr.io/v2/", "", False),
        ("https://ghcr.io/v2/", "https://[", False),
    ],
)
def test_who_may_know_the_password(ours: str, realm: str, may: bool) -> None:
    assert may_know_the_password(ours, realm) is may


@pytest.mark.parametrize(
    "headers",
    [
        ['Bearer realm="https://r/t",service="s"'],
        ['Basic realm="Registry, Realm", Bearer realm="https://r/t",service="s"'],
        ['Basic realm="Registry"', 'bearer realm="https://r/t", service="s"'],
        ['Negotiate, Basic realm="x", BEARER service=s, realm="https://r/t"'],
    ],
)
def test_bearer_is_taken_wherever_it_stands(headers: list[str]) -> None:
    assert challenges(headers)["bearer"] == {"realm": "https://r/t", "service": "s"}


def test_what_is_no_challenge_is_none() -> None:
    assert challenges([]) == challenges([""]) == {}
    assert challenges(["Negotiate"]) == {"negotiate": {}}


@pytest.mark.parametrize("encoding", ["gzip, gzip", "deflate, gzip", "br", "zstd", "x"])
def test_an_answer_that_is_packed_more_than_once_is_not_unpacked(encoding: str) -> None:
    content = gzip.compress(gzip.compress(b" " * (200 << 20), 9), 9)
    assert len(content) < 10_000
    tracemalloc.start()
    try:
        with pytest.raises(RegistryError, match="packed in a way that nobody asked for"):
            registry(
                lambda _: httpx.Response(200, content=iter([content]), headers={"Content-Encoding": encoding})
            ).tags(IMAGE.repository)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_an_answer_that_is_packed_once_is_read() -> None:
    content = gzip.compress(json.dumps({"tags": ["v2.1.0"]}).encode())

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return httpx.Response(200, content=iter([content]), headers={"Content-Encoding": "gzip"})

    assert registry(answer).tags(IMAGE.repository) == ["v2.1.0"]


def test_headers_that_drip_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_http, "_LONGEST", 0.5)
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        with listener, suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                for _ in range(200):
                    connection.sendall(b"x")
                    time.sleep(0.05)

    threading.Thread(target=drip, daemon=True).start()
    begun = time.monotonic()
    with pytest.raises(RegistryError, match="does not finish its answer"):
        Registry(insecure=lambda _: True).tags(f"127.0.0.1:{listener.getsockname()[1]}/chap-core")
    assert time.monotonic() - begun < 5
