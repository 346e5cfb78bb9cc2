"""Which engine a docker command reaches: the CLI is asked wherever anything may have chosen one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from compose_chap.engine.link import link, link_of
from tests.sample.steps import eventually

DEFAULT, CHOSEN = "unix:///var/run/docker.sock", "unix:///chosen.sock"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Docker CLI that answers with an engine of its own, and nothing that chooses another."""
    for name in [name for name in os.environ if name.startswith("DOCKER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    program = tmp_path / "docker"
    program.write_text(f'#!/bin/sh\necho \'{{"Host": "{CHOSEN}"}}\'\n')
    program.chmod(0o700)
    return str(program)


def test_without_a_choice_it_is_the_socket(docker: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert link_of([docker]).address == DEFAULT
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text('{"auths": {}, "credsStore": "pass"}')
    assert link_of([docker]).address == DEFAULT
    monkeypatch.delenv("HOME")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    assert link_of([docker]).address == DEFAULT


@pytest.mark.parametrize("flag", ["--context=x", "-cx", "-Htcp://x", "--tls", "--config=x"])
def test_an_option_is_the_clis_to_read(docker: str, flag: str) -> None:
    assert link_of([docker, flag]).address == CHOSEN


@pytest.mark.parametrize("name", ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY"])
def test_a_variable_is_the_clis_to_read(docker: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "")
    assert link_of([docker]).address == CHOSEN


@pytest.mark.parametrize("where", [".docker", "elsewhere"])
@pytest.mark.parametrize("text", ['{"currentContext": "x"}', '{"CURRENTCONTEXT":"x"', '{"currentContext": ""}'])
def test_a_context_in_use_is_the_clis_to_read(
    docker: str, where: str, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / where).mkdir()
    (tmp_path / where / "config.json").write_text(text)
    if where != ".docker":
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / where))
    assert link_of([docker]).address == CHOSEN


def test_a_configuration_that_cannot_be_read_is_the_clis_to_complain_of(docker: str, tmp_path: Path) -> None:
    (tmp_path / ".docker/config.json").mkdir(parents=True)
    assert link_of([docker]).address == CHOSEN


def test_a_bridge_leaves_no_process_behind_and_outlives_a_failure(docker: str) -> None:
    bridge = link([docker], "tcp://127.0.0.1:9").socket.removeprefix("unix://")

    def answer() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(bridge)
            return client.makefile("rb").read()

    for _ in range(20):
        assert answer()
    Path(docker).rename(f"{docker}-away")
    assert answer() == b""
    Path(f"{docker}-away").rename(docker)

    def tidy() -> bool:
        # A child may end after its answer. The next connection sees to it; only its own child may be left then.
        assert answer()
        return [Path(f"/proc/{child}/stat").read_text().split()[2] for child in _children()].count("Z") <= 1

    assert eventually(tidy)


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
