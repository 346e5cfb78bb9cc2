"""The stack's files are not on this machine, or on several: what can be done then, and who may change the stack."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from compose_chap.detection import detect
from compose_chap.engine.engine import Engine
from compose_chap.engine.world import World
from compose_chap.records import engine_lock
from tests.e2e.calls import kill, plugin_process, reach, started, until
from tests.sample.remote import private_config
from tests.sample.stack import SampleStack, environment, run_in


@pytest.fixture
def copy(small: SampleStack, tmp_path: Path) -> Path:
    """Copy the files of the stack, but not what is kept beside them, as a clone on another machine has them."""
    left = shutil.ignore_patterns(".docker-chap", "backups")
    return Path(shutil.copytree(small.folder, tmp_path / "copy", ignore=left))


@pytest.fixture
def away(small: SampleStack, copy: Path) -> Iterator[Path]:
    """Take the files away from where the stack was started, and return the copy of them."""
    moved = small.folder.rename(small.folder.with_name("away"))
    yield copy
    assert not small.folder.exists(), "the folder of the server was made here"
    moved.rename(small.folder)


def run(folder: Path, *words: str, environ: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    return run_in(folder, "docker", "chap", *words, env={**environment(), **environ})


def document(folder: Path, *words: str, expect: int = 0, environ: Mapping[str, str] = {}) -> Any:
    done = run(folder, *words, "--json", environ=environ)
    assert done.returncode == expect, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_what_looks_only_works_without_the_files(small: SampleStack, away: Path, tmp_path: Path) -> None:
    here = ("-p", small.project)
    status = document(tmp_path, *here, "status", "--metrics-file", str(tmp_path / "chap.prom"))
    numbers = (tmp_path / "chap.prom").read_text()
    assert "docker_chap_ready{" in numbers and "last_backup" not in numbers, "nobody knows when the last one was made"
    assert status["project"]["absent"] == [str(small.folder / "compose.yml")] and not status["problems"]
    assert status["health"]["level"] == "ready" and status["last_backup"] is None
    assert "v2.1.0" in document(tmp_path, *here, "versions")["versions"]

    checks = {
        check["name"]: check["status"] for check in document(tmp_path, *here, "check", "v2.1.0", expect=1)["checks"]
    }
    assert {name for name, outcome in checks.items() if outcome in ("fail", "error")} == {"compose_files"}
    assert checks["images"] in ("ok", "warn") and checks["drift"] == checks["files"] == "skipped"


def test_a_backup_without_the_files_says_so(small: SampleStack, away: Path, tmp_path: Path) -> None:
    here, folder = ("-p", small.project), tmp_path / "kept"
    for words in (("backup",), ("backups",), ("verify",)):
        refused = document(tmp_path, *here, *words, expect=1)["error"]
        assert "not on this machine" in refused["message"] and "-o FOLDER" in refused["hint"] and refused["state"]

    message = run(tmp_path, *here, "backup", environ={"DOCKER_CHAP_BACKUPS": str(folder)})
    assert message.returncode == 0 and "The Compose files are not in it" in message.stderr, message.stderr
    [made] = document(tmp_path, *here, "backups", "-o", str(folder))["backups"]
    assert made["files"] == [] and made["project"]["absent"] == [str(small.folder / "compose.yml")]
    assert "The Compose files are NOT in this backup" in Path(made["folder"], "RESTORE.txt").read_text()
    assert document(tmp_path, *here, "verify", made["folder"])["proven_by"] == "read back"


@pytest.mark.torture
def test_a_copy_needs_no_more_than_a_folder_for_the_backups(small: SampleStack, away: Path, tmp_path: Path) -> None:
    here, password = ("-p", small.project), tmp_path / "copies.password"
    password.write_text("secret")
    repository = (str(tmp_path / "copies"), "--password-file", str(password))
    kept = ("-o", str(tmp_path / "kept"))
    assert document(tmp_path, *here, "backup", "--dump-only", str(tmp_path / "alone.dump"))["dump"]["size"]
    made = document(tmp_path, *here, "backup", *kept)["backup"]
    for words in (("copy", "--to"), ("prune", "--yes", "--from")):
        assert "-o FOLDER" in document(tmp_path, *here, *words, *repository, expect=1)["error"]["hint"]
    assert document(tmp_path, *here, "copy", "--init", *kept, "--to", *repository)["copy"]["id"] == made["id"]
    assert [item["id"] for item in document(tmp_path, *here, "copies", "--from", *repository)["copies"]] == [made["id"]]
    assert document(tmp_path, *here, "verify", *kept, "--from", *repository)["tables"] == made["tables"]
    assert not document(tmp_path, *here, "prune", "--yes", *kept, "--from", *repository)["removed"]


def test_what_changes_the_stack_is_refused_without_the_files(small: SampleStack, away: Path, tmp_path: Path) -> None:
    for words in (
        ("upgrade", "v2.1.0", "--yes"),
        ("restore", "latest", "--yes", "-o", str(tmp_path)),
        ("prune", "--yes", "-o", str(tmp_path)),
        ("rehearse", "v2.1.0"),
        ("schedule", "on"),
    ):
        refused = document(tmp_path, "-p", small.project, *words, expect=1)["error"]
        assert str(small.folder / "compose.yml") in refused["message"], words
        assert refused["state"] == "Nothing was changed." and "--project-directory" in refused["hint"]
    done = run(tmp_path, "-p", small.project, "-f", str(tmp_path / "none" / "compose.yml"), "backup")
    assert done.returncode == 1 and "There is no file" in done.stderr and not (tmp_path / "none").exists()
    named = ("--project-directory", str(small.folder), "-f", str(away / "compose.yml"))
    done = run(tmp_path, *named, "backup", "-o", str(tmp_path / "kept"))
    assert done.returncode == 1 and f"There is no folder {small.folder}" in done.stderr, done.stderr


@pytest.mark.torture
def test_with_a_copy_of_the_files_all_works(small: SampleStack, away: Path, tmp_path: Path) -> None:
    named = ("--project-directory", str(away), "-f", str(away / "compose.yml"))
    plan = document(tmp_path, *named, "upgrade", "v2.1.0", "--dry-run")
    assert not [check for check in plan["checks"] if check["status"] == "fail"] and "v2.1.0" in plan["plan"]["diff"]
    made = document(tmp_path, *named, "backup")["backup"]
    assert Path(made["folder"]).parent == away / "backups" and made["project"]["absent"] == [] and made["files"]
    assert document(tmp_path, *named, "history")["runs"] == []


def test_two_operators_with_files_of_their_own_exclude_each_other(
    small: SampleStack, copy: Path, tmp_path: Path
) -> None:
    other = private_config(tmp_path / "home")
    words = ("-p", small.project, "--project-directory", str(copy), "-f", str(copy / "compose.yml"))
    with started(small, "upgrade", "v2.1.0", "--yes") as first:
        reach(first, "backup")
        # It holds the lock for as long as others look.
        os.kill(plugin_process(first), signal.SIGSTOP)
        refused = document(copy, *words, "backup", expect=5, environ=other)["error"]
        assert "upgrade by " in refused["message"] and refused["code"] == "locked", refused
        seen = document(copy, *words, "status", environ=other)
        assert seen["working"]["operation"] == "upgrade" and seen["open_run"] is None
        assert len(seen["services"]) == len(small.containers())
        kill(first, signal.SIGKILL)
    until(lambda: run(copy, *words, "backup", environ=other).returncode == 0, 15)

    holders = ("ps", "-aq", "--filter", f"label=docker-chap.lock={small.project}")
    assert document(small.folder, "recover")["outcome"] in ("undone", "nothing changed")
    until(lambda: not small.docker(*holders).stdout.strip(), 10)


@pytest.mark.torture
def test_an_image_that_compose_built_makes_the_lock_no_part_of_the_stack(
    small: SampleStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    engine = Engine()
    labels = (f"LABEL com.docker.compose.project={small.project}", "LABEL com.docker.compose.service=chap")
    database = small.containers()["chap-postgres"]["id"]
    changes = [word for label in labels for word in ("--change", label)]
    image = small.docker("commit", "--pause=false", *changes, database).stdout.strip()
    try:
        before = {container.id for container in engine.containers(small.project)}
        here = World(engine, lambda: datetime.now(timezone.utc), time.sleep, lambda *args: None)
        with engine_lock.locked_on_engine(here, small.project, ["no-such-image", image], "try"):
            holder = engine_lock.holder(engine, small.project)
            assert holder and holder["operation"] == "try"
            assert {container.id for container in engine.containers(small.project)} == before
            [stack] = [stack for stack in detect(engine.containers()) if stack.project.name == small.project]
            assert {container.id for service in stack.services for container in service.containers} == before
    finally:
        until(lambda: small.docker("rmi", image, check=False).returncode == 0)


def test_a_lock_whose_process_died_before_it_held_it_is_taken_over(small: SampleStack) -> None:
    image = small.containers()["chap-postgres"]["image_id"]
    name = f"docker-chap-lock-{small.project}"
    small.docker("create", "--name", name, "--entrypoint", "cat", image)
    assert document(small.folder, "backup")["backup"]["tables"]
    assert not os.path.exists(small.folder / ".docker-chap" / "journal.json")
