"""CHAP built from a checkout: commit or branch, images and rows are all new, or all as they were."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.calls import chap
from tests.e2e.conftest import running
from tests.e2e.faults import SEEDED, Run
from tests.sample import source
from tests.sample.stack import SampleStack

OVERRIDE = "services: {chap: {labels: {of: the operator}}}\n"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """A stack that is built from a shallow clone, with a file of the operator's own."""
    stack = SampleStack.create(tmp_path_factory.mktemp("source") / "chap-core", kind="source")
    (stack.folder / "compose.override.yml").write_text(OVERRIDE)
    (stack.folder / "config/configured_models/mine.yaml").write_text("mine\n")
    stack.files.append(stack.folder / "compose.override.yml")
    yield from running(stack)


@dataclass
class Seen:
    """All that has to be as it was."""

    head: str
    files: dict[str, bytes]
    images: dict[str, str]
    others: list[str]
    names: dict[str, str]
    rows: dict[str, Any]

    @classmethod
    def of(cls, stack: SampleStack) -> Seen:
        """Look at a stack, which must be ready and without an open run."""
        stack.wait_ready()
        assert chap(stack, "status")["open_run"] is None
        head = source.git(stack.folder, "rev-parse", "HEAD", "--symbolic-full-name", "HEAD")
        files = {
            str(path.relative_to(stack.folder)): path.read_bytes()
            for path in stack.folder.rglob("*")
            if path.is_file() and not {".git", ".docker-chap", "backups"} & set(path.parts)
        }
        containers = stack.containers()
        writers = (stack.api_service, stack.worker_service)
        rows = {table: mark for table, mark in stack.checksum().items() if table not in SEEDED}
        return cls(
            head,
            files,
            {name: containers[name]["image_id"] for name in writers},
            [container["id"] for name, container in containers.items() if name not in writers],
            {name: image_named(stack, containers[name]["image"]) for name in writers},
            rows,
        )


def image_named(stack: SampleStack, name: str) -> str:
    return stack.docker("image", "inspect", "-f", "{{.Id}}", name).stdout.strip()


def test_status_shows_the_checkout(stack: SampleStack) -> None:
    versions = chap(stack, "versions")
    assert versions["versions"] == ["v2.0.0", *source.TAGS] and versions["running"] == "2.0.0"
    assert versions["commit"] == source.git(stack.folder, "rev-parse", "HEAD")
    assert chap(stack, "status")["checkout"]["branch"] == "refs/heads/main"
    assert "docker chap upgrade" in chap(stack, "pin", "v2.1.0", expect=1)["error"]["hint"]
    plan = chap(stack, "upgrade", "v2.1.0", "--dry-run")["plan"]
    assert "+      CHAP_NEW: 1" in plan["diff"] and source.git(stack.folder, "branch", "--show-current") == "main"
    missing = chap(stack, "upgrade", "v9.9.9", "--yes", expect=1)["error"]
    assert "no release v9.9.9" in missing["message"] and "versions" in missing["hint"]


def test_a_local_change_and_data_that_would_move_are_refused(stack: SampleStack) -> None:
    compose = stack.folder / "compose.yml"
    before = compose.read_bytes()
    compose.write_bytes(before + b"# mine\n")
    failure = chap(stack, "upgrade", "v2.1.0", "--yes", "--allow-drift", expect=1)["error"]
    assert "compose.yml" in failure["message"] and "Nothing was changed" in failure["state"]
    assert compose.read_bytes() == before + b"# mine\n"
    compose.write_bytes(before)

    checks = {check["name"]: check for check in chap(stack, "check", source.MOVES_DATA, expect=1)["checks"]}
    assert checks["data_mount"]["status"] == "fail" and "chap-data" in checks["data_mount"]["message"]
    assert checks["mounts"]["status"] == checks["services"]["status"] == "ok"


def test_a_build_that_fails_changes_nothing(stack: SampleStack) -> None:
    before, ids = Seen.of(stack), stack.containers()
    failure = chap(stack, "upgrade", source.BROKEN, "--yes", expect=1)["error"]
    assert "the model cannot be fetched" in failure["message"]
    assert Seen.of(stack) == before and stack.containers() == ids


@pytest.mark.torture
def test_a_sick_release_changes_nothing(stack: SampleStack) -> None:
    before = Seen.of(stack)
    failure = chap(stack, "upgrade", source.SICK, "--yes", expect=3)["error"]
    assert "prediction.calibration" in failure["message"]
    assert Seen.of(stack) == before


@pytest.mark.torture
@pytest.mark.parametrize("step", ["checkout", "build", "start api"])
def test_a_run_that_is_killed_is_undone(stack: SampleStack, step: str) -> None:
    before = Seen.of(stack)
    run = Run(stack, "upgrade", "v2.1.0", "--yes", at=step, hit=lambda run: run.signal(signal.SIGKILL))
    assert run.end() == -signal.SIGKILL, run.stderr[-3000:]
    if step == "checkout":
        # Git itself was cut off too: a file half written, its lock still there.
        (stack.folder / "compose.yml").write_bytes(before.files["compose.yml"][:100])
        (stack.folder / ".git/index.lock").touch()
    assert chap(stack, "upgrade", "v2.1.0", "--yes", expect=5)["error"]["hint"].endswith("recover")
    assert chap(stack, "recover")["outcome"] == "undone"
    assert Seen.of(stack) == before


def test_upgrade_and_rollback(stack: SampleStack) -> None:
    before = Seen.of(stack)
    done = chap(stack, "upgrade", "v2.1.0", "--yes")
    new = Seen.of(stack)
    assert stack.version() == "2.1.0" and new.others == before.others
    assert new.head.split() == [source.git(stack.folder, "rev-parse", "v2.1.0^{commit}"), "HEAD"]
    assert new.files["compose.override.yml"] == OVERRIDE.encode() and "of-v2.1.0.txt" in new.files
    assert new.files["config/configured_models/mine.yaml"] == b"mine\n"
    assert new.names == new.images and not set(new.images.values()) & set(before.images.values())
    assert source.git(stack.folder, "status", "--porcelain") == "?? compose.override.yml"

    manifest = json.loads(Path(done["backup"], "manifest.json").read_text())
    assert manifest["checkout"]["commit"] == before.head.split()[0]
    kept = {Path(file["path"]).name: Path(done["backup"], file["file"]).read_bytes() for file in manifest["files"]}
    assert kept["compose.yml"] == before.files["compose.yml"] and kept["mine.yaml"] == b"mine\n"

    lost = chap(stack, "rollback", "--yes", "-f", "compose.yml", expect=1)["error"]
    assert "chap: labels of." in lost["message"] and lost["state"] == "Nothing was changed.", "without the override"
    assert Seen.of(stack) == new
    assert "run" in chap(stack, "rollback", "--yes")
    assert Seen.of(stack) == before


@pytest.mark.torture
def test_backup_and_restore(stack: SampleStack) -> None:
    before, made = Seen.of(stack), chap(stack, "backup")["backup"]["id"]
    stack.sql("DELETE FROM observation")
    refused = chap(stack, "restore", made, "--with-version", "--yes", expect=2)["error"]
    assert "built from source" in refused["message"] and "upgrade v2.0.0" in refused["hint"]
    chap(stack, "restore", made, "--yes")
    assert Seen.of(stack) == before
