"""What `docker login` stored is found wherever Docker itself would look, and nowhere else."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from compose_chap.engine.engine import Engine
from compose_chap.engine.link import Link
from compose_chap.engine.registries.docker_login import credentials
from compose_chap.engine.registries.registry import Registry, locate
from compose_chap.engine.sdk import connect
from compose_chap.errors import RegistryError

REGISTRY = "127.0.0.1:5900"
HELPER = '#!/bin/sh\nread server\necho "{\\"Username\\": \\"kept\\", \\"Secret\\": \\"for $server\\"}"\n'


def login(folder: Path, *registries: str, password: str = "s3cret:too", **more: Any) -> Path:
    """Write what `docker login` writes where no credential helper is set up."""
    auth = base64.b64encode(f"chap:{password}".encode()).decode()
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({"auths": {registry: {"auth": auth} for registry in registries}, **more})
    )
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home where nobody is logged in."""
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".docker"


def test_a_plain_login_is_read(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert credentials(["docker"], REGISTRY) is None
    login(home, REGISTRY)
    assert credentials(["docker"], REGISTRY) == ("chap", "s3cret:too")
    assert credentials(["docker"], "other:5000") is None
    monkeypatch.setenv("DOCKER_CONFIG", str(login(tmp_path / "elsewhere", REGISTRY, password="two")))
    assert credentials(["docker"], REGISTRY) == ("chap", "two")


@pytest.mark.parametrize("spelled", [["--config", "{}"], ["--config={}"], ["--config", "/no", "--config", "{}"]])
def test_the_folder_that_docker_was_given_counts(spelled: list[str], home: Path, tmp_path: Path) -> None:
    login(home, REGISTRY, password="not this")
    flags = [word.format(tmp_path / "given") for word in spelled]
    assert credentials(["docker", *flags], REGISTRY) is None
    login(tmp_path / "given", REGISTRY)
    assert credentials(["docker", "-c", "north", *flags], REGISTRY) == ("chap", "s3cret:too")


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io"])
def test_docker_hub_has_several_names(key: str, home: Path) -> None:
    login(home, key)
    for repository in ("chap/chap-core", "docker.io/chap/chap-core", "index.docker.io/chap/chap-core"):
        assert locate(repository) == ("registry-1.docker.io", "chap/chap-core")
        assert credentials(["docker"], locate(repository)[0]) == ("chap", "s3cret:too")
    assert locate("docker.io/postgres") == locate("postgres") == ("registry-1.docker.io", "library/postgres")


@pytest.mark.parametrize("settings", [{"credsStore": "test"}, {"credHelpers": {REGISTRY: "test"}}])
def test_a_helper_is_asked(
    settings: dict[str, Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docker-credential-test").write_text(HELPER)
    (tmp_path / "docker-credential-test").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    login(home, **settings)
    assert credentials(["docker"], REGISTRY) == ("kept", f"for {REGISTRY}")


ODD = [
    *('""', '{"auth": ""}', '{"auth": "x"}', '{"auth": "Y2hhcA=="}', '{"auth": 7}', '{"auth": "é"}', "null", "7", "[]"),
    *("{}", '{"identitytoken": 7}', '{"auth": "//79"}'),
]


@pytest.mark.parametrize(
    "written",
    [
        *("", "{}", "[]", "null", "no json", '{"auths": []}', '{"auths": null}', '{"credHelpers": 7}', "[" * 99999),
        *('{"credsStore": "missing"}', '{"credsStore": 7}', '{"credHelpers": {"127.0.0.1:5900": ["x"]}}'),
        *(f'{{"auths": {{"127.0.0.1:5900": {entry}}}}}' for entry in ODD),
    ],
)
def test_what_cannot_be_used_is_no_login(written: str, home: Path) -> None:
    home.mkdir()
    (home / "config.json").write_text(written)
    assert credentials(["docker"], REGISTRY) is None


@pytest.mark.parametrize("host", [REGISTRY, "docker.io"])
def test_a_pull_takes_the_same_login(host: str, tmp_path: Path) -> None:
    logins: list[Any] = []

    def pull(*names: str, auth_config: Any, **words: Any) -> list[Any]:
        logins.append(auth_config)
        return []

    for name in ("in", "out"):
        engine = Engine(("docker", "--config", str(tmp_path / name)))
        engine.__dict__.update(api=SimpleNamespace(pull=pull), _link=None)
        login(tmp_path / "in", host)
        engine.pull(f"{host}/chap/chap-core", "v2.1.0", "linux/amd64", lambda done, total: None)
    assert [entry.get("password") for entry in logins] == ["s3cret:too", None]


@pytest.mark.parametrize(
    ("repository", "hint"),
    [("chap/chap-core", "docker login"), (f"{REGISTRY}/chap/chap-core", f"docker login {REGISTRY}")],
)
def test_a_missing_login_comes_with_a_hint(repository: str, hint: str) -> None:
    refusal = httpx.Response(401, headers={"WWW-Authenticate": 'Basic realm="chap"'})
    registry = Registry(transport=httpx.MockTransport(lambda _: refusal))
    with pytest.raises(RegistryError) as raised:
        registry.tags(repository)
    assert raised.value.hint == f"Log in with: {hint}"


@pytest.mark.parametrize("entry", ODD)
def test_an_odd_login_hides_no_other_and_does_not_break_the_sdk(
    entry: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = base64.b64encode(b"chap:s3cret").decode()
    home.mkdir()
    (home / "config.json").write_text(f'{{"auths": {{"odd.example": {entry}, "{REGISTRY}": {{"auth": "{auth}"}}}}}}')
    assert credentials(["docker"], REGISTRY) == ("chap", "s3cret")
    monkeypatch.setattr("docker.APIClient._retrieve_server_version", lambda self: "1.41")
    assert connect(Link("unix:///nowhere", "unix:///nowhere")).base_url


def test_settings_that_are_no_file_are_no_login(home: Path) -> None:
    home.mkdir()
    os.mkfifo(home / "config.json")
    assert credentials(["docker"], REGISTRY) is None
