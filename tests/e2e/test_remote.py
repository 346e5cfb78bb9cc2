"""An engine that is reached over ssh, and over TCP with TLS: the same answers, and never another engine's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sample.remote import Remote, ssh_server, tls_server
from tests.sample.stack import SampleStack, free_port, run_in

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can run an ssh server of its own"
)


@pytest.fixture(scope="module", params=["ssh", "tls"])
def remote(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """Give a Docker context, `north`, of each kind."""
    server = ssh_server if request.param == "ssh" else tls_server
    with server(tmp_path_factory.mktemp("remote") / request.param) as engine_address:
        engine_address.docker_context("north")
        yield engine_address


def chap(remote: Remote, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run docker with these words in a folder, in the environment that can go there."""
    return run_in(folder, "docker", *words, env=remote.environment)


def test_it_is_seen_and_backed_up_as_from_its_own_machine(small: SampleStack, remote: Remote, tmp_path: Path) -> None:
    logins = remote.logins
    seen = chap(remote, small.folder, "--context", "north", "chap", "status", "--json")
    assert seen.returncode == 0, seen.stderr
    status = json.loads(seen.stdout)
    assert status["project"]["name"] == small.project and status["health"]["level"] == "ready"
    assert not status["problems"]
    # One login, and one more whenever sshd takes no more sessions on it; one each for all that is asked: over fifty.
    assert remote.logins - logins <= 12

    made = chap(remote, small.folder, "--context", "north", "chap", "backup", "-o", str(tmp_path), "--json")
    assert made.returncode == 0, made.stderr
    backup = json.loads(made.stdout)["backup"]
    assert backup["tables"] == {f"public.{name}": rows for name, rows in small.counts().items()}
    proven = chap(remote, small.folder, "--context", "north", "chap", "verify", backup["folder"])
    assert proven.returncode == 0 and "from beginning to end" in proven.stdout, proven.stderr


def test_what_cannot_be_reached_is_never_the_local_engine(small: SampleStack, remote: Remote) -> None:
    nobody = f"{remote.address.rpartition(':')[0]}:{free_port()}"
    for words in (["--context", "nowhere"], ["--host", nobody]):
        refused = chap(remote, small.folder, *words, "chap", "status")
        assert refused.returncode == 1 and refused.stderr.count("Error: ") == 1, refused.stderr
        assert "Traceback" not in refused.stderr and small.project not in refused.stdout
        assert "nowhere" in refused.stderr or (nobody in refused.stderr and "refused" in refused.stderr)


def test_a_missing_key_or_certificate_is_named(small: SampleStack, remote: Remote, tmp_path: Path) -> None:
    bare = dict(remote.environment)
    expected = "does not answer"
    if not remote.tls:
        plain = tmp_path / "ssh"
        plain.write_text('#!/bin/sh\nexec /usr/bin/ssh -F /dev/null -o BatchMode=yes "$@"\n')
        plain.chmod(0o755)
        bare["PATH"] = f"{tmp_path}{os.pathsep}{bare['PATH']}"
        expected = "Host key verification failed"
    refused = chap(Remote(remote.address, bare, remote.log), small.folder, "--host", remote.address, "chap", "status")
    assert refused.returncode == 1 and remote.address in refused.stderr, refused.stderr
    assert expected in refused.stderr
