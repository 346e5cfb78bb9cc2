"""Bad input and missing pieces: each is refused with its own message, the right exit status, and nothing changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.calls import chap
from tests.sample.stack import SampleStack, environment, run_in

# A user without any rights on the engine's socket.
NOBODY = 65534


@pytest.fixture(scope="module")
def before(small: SampleStack) -> list[object]:
    """Look at the stack before all tests."""
    return seen(small)


@pytest.fixture(autouse=True)
def nothing_changed(small: SampleStack, before: list[object]) -> Iterator[None]:
    """Hold the stack against what it was before all tests."""
    yield
    assert seen(small) == before
    assert not list((small.folder / "backups").glob("*.partial"))


def seen(stack: SampleStack) -> list[object]:
    """Return the containers' ids, the rows and the file."""
    ids = {name: container["id"] for name, container in stack.containers().items()}
    return [ids, stack.checksum(), (stack.folder / "compose.yml").read_bytes()]


def refused(stack: SampleStack, *words: str, status: int = 1, folder: Path | None = None, **variables: str) -> str:
    """Run `docker chap` and return what it said; it must refuse, in the three parts, without a traceback."""
    done = run_in(folder or stack.folder, "docker", *words, env=environment() | variables)
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stderr.count("Error: ") == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_no_engine(small: SampleStack) -> None:
    message = refused(small, "-H", "unix:///nowhere/docker.sock", "chap", "status")
    assert "unix:///nowhere/docker.sock does not answer" in message and "or start it:" in message


def test_no_such_context_is_never_the_local_engine(small: SampleStack) -> None:
    assert "nowhere" in refused(small, "--context", "nowhere", "chap", "status")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_no_permission_on_the_socket(small: SampleStack) -> None:
    plugin = Path(environment()["DOCKER_CONFIG"], "cli-plugins", "docker-chap")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        refused_without_permission(plugin, Path(folder, "docker-chap"))


def refused_without_permission(plugin: Path, copy: Path) -> None:
    """Run a copy of the plugin, where everybody can reach it, as a user without rights."""
    copy.write_bytes(plugin.read_bytes())
    copy.chmod(0o755)
    done = subprocess.run(
        [str(copy), "status"],
        cwd="/",
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "CHAP_PYTHON": "/usr/bin/python3"},
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "No permission to talk to the Docker engine" in done.stderr, done.stderr
    assert "group docker" in done.stderr


def test_compose_missing_and_too_old(small: SampleStack, tmp_path: Path) -> None:
    plugins = Path(environment()["DOCKER_CONFIG"], "cli-plugins")
    own = tmp_path / "cli-plugins"
    own.mkdir()
    (own / "docker-chap").symlink_to(plugins / "docker-chap")
    message = refused(small, "chap", "upgrade", "v2.1.0", "--yes", DOCKER_CONFIG=str(tmp_path))
    if "is not installed" not in message:
        pytest.skip(f"this machine has another Compose that Docker finds: {message}")
    old = own / "docker-compose"
    metadata = '{"SchemaVersion":"0.1.0","Vendor":"test","Version":"v2.19.1","ShortDescription":"old"}'
    old.write_text(f"#!/bin/sh\n[ $1 = docker-cli-plugin-metadata ] && echo '{metadata}' || echo 2.19.1\n")
    old.chmod(0o755)
    message = refused(small, "chap", "upgrade", "v2.1.0", "--yes", DOCKER_CONFIG=str(tmp_path))
    assert "Docker Compose 2.19.1 is too old" in message and "2.20" in message


def test_no_stack_of_that_name(small: SampleStack, tmp_path: Path) -> None:
    message = refused(small, "chap", "-p", "nowhere", "status", folder=tmp_path)
    assert "No CHAP stack found" in message and "nowhere" in message and "chap-core" in message


def test_several_stacks_are_listed(small: SampleStack, tmp_path: Path) -> None:
    other = SampleStack.create(tmp_path / "other")
    try:
        other.compose("up", "-d", "--quiet-pull")
        message = refused(small, "chap", "status", folder=tmp_path)
        assert small.project in message and other.project in message and "-p " in message
    finally:
        other.down()


def test_words_that_do_not_fit(small: SampleStack) -> None:
    assert "is not a CHAP version" in refused(small, "chap", "upgrade", "new", status=2)
    assert "no terminal to ask on" in refused(small, "chap", "upgrade", "v2.1.0", status=2)
    assert "Say what to restore" in refused(small, "chap", "restore", status=2)


def test_a_version_that_does_not_exist_names_the_nearest(small: SampleStack) -> None:
    message = refused(small, "chap", "upgrade", "v2.1.33", "--yes")
    assert "does not have" in message and "Nearest: v2.1.10, v2.2.0" in message


def test_a_version_that_a_single_image_has(small: SampleStack) -> None:
    message = refused(small, "chap", "upgrade", "v2.1.8", "--yes")
    assert "chap-worker:v2.1.8" in message and "The other image has that tag" in message


def test_an_older_version(small: SampleStack) -> None:
    assert "docker chap rollback" in refused(small, "chap", "upgrade", "v1.4.0", "--yes")


def test_failed_checks_set_the_exit_status(small: SampleStack) -> None:
    done = small.docker("chap", "check", "v1.4.0", "--json", check=False)
    assert done.returncode == 1 and '"ok": false' in done.stdout
    assert small.docker("chap", "check", "v2.1.0", check=False).returncode == 0


