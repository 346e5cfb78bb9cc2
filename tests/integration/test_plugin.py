"""The built file as docker and a shell run it, with a stand-in for the commands behind it.

What is tested here is all that lies between docker and the first command: the shell header, the start from
the cache, compose_chap/plugin.py. No engine is needed.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import pty
import shutil
import signal
import stat
import subprocess
import sys
import termios
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from build import recipe
from compose_chap import __version__, plugin

STAND_IN = Path(__file__).with_name("stand_in.py")
DOCKER = shutil.which("docker") or "docker"
LIMIT = 60


class Installed:
    """A user's home of their own, with the plugin where docker looks for it."""

    def __init__(self, folder: Path, content: bytes, cache: Path | None = None) -> None:
        self.folder = folder
        self.config = folder / "docker config"  # a space in a path is nothing special
        self.file = self.config / "cli-plugins" / "docker-chap"
        self.cache = (cache or folder / "cache") / "docker-chap" / "packages"
        self.report = folder / "told"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_CACHE_HOME": str(cache or folder / "cache"),
            "DOCKER_CONFIG": str(self.config),
            "CHAP_PYTHON": sys.executable,
        }
        self.file.parent.mkdir(parents=True)
        self.file.write_bytes(content)
        self.file.chmod(0o755)

    def run(self, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end with this home."""
        return subprocess.run(
            command,
            env={**self.environment, **environment},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )

    def docker(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run docker with this home."""
        return self.run(DOCKER, *words)

    def start(self, *command: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start a command with this home, its standard output to be read."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        return subprocess.Popen(command, env=self.environment, text=True, **{**streams, **options})

    def loaded(self, **environment: str) -> dict[str, Any]:
        """Run the plugin so that it loads every library; return where they came from."""
        done = self.run(self.file, "load", **environment)
        assert done.returncode == 0, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report


@pytest.fixture(scope="session")
def content() -> bytes:
    """The plugin with the stand-in in place of the commands."""
    return with_commands(recipe.PLUGIN.read_bytes(), STAND_IN.read_bytes())


@pytest.fixture(scope="session")
def warm_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the tests share which are not about it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def installed(tmp_path: Path, content: bytes, warm_cache: Path) -> Installed:
    return Installed(tmp_path, content, warm_cache)


@pytest.fixture
def fresh(tmp_path: Path, content: bytes) -> Installed:
    """A place where the plugin has never run."""
    return Installed(tmp_path, content)


# What docker asks, and what it passes on


def test_docker_accepts_the_plugin(installed: Installed) -> None:
    plugins = json.loads(installed.docker("info", "--format", "{{json .ClientInfo.Plugins}}").stdout)
    assert [entry for entry in plugins if entry["Name"] == "chap"] == [
        {**plugin.METADATA, "Name": "chap", "Path": str(installed.file)}
    ]


def test_docker_s_help_shows_the_plugin(installed: Installed) -> None:
    lines = installed.docker("--help").stdout.splitlines()
    assert ["chap*", *plugin.METADATA["ShortDescription"].split()] in [line.split() for line in lines]


def test_metadata_is_the_same_without_the_header(installed: Installed) -> None:
    done = installed.run(sys.executable, "-I", installed.file, "docker-cli-plugin-metadata")
    assert json.loads(done.stdout) == plugin.METADATA


@pytest.mark.parametrize(
    ("words", "arrives"),
    [
        (["chap"], [[], ["docker"]]),
        (["-l", "error", "--tls=false", "chap", "status"], [["status"], ["docker", "-l", "error", "--tls=false"]]),
        (["-Hunix:///nowhere", "chap", "x", "-D"], [["x", "-D"], ["docker", "-Hunix:///nowhere"]]),
        (["help", "chap"], [["--help"], ["docker"]]),
        (["help", "chap", "backup"], [["backup", "--help"], ["docker"]]),
        (["chap", "backup", "--help"], [["backup", "--help"], ["docker"]]),
        (["--help", "chap", "backup"], [["backup", "--help"], ["docker"]]),
        (["-v", "chap"], [["version"], ["docker"]]),
        (["--", "chap", "status"], [["status"], ["docker"]]),
        (["chap", "", "a b", "*"], [["", "a b", "*"], ["docker"]]),
    ],
)
def test_docker_s_words_arrive(installed: Installed, words: list[str], arrives: list[list[str]]) -> None:
    done = installed.run("docker", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == arrives


def test_docker_completes_with_our_words(installed: Installed) -> None:
    done = installed.docker("__complete", "chap", "up", "")
    assert done.stdout.splitlines() == ['upgrade\tafter ["up", ""]', ":4"]


@pytest.mark.parametrize("status", [0, 1, 2, 3, 4, 5, 130])
def test_the_exit_status_comes_through_docker(installed: Installed, status: int) -> None:
    assert installed.docker("chap", "exit", str(status)).returncode == status


def test_a_bug_shows_no_traceback(installed: Installed) -> None:
    done = installed.docker("chap", "fail")
    assert done.returncode == 1
    assert "This is a bug in docker chap" in done.stderr
    assert "Traceback" not in done.stderr and "secret" not in done.stderr


def test_a_reader_that_ends_early_is_no_bug(installed: Installed) -> None:
    with installed.start(installed.file, "flood", stderr=subprocess.PIPE) as running:
        assert running.stdout and running.stderr
        assert running.stdout.readline() == "0\n"
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == plugin.BROKEN_PIPE


def test_an_unwritable_result_is_reported(installed: Installed) -> None:
    with (
        open("/dev/full", "w") as full,
        installed.start(installed.file, "x", stdout=full, stderr=subprocess.PIPE) as running,
    ):
        assert running.stderr
        assert running.stderr.read() == "Error: the result cannot be written: No space left on device\n"
    assert running.returncode == 1


def test_words_that_nobody_hears_stop_no_work(installed: Installed) -> None:
    """See that `docker chap upgrade 2>&1 | head -1` upgrades."""
    streams = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with installed.start(DOCKER, "chap", "chatter", installed.report, **streams) as running:
        assert running.stdin and running.stderr
        assert running.stderr.readline() == "waiting\n"
        running.stderr.close()
        running.stdin.close()
    assert running.returncode == 0
    assert installed.report.read_text() == "done"


# Every way to stop it


def test_off_a_terminal_a_stopped_docker_stops_us(installed: Installed) -> None:
    with installed.start(DOCKER, "chap", "wait", installed.report) as docker:
        assert docker.stdout and docker.stdout.readline() == "waiting\n"
        docker.send_signal(signal.SIGTERM)
        assert docker.wait(LIMIT) == 130
    assert installed.report.read_text() == "interrupted"


def test_a_killed_docker_stops_us(installed: Installed) -> None:
    with installed.start(DOCKER, "chap", "wait", installed.report) as docker:
        assert docker.stdout and docker.stdout.readline() == "waiting\n"
        docker.kill()
        assert docker.stdout.read() == ""  # until the plugin has ended too
    assert installed.report.read_text() == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_stops_us(installed: Installed, number: signal.Signals) -> None:
    with installed.start(installed.file, "wait", installed.report) as running:
        assert running.stdout and running.stdout.readline() == "waiting\n"
        running.send_signal(number)
        assert running.wait(LIMIT) == 130
    assert installed.report.read_text() == "interrupted"


def test_ctrl_c_on_a_terminal_stops_us(installed: Installed) -> None:
    with on_a_terminal(installed, DOCKER, "chap", "wait", installed.report) as (docker, terminal):
        os.write(terminal, b"\x03")
        assert docker.wait(LIMIT) == 130
    assert installed.report.read_text() == "interrupted"


def test_a_lost_terminal_stops_us(installed: Installed) -> None:
    with on_a_terminal(installed, DOCKER, "chap", "wait", installed.report) as (docker, terminal):
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), terminal)
        docker.wait(LIMIT)
        wait_for(installed.report)
    assert installed.report.read_text() == "interrupted"


# Which Python


def test_python_may_have_any_of_its_names(installed: Installed) -> None:
    """See that one that is too old or broken is passed over for one that is not."""
    names = shell_only(installed)
    script(names / "python3", "exit 1")
    script(names / "python3.14", "exit 127")
    script(names / "python3.11", f'exec {sys.executable} "$@"')
    result = installed.loaded(PATH=str(names), CHAP_PYTHON="")
    assert result["python"] == sys.executable


def test_a_chosen_python_comes_first(installed: Installed) -> None:
    names = shell_only(installed)
    script(names / "python3", "exit 1")
    chosen = names / "my python"
    chosen.symlink_to(os.path.realpath(sys.executable))
    assert installed.run(installed.file, "exit", "0", PATH=str(names), CHAP_PYTHON=str(chosen)).returncode == 0


def test_a_missing_python_is_reported_with_a_hint(installed: Installed) -> None:
    names = shell_only(installed)
    script(names / "python3", "exit 1")
    done = installed.run(installed.file, "status", PATH=str(names), CHAP_PYTHON="")
    assert done.returncode == 1
    assert "needs Python 3.10 or newer" in done.stderr and "CHAP_PYTHON" in done.stderr


def test_nothing_around_it_gets_into_the_program(installed: Installed) -> None:
    """See that neither the folder it is run in nor the environment can put code into it."""
    evil = installed.folder / "click.py"
    evil.write_text("print('evil')\n")
    (installed.folder / "sitecustomize.py").write_text("print('evil')\n")
    result = installed.loaded(PYTHONPATH=str(installed.folder), PYTHONSTARTUP=str(evil), PYTHONHOME="/nonexistent")
    assert all(Path(file).is_relative_to(installed.cache) for file in result["places"].values())
    assert not [path for path in result["path"][1:] if "site-packages" in path or "dist-packages" in path]


def test_what_steers_shiv_does_not_steer_us(installed: Installed) -> None:
    """See that the variables that shiv's own start obeys neither run other code nor unpack elsewhere."""
    elsewhere = installed.folder / "elsewhere"
    steering = {"INTERPRETER": "1", "ENTRY_POINT": "os:abort", "MODULE": "os:abort", "CONSOLE_SCRIPT": "normalizer"}
    more = {"ROOT": str(elsewhere), "FORCE_EXTRACT": "1", "PREPEND_PYTHONPATH": str(elsewhere)}
    result = installed.loaded(**{f"SHIV_{name}": value for name, value in {**steering, **more}.items()})
    assert all(Path(file).is_relative_to(installed.cache) for file in result["places"].values())
    assert not elsewhere.exists() and str(elsewhere) not in result["path"]


# Where it is unpacked


def test_it_is_unpacked_once_for_this_user_alone(fresh: Installed) -> None:
    first = fresh.loaded()
    [packages] = fresh.cache.iterdir()
    assert all(Path(file).is_relative_to(packages) for file in first["places"].values())
    assert stat.S_IMODE(fresh.cache.stat().st_mode) == stat.S_IMODE(packages.stat().st_mode) == 0o700
    before = packages.stat().st_ctime_ns, packages.stat().st_ino
    assert fresh.loaded() == first
    assert (packages.stat().st_ctime_ns, packages.stat().st_ino) == before


def test_many_first_runs_at_once_all_work(fresh: Installed) -> None:
    runs = [fresh.start(fresh.file, "load") for _ in range(8)]
    reports = [json.loads(run.communicate(timeout=LIMIT)[0]) for run in runs]
    assert [run.returncode for run in runs] == [0] * 8
    [packages] = fresh.cache.iterdir()
    assert all(report["path"][0] == str(packages / "site-packages") for report in reports)


@pytest.mark.parametrize("home", ["/proc/none", "relative"])
def test_without_a_home_it_runs_from_the_archive(fresh: Installed, home: str) -> None:
    assert_leaves_nothing(fresh, HOME=home, XDG_CACHE_HOME="")


def test_a_cache_that_others_can_write_to_is_not_used(fresh: Installed) -> None:
    fresh.loaded()
    fresh.cache.chmod(0o777)
    assert_leaves_nothing(fresh)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("whose", ["cache", "home"])
def test_root_uses_nothing_of_another_user_s(fresh: Installed, whose: str) -> None:
    folder = fresh.cache if whose == "cache" else fresh.folder / "home"
    folder.mkdir(parents=True)
    os.chown(folder, 65534, 65534)
    assert_leaves_nothing(fresh, **({"HOME": str(folder), "XDG_CACHE_HOME": ""} if whose == "home" else {}))
    assert list(folder.iterdir()) == []


def test_a_full_disk_does_not_stop_it(fresh: Installed) -> None:
    done = fresh.run("sh", "-c", 'ulimit -f 8; exec "$0" load', fresh.file)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"][0] == str(fresh.file / "site-packages")
    assert list(fresh.cache.iterdir()) == []


@pytest.mark.parametrize("name", ["compose_chap/plugin.py", "compose_chap/__init__.py", "compose_chap/cli/app.py"])
@pytest.mark.parametrize("damage", ["gone", "empty", "half", "rubbish"])
def test_a_damaged_copy_mends_itself(fresh: Installed, name: str, damage: str) -> None:
    """See that the run that meets the damage works from the archive, or says that the next one will."""
    fresh.loaded()
    [packages] = fresh.cache.iterdir()
    path = packages / "site-packages" / name
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "rubbish": b"\0(" + content}[damage])
    first = fresh.run(fresh.file, "load")
    assert first.returncode == 0 or "was damaged and has been removed. Run the command again." in first.stderr
    assert fresh.loaded()["path"][0] != str(fresh.file / "site-packages")
    assert path.read_bytes() == content


