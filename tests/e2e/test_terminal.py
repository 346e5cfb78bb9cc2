"""Docker's own completion in bash, zsh and fish, and a Python newer than this machine's: a terminal in a container."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from build import recipe
from compose_chap import __version__
from tests.sample.images import BASE, LABEL, PREFIX, copy_from_first_engine, on_first_engine
from tests.sample.stack import SampleStack, environment

DOCKER = Path(shutil.which("docker") or "docker").resolve()
# By Debian's package: the shell, and what an operator writes into its start file, once.
SHELLS = {
    "bash-completion": ("bash --norc", ". /usr/share/bash-completion/bash_completion; . <(docker completion bash)"),
    "zsh": ("zsh -f", "autoload -U compinit; compinit -u; . <(docker completion zsh); compdef _docker docker"),
    "fish": ("fish --no-config", "docker completion fish | source"),
}
RECIPE = (
    "".join(
        f"""
FROM {BASE} AS {package}
LABEL {LABEL}
RUN apt-get update && apt-get install -y --no-install-recommends {package}
"""
        for package in SHELLS
    )
    + f"""
FROM {BASE} AS python
LABEL {LABEL}
# Of the suite that is being made, a mirror may have a copy that is some weeks old.
RUN cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | sed 's/trixie/forky/g' >/tmp/forky \\
 && mv /tmp/forky /etc/apt/sources.list.d/forky.list \\
 && apt-get -o Acquire::Check-Valid-Until=false update \\
 && apt-get install -y --no-install-recommends -t forky python3.14
"""
)
HAS_COMPLETION = subprocess.run([DOCKER, "completion", "bash"], capture_output=True, check=False).returncode == 0


def image(stage: str) -> str:
    """Build one stage of the recipe where it is not built yet, and return its name."""
    name = f"{PREFIX}/{stage}:terminal"
    build = ["docker", "build", "-q", "-t", name, "--target", stage, "-"]
    built = subprocess.run(build, input=RECIPE, env=on_first_engine(), capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    copy_from_first_engine(name)
    return name


class Terminal:
    """A shell in a container on a terminal of its own, in which `docker chap` is this machine's."""

    def __init__(self, image: str, shell: str, stack: SampleStack) -> None:
        self.screen = ""
        self._terminal, inside = pty.openpty()
        socket = environment().get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
        shared = {
            socket: "/var/run/docker.sock",
            str(DOCKER): "/usr/local/bin/docker",
            str(recipe.PLUGIN): "/root/.docker/cli-plugins/docker-chap",
            str(stack.folder): str(stack.folder),
        }
        mounts = [word for here, target in shared.items() for word in ("-v", f"{here}:{target}")]
        self._process = subprocess.Popen(
            ["docker", "run", "--rm", "-it", "--network", "host", "-e", "TERM=xterm", "-w", str(stack.folder), *mounts,
             image, *shell.split()],
            stdin=inside, stdout=inside, stderr=inside, env=environment(), start_new_session=True,
        )  # fmt: skip
        os.close(inside)

    def type_in(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._terminal, keys.encode())

    def wait_for(self, pattern: str) -> str:
        """Return what the first group of a pattern is on the screen, as soon as it stands there."""
        end = time.monotonic() + 60
        while not (result := re.search(pattern, self.screen, re.MULTILINE)):
            assert time.monotonic() < end and self._process.poll() is None, self.screen
            if select.select([self._terminal], [], [], 0.5)[0]:
                self.screen += os.read(self._terminal, 65536).decode(errors="replace")
        return result[1]

    def completed(self, line: str) -> str:
        """Type a line and Tab, and return the line that the shell made of it."""
        self.screen = ""
        # The shell says the line back instead of running it: the quotes tell its answer from what was typed.
        self.type_in(f"{line}\t\x01echo la''st \x05 e''nd\r")
        return " ".join(self.wait_for(r"last ((?:.|\s)*?) end").split())

    def close(self) -> None:
        """End the shell."""
        with contextlib.suppress(OSError):
            self.type_in("\x15exit\r")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._terminal)


@pytest.fixture(
    params=[pytest.param(item, marks=[] if item == "bash-completion" else pytest.mark.torture) for item in SHELLS]
)
def terminal(request: pytest.FixtureRequest, small: SampleStack) -> Iterator[Terminal]:
    """Give a terminal with one of the shells, set up for completion."""
    shell, setup = SHELLS[request.param]
    result = Terminal(image(request.param), shell, small)
    try:
        result.type_in(f"{setup}; echo rea''dy\r")
        result.wait_for("(ready)")
        yield result
    finally:
        result.close()


@pytest.mark.skipif(not HAS_COMPLETION, reason="this docker is too old to complete for its plugins")
def test_a_shell_completes_commands_flags_versions_backups_and_projects(terminal: Terminal, small: SampleStack) -> None:
    made = json.loads(small.docker("chap", "backup", "--json").stdout)["backup"]["id"]
    for line, expected in {
        "docker chap upgr": "docker chap upgrade",
        "docker chap upgrade --dry": "docker chap upgrade --dry-run",
        "docker chap upgrade v2.2": "docker chap upgrade v2.2.0",
        f"docker chap verify {made[:-1]}": f"docker chap verify {made}",
        f"docker chap -p {small.project[:-2]}": f"docker chap -p {small.project}",
    }.items():
        # Nobody waits long for Tab: a machine at its limit may have nothing to offer for a while.
        end = time.monotonic() + 60
        while (completed := terminal.completed(line)) != expected:
            assert time.monotonic() < end, completed


@pytest.mark.torture
@pytest.mark.parametrize("python", ["python3.13", "python3.14"])
def test_it_starts_on_a_newer_python(python: str) -> None:
    name = "/root/.docker/cli-plugins/docker-chap"
    run = ["docker", "run", "--rm", "--network", "none", "-e", f"CHAP_PYTHON={python}", "-v", f"{recipe.PLUGIN}:{name}"]
    about = subprocess.run(
        [*run, image("python"), "sh", "-c", f"{python} --version; {name} version; {name} upgrade --help"],
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = about.stdout.splitlines()
    assert lines[0].startswith(python.replace("python", "Python ")) and lines[1] == f"docker chap {__version__}"
    assert "--drain" in about.stdout and not about.stderr
