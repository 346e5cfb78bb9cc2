"""What a terminal shows: live progress in real ones, and Docker's own completion in shells of other machines."""

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
from tests.sample.terminal import Terminal

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


class Shell:
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
def terminal(request: pytest.FixtureRequest, small: SampleStack) -> Iterator[Shell]:
    """Give a terminal with one of the shells, set up for completion."""
    shell, setup = SHELLS[request.param]
    result = Shell(image(request.param), shell, small)
    try:
        result.type_in(f"{setup}; echo rea''dy\r")
        result.wait_for("(ready)")
        yield result
    finally:
        result.close()


@pytest.mark.skipif(not HAS_COMPLETION, reason="this docker is too old to complete for its plugins")
def test_a_shell_completes_commands_flags_versions_backups_and_projects(terminal: Shell, small: SampleStack) -> None:
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


# Upgraded to, its migration does not happen, and it does not say so.
SICK = "v2.1.3"
STILL = 5.0  # seconds


def on_terminal(stack: SampleStack, *words: str, columns: int) -> Terminal:
    """Run a command on a terminal, say yes to its question, and wait for its end."""
    terminal = Terminal(["docker", "chap", *words], stack.folder, environment(), columns=columns)
    try:
        terminal.wait_for(r"(\[y/N\])")
        terminal.type_in("y\r")
        terminal.to_end()
        return terminal
    finally:
        terminal.drop()


def at(lines: list[str], pattern: str) -> int:
    """Return where the only line is that a pattern fits from its beginning."""
    numbers = [number for number, line in enumerate(lines) if re.match(pattern, line)]
    assert len(numbers) == 1, (pattern, lines)
    return numbers[0]


def clocks(terminal: Terminal) -> list[str]:
    """Return the lines of steps that go on, as they were drawn: each has a clock."""
    return [state for state in terminal.states() if re.match(r" *[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] ", state)]


def test_a_failure_is_shown_the_moment_it_happens_then_each_step_of_the_way_back(small: SampleStack) -> None:
    terminal = on_terminal(small, "upgrade", SICK, columns=40)
    assert terminal.status == 3
    lines = terminal.lines()
    order = [
        at(lines, r"✔ Backed up  [\d.]+ [KM]iB  [\d.ms]+$"),
        at(lines, r"✔ Started the API  [\d.ms]+$"),
        at(lines, r"✘ Verifying the API: The database is"),
        at(lines, r"Putting everything back$"),
        at(lines, r"  ✔ Stopped what was started  [\d.ms]+$"),
        at(lines, r"  ✔ The data are back  [\d.ms]+$"),
        at(lines, r"  ✔ Everything is as before  [\d.ms]+$"),
        at(lines, r"Error: The upgrade failed:"),
    ]
    assert order == sorted(order), terminal.screen
    assert terminal.longest_stillness() < STILL
    live = clocks(terminal)
    assert len(live) > 50 and all(re.search(r"  [\d.ms]+$", state) for state in live), live[:5]
    # A line that is longer than the terminal would be drawn below itself, again and again.
    assert all(len(state) < 40 for state in live), max(live, key=len)


@pytest.mark.torture
@pytest.mark.parametrize("columns", [40, 80])
def test_no_line_of_a_long_run_stands_still(small: SampleStack, columns: int) -> None:
    for words in (("upgrade", "v2.1.0"), ("restore", "latest"), ("restore", "--undo"), ("rollback",)):
        terminal = on_terminal(small, *words, columns=columns)
        assert terminal.status == 0, terminal.screen
        assert terminal.longest_stillness() < STILL, terminal.screen
        assert all(len(state) < columns for state in clocks(terminal))


@pytest.mark.parametrize("words", ["status", "backups", "history"])
def test_tables_and_facts_fit_forty_columns(small: SampleStack, words: str) -> None:
    terminal = Terminal(["docker", "chap", words], small.folder, environment(), columns=40)
    try:
        assert terminal.to_end() == 0
        # Only what must not be broken is longer: a path, an image, a command, a name.
        for line in terminal.lines():
            assert len(line) <= 40 or len(line.split()) == 1 or "docker " in line or "/" in line, line
    finally:
        terminal.drop()