def test_what_nobody_runs_any_more_is_removed(fresh: Installed) -> None:
    """See that older versions and half an unpacking go, but not what another run still loads from."""
    for name in ("older", "half-unpacked.tmp", "running"):
        (fresh.cache / name / "click").mkdir(parents=True)
    (fresh.cache / ".older_lock").touch()
    fresh.cache.chmod(0o700)
    running = os.open(fresh.cache / "running", os.O_RDONLY)
    fcntl.flock(running, fcntl.LOCK_SH)
    packages = Path(fresh.loaded()["path"][0]).parent
    os.close(running)
    assert set(fresh.cache.iterdir()) == {packages, fresh.cache / "running"}


def test_a_run_keeps_what_it_loads_from(fresh: Installed, content: bytes) -> None:
    """See that a newer version, run for the first time beside a long upgrade, leaves that upgrade its packages."""
    with fresh.start(fresh.file, "wait") as upgrade:
        assert upgrade.stdout and upgrade.stdout.readline() == "waiting\n"
        [older] = fresh.cache.iterdir()
        fresh.file.unlink()
        fresh.file.write_bytes(with_commands(content, STAND_IN.read_bytes() + b"\n"))
        fresh.file.chmod(0o755)
        newer = Path(fresh.loaded()["path"][0]).parent
        assert set(fresh.cache.iterdir()) == {older, newer} and older != newer
        upgrade.terminate()


