"""Every server that an operator has a Docker context for, side by side; one that hangs holds up nobody."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.calls import as_promised
from tests.sample.remote import LOOPBACK, Remote, private_config, ssh_server, tls_server
from tests.sample.stack import SampleStack, environment, free_port, run_in

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can run an ssh server of its own"
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """Give contexts of every kind: over ssh, over TLS, and one that refuses."""
    folder = tmp_path_factory.mktemp("fleet")
    with ssh_server(folder / "ssh") as over_ssh, tls_server(folder / "tls") as over_tls:
        over_ssh.docker_context("ssh")
        for name, host in {
            "tls": f"{over_tls.address}{over_tls.tls}",
            "refuses": f"tcp://{LOOPBACK}:{free_port()}",
        }.items():
            over_ssh.docker("context", "create", name, "--docker", f"host={host}")
        yield over_ssh


def status(fleet: Remote, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run_in(folder, "docker", *words, env=fleet.environment)


def test_all_that_answer_are_shown_and_why_the_others_do_not(small: SampleStack, fleet: Remote, tmp_path: Path) -> None:
    small.docker("chap", "backup")
    done = status(fleet, tmp_path, "chap", "status", "--all-contexts", "--time-limit", "200", "--json")
    assert done.returncode == 1 and not done.stderr.count("Error: "), done.stderr
    document = as_promised(done.stdout, "status", 1)
    result = {context["context"]: context for context in document["contexts"]}
    assert set(result) == {"default", "ssh", "tls", "refuses"}
    for name in ("ssh", "tls"):
        assert result[name]["error"] is None and result[name]["server"], result[name]
        [seen] = [context for context in result[name]["stacks"] if context["project"]["name"] == small.project]
        assert seen["health"] and seen["health"]["level"] == "ready", seen["problems"]
        assert seen["last_backup"] and "update_available" in seen, seen
        assert next(context["version"] for context in seen["services"] if context["role"] == "api") == "2.0.0"
    assert result["ssh"]["address"] == fleet.address
    assert "refused" in result["refuses"]["error"]["message"] and not result["refuses"]["stacks"]


@pytest.mark.torture
def test_a_context_that_hangs_delays_no_other(tmp_path: Path) -> None:
    own = Remote("", private_config(tmp_path / "home"), tmp_path / "no.log")
    with socket.create_server((LOOPBACK, 0)) as silent:
        own.docker("context", "create", "hangs", "--docker", f"host=tcp://{LOOPBACK}:{silent.getsockname()[1]}")
        own.docker("context", "create", "refuses", "--docker", f"host=tcp://{LOOPBACK}:{free_port()}")
        begun = time.monotonic()
        done = status(own, tmp_path, "chap", "status", "--all-contexts", "--time-limit", "20")
        assert 20 <= time.monotonic() - begun < 40
    assert done.returncode == 1 and "hangs: It did not answer within 20 seconds." in done.stdout, done.stdout
    assert "refuses: " in done.stdout and "refused" in done.stdout
    left = subprocess.run(["pgrep", "-f", "--", "--context hangs"], capture_output=True, text=True, check=False)
    assert not left.stdout, "a process of it is left"


def test_the_stacks_of_an_engine_are_a_table_too(small: SampleStack, fleet: Remote, tmp_path: Path) -> None:
    # A rootless engine has its socket in a folder of the user.
    own = tmp_path / "docker.sock"
    own.symlink_to(environment().get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))
    fleet.docker("context", "create", "rootless", "--docker", f"host=unix://{own}")
    done = status(fleet, tmp_path, "--context", "rootless", "chap", "status", "--all-stacks")
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split("  ")[0] == "SERVER"
    [row] = [row for row in rows if small.project in row]
    assert "2.0.0" in row and "ready" in row and ("just now" in row or " ago" in row)
    refused = status(fleet, tmp_path, "-H", fleet.address, "chap", "status", "--all-contexts")
    assert refused.returncode == 2 and "-H names one engine" in refused.stderr
