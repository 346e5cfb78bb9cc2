"""A run in the background on a server with systemd: it is a unit, outlives the login, and is stopped in order."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from build import recipe
from tests.e2e.calls import until
from tests.install.roots import archive
from tests.sample.images import LABEL, PREFIX
from tests.sample.stack import SampleStack, environment

pytestmark = pytest.mark.install

IMAGE = f"{PREFIX}/systemd:bookworm"
SERVER = f"{PREFIX.replace('/', '-')}-systemd"
RECIPE = f"""
FROM {PREFIX}/bare:bookworm
LABEL {LABEL}
RUN apt-get -qq update && apt-get -qq install -y --no-install-recommends systemd dbus python3 git
# What is in a temporary folder at its start is nothing that it may clear away.
RUN systemctl mask systemd-tmpfiles-setup.service systemd-tmpfiles-clean.timer systemd-tmpfiles-clean.service
CMD ["/lib/systemd/systemd"]
"""


@pytest.fixture(scope="module")
def server() -> Iterator[SampleStack]:
    """Give a stack with a server beside it, Debian 12 with systemd as its first process, that shares its engine."""
    # Not below /tmp, which a server clears when it starts.
    folder = recipe.OUT / "systemd"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stack = SampleStack.create(folder)
    try:
        stack.up()
        stack.fill(rows=2_000)
        start(folder)
        until(lambda: inside("systemctl", "is-system-running", check=False).strip() in ("running", "degraded"), 60)
        yield stack
    finally:
        docker("rm", "-f", SERVER, check=False)
        stack.down()


def test_it_is_a_unit_and_gives_its_result_to_whoever_follows(server: SampleStack) -> None:
    begun = chap(server, "backup", "--detach", "--json")["detached"]
    assert begun["unit"] == f"docker-chap-{begun['id']}"
    followed = chap(server, "attach", "--json")
    # What it wrote is the document that --json asked it for.
    assert followed["ok"] and json.loads(followed["output"])["backup"]["proven_by"] == "read back"
    assert followed["detached"]["exit_status"] == 0


def test_what_a_login_leaves_behind_is_killed_and_the_run_goes_on(server: SampleStack) -> None:
    # A scope is what a login is to systemd.
    login = ["systemd-run", "--quiet", "--scope", "--unit=login", "docker", "chap", "rehearse", "v2.1.0", "--detach"]
    inside("sh", "-c", f"cd {server.folder} && exec {' '.join(login)}")
    inside("systemctl", "kill", "--signal=KILL", "login.scope", check=False)
    unit = chap(server, "status", "--json")["detached"]["unit"]
    assert inside("systemctl", "is-active", unit).strip() == "active"
    assert chap(server, "attach", "--json")["detached"]["exit_status"] == 0


def test_systemctl_stop_puts_everything_back(server: SampleStack) -> None:
    begun = chap(server, "upgrade", "v2.1.0", "--yes", "--detach", "--json")["detached"]
    file = server.folder / ".docker-chap" / "journal.json"
    until(lambda: file.exists() and '"stop"' in file.read_text(), 120)
    inside("systemctl", "stop", begun["unit"])
    ended = chap(server, "attach", "--json", expect=130)["detached"]
    assert not ended["running"] and server.version() == "2.0.0"
    assert chap(server, "history", "--json")["entries"][-1]["result"] == "cancelled"


def start(folder: Path) -> None:
    """Start the server, which shares a folder with this machine; its image is made where it is missing."""
    if not shutil.which("mmdebstrap") or os.geteuid() != 0:
        pytest.fail("Root and mmdebstrap are needed: apt-get install mmdebstrap")
    docker("import", "--change", f"LABEL {LABEL}", str(archive("bookworm")), f"{PREFIX}/bare:bookworm")
    subprocess.run(
        ["docker", "build", "-q", "--network", "host", "-t", IMAGE, "-"],
        input=RECIPE, env=environment(), text=True, check=True, capture_output=True,
    )  # fmt: skip
    # Not below /run, which is empty when the server starts.
    socket = environment().get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    config = environment()["DOCKER_CONFIG"]
    shared = {
        socket: "/srv/docker.sock",
        str(Path(shutil.which("docker") or "docker").resolve()): "/usr/bin/docker",
        str(recipe.PLUGIN): "/usr/libexec/docker/cli-plugins/docker-chap",
        f"{config}/cli-plugins/docker-compose": "/usr/libexec/docker/cli-plugins/docker-compose",
        str(folder): str(folder),
    }
    mounts = [
        word for here, inside_path in shared.items() for word in ("-v", f"{os.path.realpath(here)}:{inside_path}")
    ]
    docker(
        *("run", "-d", "--name", SERVER, "--label", LABEL, "--network", "host", "--tmpfs", "/run"),
        *("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
        *("-e", "DOCKER_HOST=unix:///srv/docker.sock", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:ro", *mounts, IMAGE),
    )


def docker(*words: str, check: bool = True) -> str:
    """Run docker on this machine and return what it writes."""
    done = subprocess.run(["docker", *words], env=environment(), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def inside(*words: str, check: bool = True) -> str:
    """Run a command on the server, as a login without a terminal."""
    return docker("exec", SERVER, *words, check=check)


def chap(stack: SampleStack, *words: str, expect: int = 0) -> Any:
    """Run a command on the server in the stack's folder, and return its document."""
    run = ["docker", "exec", "-w", str(stack.folder), SERVER, "docker", "chap", *words]
    done = subprocess.run(run, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    return json.loads(done.stdout)