def test_a_run_that_fails_after_another_build_was_installed_calls_nothing_damaged(
    fresh: Installed, content: bytes
) -> None:
    pipe = subprocess.PIPE
    with fresh.start(fresh.file, "later", "1", stdin=pipe, stderr=pipe) as run:
        assert run.stdin and run.stdout and run.stderr and run.stdout.readline() == "waiting\n"
        [copy] = fresh.cache.iterdir()
        fresh.file.unlink()
        fresh.file.write_bytes(with_commands(content, STAND_IN.read_bytes() + b"\n"))
        fresh.file.chmod(0o755)
        run.stdin.close()
        assert (run.wait(LIMIT), run.stderr.read()) == (1, "")
        assert copy.is_dir()


def test_the_note_on_a_damaged_copy_is_json_where_all_is_json(fresh: Installed) -> None:
    fresh.loaded()
    [packages] = fresh.cache.iterdir()
    (packages / "site-packages" / "click" / "core.py").write_bytes(b"")
    done = fresh.run(fresh.file, "exit", "1", "--progress", "json")
    assert done.returncode == 1 and "damaged" in json.loads(done.stderr)["note"]


# Installing it


def test_installing_asks_docker(installed: Installed) -> None:
    done = install(installed, recipe.PLUGIN)
    assert (done.returncode, done.stderr) == (0, "")
    assert str(installed.file) in done.stdout and __version__ in done.stdout
    assert installed.file.read_bytes() == recipe.PLUGIN.read_bytes()
    assert stat.S_IMODE(installed.file.stat().st_mode) == 0o755
    assert list(installed.file.parent.iterdir()) == [installed.file]