def test_what_runs_and_is_not_what_the_files_say_is_named(small: SampleStack) -> None:
    file, settings = small.folder / "compose.yml", small.folder / ".env"
    before, port = (file.read_text(), settings.read_text()), small.port
    edited = before[0].replace("--concurrency=1", "--concurrency=2")
    for old, new in (
        ("- chap-runs:/data/runs", "- chap-logs:/data/runs"),
        ("user: chap:chap", "user: root"),
        ("init: true", "networks: [other]"),
    ):
        edited = edited.replace(old, new, 1)
    try:
        file.write_text(edited + "networks:\n  other:\n")
        settings.write_text(before[1].replace(f"CHAP_PORT={port}", "CHAP_PORT=8009") + "CHAP_API_TOKEN=s3cret\n")
        done = small.docker("chap", "check", "--json", check=False)
    finally:
        file.write_text(before[0])
        settings.write_text(before[1])
    assert done.returncode == 1, done.stderr
    drift = next(check for check in json.loads(done.stdout)["checks"] if check["name"] == "drift")
    result = {name: "\n".join(differences) for name, differences in drift["details"]["services"].items()}
    assert "s3cret" not in done.stdout and set(result) == {"chap", "chap-worker"}
    assert result["chap-worker"] == "variables CHAP_API_TOKEN\ncommand"
    prefix = f"{small.project}_"
    for line in (
        "variables CHAP_API_TOKEN",
        f"ports (127.0.0.1:{port}->8000 runs, the files say 127.0.0.1:8009->8000)",
        f"volumes ({prefix}chap-logs:/data/logs {prefix}chap-runs:/data/runs runs, the files say"
        f" {prefix}chap-logs:/data/logs {prefix}chap-logs:/data/runs)",
        f"networks ({prefix}default runs, the files say {prefix}other)",
        "user (chap:chap runs, the files say root)",
        "init (True runs, the files say False)",
    ):
        assert line in result["chap"], result["chap"]
    assert len(result["chap"].splitlines()) == 6, result["chap"]


def test_dumps_that_are_none(small: SampleStack, tmp_path: Path) -> None:
    complete = small.folder / "whole.dump"
    with complete.open("wb") as file:
        name = small.containers()["chap-postgres"]["id"]
        command = ["docker", "exec", name, "pg_dump", "-U", "chap", "-Fc", "chap_core"]
        subprocess.run(command, env=environment(), stdout=file, check=True)
    content = complete.read_bytes()
    for name, bytes_, expected in (
        ("empty.dump", b"", "is empty"),
        ("text.dump", b"this is no dump at all\n" * 50, "is not a PostgreSQL dump"),
        ("noise.dump", bytes(range(256)) * 50, "is not a PostgreSQL dump"),
        ("half.dump", content[: len(content) // 2], "damaged"),
        ("head.dump", content[:200], "cannot read"),
    ):
        (tmp_path / name).write_bytes(bytes_)
        assert expected in refused(small, "chap", "restore", str(tmp_path / name), "--yes")
    assert "There is no file missing.dump, and no backup" in refused(small, "chap", "restore", "missing.dump", "--yes")
    complete.unlink()


def test_the_database_container_is_down(small: SampleStack) -> None:
    small.compose("stop", "chap-postgres")
    try:
        for words in (["backup"], ["upgrade", "v2.1.0", "--yes"]):
            message = refused(small, "chap", *words)
            assert "chap-postgres" in message and "start" in message
    finally:
        small.compose("start", "chap-postgres")
        small.compose("restart", "chap", "chap-worker")
        small.wait_ready()


def test_containers_that_are_stopped(small: SampleStack) -> None:
    small.compose("stop", "-t", "1", "chap", "chap-worker")
    try:
        message = refused(small, "chap", "upgrade", "v2.1.0", "--yes")
        assert "Not running: chap, chap-worker" in message and "start chap chap-worker" in message
    finally:
        small.compose("start", "chap", "chap-worker")
        small.wait_ready()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can mount a small disk")
def test_the_disk_is_full_while_dumping(small: SampleStack, tmp_path: Path) -> None:
    small.sql(
        "CREATE TABLE noise AS SELECT md5(random()::text) || md5(random()::text) AS text FROM generate_series(1, 60000)"
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
    try:
        # An earlier backup's ratio makes the estimate small, so the disk runs full in the middle of the dump.
        message = refused(small, "chap", "backup", "-o", str(disk))
        assert "No space left" in message or "Not enough room" in message
        assert not [path for path in disk.iterdir() if path.name != ".gitignore"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
        small.sql("DROP TABLE noise")


def test_containers_are_not_recreated_with_the_variables_of_another_shell(small: SampleStack) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = chap(small, "backup", "-o", folder)
        words = ("chap", "restore", made["backup"]["folder"], "--with-version", "--yes")
        message = refused(small, *words, CHAP_API_TOKEN="an0ther")
    assert "chap: variables CHAP_API_TOKEN. chap-worker: variables CHAP_API_TOKEN." in " ".join(message.split())
    assert "an0ther" not in message and "in the shell that started CHAP, or write them into .env" in message
    assert "--allow-drift" in message
