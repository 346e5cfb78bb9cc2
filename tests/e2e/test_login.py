"""A registry that lets nobody in without `docker login`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose_chap.engine.engine import Engine
from compose_chap.errors import EngineError
from tests.e2e.registries import private_registry
from tests.sample.stack import SampleStack, environment, registry

# The password `district`.
USER = "chap:$2b$05$abcdefghijklmnopqrstuutukhLiQKc0L39ipbpqkkPR.7RQdnidq"


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a registry with the sample's images and a password."""
    with private_registry(tmp_path_factory.mktemp("registry"), USER) as address:
        yield address


@pytest.fixture(scope="module")
def stack(private: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """CHAP alone at v2.0.0, its two images named after that registry."""
    stack = SampleStack.create(tmp_path_factory.mktemp("login"))
    file = stack.folder / "compose.yml"
    ours = rf"{re.escape(registry())}(/\S+/chap-(?:core|worker):v2.0.0)"
    names = sorted(set(re.findall(ours, file.read_text())))
    file.write_text(re.sub(ours, rf"{private}\1", file.read_text()))
    try:
        for name in names:
            stack.docker("pull", "-q", f"{registry()}{name}")
            stack.docker("tag", f"{registry()}{name}", f"{private}{name}")
        stack.up()
        yield stack
    finally:
        stack.down()
        for name in names:
            stack.docker("rmi", f"{private}{name}", f"{private}{name.replace('v2.0.0', 'v2.1.0')}", check=False)


@pytest.mark.torture
def test_docker_login_is_enough(
    stack: SampleStack, private: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "cli-plugins").symlink_to(Path(environment()["DOCKER_CONFIG"], "cli-plugins"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def docker(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return stack.docker("--config", str(tmp_path), *words, check=check)

    refused = docker("chap", "versions", check=False)
    assert f"Log in with: docker login {private}" in refused.stderr, refused.stderr
    assert "Only the images on this engine" in refused.stderr and "v2.0.0" in refused.stdout

    docker("login", "-u", "chap", "-p", "district", private)
    assert re.search("v2.0.0 .* running", docker("chap", "versions").stdout)
    done = docker("chap", "upgrade", "v2.1.0", "--digest", "--dry-run")
    assert f"+    image: {private}" in done.stdout and "@sha256:" in done.stdout

    repository = next(
        container["image"] for container in stack.containers().values() if "/chap-core:" in container["image"]
    )
    repository = repository.rpartition(":")[0]
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    Engine(("docker", "--config", str(tmp_path))).pull(repository, "v2.1.0", "linux/amd64", lambda done, total: None)
    with pytest.raises(EngineError):
        Engine(("docker",)).pull(repository, "v2.1.0", "linux/amd64", lambda done, total: None)