def test_installing_tells_why_docker_refuses(installed: Installed) -> None:
    refused = script(installed.folder / "refused", "echo '{}'")
    done = install(installed, refused)
    assert done.returncode == 1
    assert "SchemaVersion" in done.stderr


def test_installing_without_docker_says_so(installed: Installed) -> None:
    done = install(installed, recipe.PLUGIN, PATH=str(shell_only(installed)))
    assert done.returncode == 1
    assert "Install Docker first" in done.stderr


def install(installed: Installed, file: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the recipe's install on a file."""
    (installed.folder / "build" / "out").mkdir(parents=True)
    shutil.copy(file, installed.folder / "build" / "out" / "docker-chap")
    (installed.folder / "build" / "out" / "docker-chap.1").write_text("")
    shutil.copy(recipe.RECIPE / "install", installed.folder / "build")
    return installed.run(installed.folder / "build" / "install", **environment)


def assert_leaves_nothing(installed: Installed, **environment: str) -> None:
    """See that the plugin runs from the archive, and that neither cache nor temporary files are left."""
    temporary = installed.folder / "temporary"
    temporary.mkdir()
    before = set(installed.folder.rglob("*"))
    result = installed.loaded(TMPDIR=str(temporary), **environment)
    assert result["path"][0] == str(installed.file / "site-packages")
    assert set(installed.folder.rglob("*")) == before


def with_commands(content: bytes, commands: bytes) -> bytes:
    """Return the plugin with other commands behind it, under another name in the cache."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        packed = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    about = {**json.loads(packed["environment.json"]), "build_id": hashlib.sha256(commands).hexdigest()}
    packed["environment.json"] = json.dumps(about).encode()
    packed["site-packages/compose_chap/cli/app.py"] = commands
    return recipe.assemble(packed)


def shell_only(installed: Installed) -> Path:
    """Return a folder for PATH with what a shell script needs, and neither Python nor docker."""
    folder = installed.folder / "bin"
    folder.mkdir()
    for name in ("sh", "readlink", "dirname", "mkdir", "cp", "mv", "chmod"):
        (folder / name).symlink_to(shutil.which(name) or name)
    return folder


def script(file: Path, line: str) -> Path:
    """Write a shell script of one line."""
    file.write_text(f"#!/bin/sh\n{line}\n")
    file.chmod(0o755)
    return file


@contextmanager
def on_a_terminal(installed: Installed, *command: str | Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a command on a terminal of its own and wait until it waits; give the process and the other end."""
    terminal, line = pty.openpty()
    with installed.start(
        *command, stdin=line, stdout=line, stderr=line, start_new_session=True, preexec_fn=take_terminal
    ) as running:
        os.close(line)
        screen = b""
        while b"waiting" not in screen:
            screen += os.read(terminal, 1024)
        yield running, terminal
    os.close(terminal)


def take_terminal() -> None:
    """Make the standard input the terminal that controls this process."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def wait_for(file: Path) -> None:
    """Wait until the file has something in it."""
    for _ in range(LIMIT * 10):
        if file.exists() and file.stat().st_size:
            return
        time.sleep(0.1)
    raise AssertionError(f"{file} was not written")
