"""Compose itself as the judge of what we read and edit: `docker compose config` before and after.

Needs no engine, only Compose's binary: the one that COMPOSE_BINARY names, or docker's CLI plugin.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from compose_chap.errors import ComposeFileError
from compose_chap.image import Reference
from compose_chap.processes.process import Finished
from compose_chap.project import compose_files, pin
from tests.unit.project.composefiles.projects import Project
from tests.unit.project.composefiles.projects import project as random_project

COUNT = 600
PLUGIN_FOLDERS = (
    "~/.docker/cli-plugins",
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)


def compose_binary() -> Path | None:
    """Return Compose's own binary: called directly it answers much faster than through docker."""
    folders = [os.path.join(os.environ.get("DOCKER_CONFIG", "~/.docker"), "cli-plugins"), *PLUGIN_FOLDERS]
    named = os.environ.get("COMPOSE_BINARY")
    candidates = [named] if named else [os.path.join(folder, "docker-compose") for folder in folders]
    return next((Path(path).expanduser() for path in candidates if os.access(os.path.expanduser(path), os.X_OK)), None)


@pytest.fixture(scope="module")
def compose() -> Path:
    binary = compose_binary()
    if binary is None:
        reason = "NOT JUDGED: there is no Compose binary; set COMPOSE_BINARY, or install docker's compose plugin"
        # A warning is an error in this house: in a bare environment say so, and let nobody take it for success.
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    return binary


def config(compose: Path, case: Project, root: Path) -> dict[str, Any]:
    """Return what Compose makes of a project, extensions aside."""
    command = [str(compose)]
    command += [word for name in case.compose_files for word in ("-f", str(root / name))]
    command += [word for name in case.env_files for word in ("--env-file", str(root / name))]
    done = subprocess.run(
        [*command, "--profile", "*", "config", "--format", "json"],
        cwd=root / case.directory,
        env={"HOME": str(root), **case.environ},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    return {key: value for key, value in answer.items() if not key.startswith("x-")}


def judged(compose: Path, seed: int, root: Path) -> str:
    """Write the project of `seed`, pin it, and compare with Compose. Return what came of it."""
    case = random_project(Random(seed))
    for name, content in case.files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / case.directory).mkdir(parents=True, exist_ok=True)

    before = config(compose, case, root)
    layout = compose_files.discover(
        root / case.directory,
        case.environ,
        Path.exists,
        Path.read_bytes,
        files=[root / name for name in case.compose_files],
        env_files=[root / name for name in case.env_files],
    )
    model = compose_files.load(layout.files, layout.project_directory, layout.env_files, case.environ, Path.read_bytes)
    # Compose writes every dollar twice, so that its answer can be read as a Compose file again.
    assert {name: str(service.image).replace("$", "$$") for name, service in model.services.items()} == {
        name: service["image"] for name, service in before["services"].items()
    }
    for name, service in model.services.items():
        environment = {key: value.replace("$", "$$") for key, value in service.environment.items()}
        assert environment == (before["services"][name].get("environment") or {})

    random = Random(-seed)
    tag = random.choice(["v2.1.0", "v2.1.0", "v2.1.0", "v10.0.0-rc.1", "latest"])
    digest = "sha256:" + "f" * 64 if random.random() < 0.1 or "@" in repr(before) else ""
    try:
        edits = pin.edits(model, dict.fromkeys(case.wanted, pin.NewTag(tag, digest)))
    except ComposeFileError as refusal:
        return refusal.message.split("/")[-1].split(": ", 1)[-1].split(" of ")[0].split(" from ")[-1]
    for edit in edits:
        edit.path.write_bytes(edit.after or b"")

    for name in case.wanted:
        service = before["services"][name]
        service["image"] = f"{Reference.parse(service['image']).repository}:{tag}" + (f"@{digest}" if digest else "")
    assert config(compose, case, root) == before
    return "edited"


def test_compose_agrees_before_and_after(compose: Path, tmp_path: Path) -> None:
    def judge_seed(seed: int) -> tuple[int, str]:
        root = tmp_path / str(seed)
        root.mkdir()
        try:
            return seed, judged(compose, seed, root)
        except (AssertionError, ComposeFileError) as error:
            return seed, f"DISAGREES: {error}"
        finally:
            shutil.rmtree(root)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(judge_seed, range(COUNT)))
    wrong = [(seed, result) for seed, result in results if result.startswith("DISAGREES")]
    counts = Counter(result for _, result in results)
    print(f"\n{COUNT} projects judged by Compose, {len(wrong)} disagreements: {counts.most_common()}")
    assert not wrong
    assert counts["edited"] >= 500


# Where a password with a `$`, a quote or a bracket in it may stand, and what is still said of it.
WRONG = {
    "environment:\n      PW: hunter2${x": "invalid interpolation format for services.db.environment.PW.",
    "environment:\n      - PW=hunter2${x": "invalid interpolation format for services.db.environment.[].",
    "environment:\n      PW: ${A:-hunter2": "invalid interpolation format for services.db.environment.PW.",
    "environment:\n      PW: *hunter2": "unknown anchor",
    "environment:\n      PW: a$hunter2\n    cpus: x": "services.db.cpus",
    "environment: hunter2": "services.db.environment must be a mapping",
    "environment:\n      PW: [hunter2]": "services.db.environment.PW must be",
    "ports: ['hunter2']": "Invalid containerPort",
    "volumes: ['hunter2:']": "invalid spec",
    "mem_limit: hunter2": "'services[db].mem_limit' invalid syntax",
    "stop_grace_period: hunter2": "'services[db].stop_grace_period' time: invalid duration",
    "cpus: hunter2": "services.db.cpus: failed to cast to expected type: invalid syntax",
    "privileged: hunter2": "services.db.privileged: failed to cast to expected type: invalid boolean",
    "healthcheck: {interval: hunter2}": "'services[db].healthcheck.interval' time: invalid duration",
    "extra_hosts: ['hunter2']": "'services[db].extra_hosts' invalid additional host, missing IP",
    "pull_policy: hunter2": "services.db.pull_policy does not match pattern",
    "env_file: a.env": "a.env: line 2: unterminated quoted value",
    "env_file: b.env": "unexpected character",
    "env_file: c.env": "c.env: Invalid template",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_compose_finds_wrong_is_shown_without_the_value(compose: Path, tmp_path: Path, wrong: str) -> None:
    (tmp_path / "c.yml").write_text(f"services:\n  db:\n    image: x\n    {wrong}\n")
    for name, text in {"a": "PW='hunter2\n", "b": "PW=x\nhunter2!=x hunter2\n", "c": "PW=hunter2${x\n"}.items():
        (tmp_path / f"{name}.env").write_text(text)
    command = [str(compose), *([] if compose.name == "docker-compose" else ["compose"]), "-f", "c.yml", "config"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    shown = Finished(done.returncode, done.stdout, done.stderr).without_content()
    assert done.returncode and "hunter2" in done.stderr or "must be" in done.stderr, done.stderr
    assert "hunter2" not in shown.last_lines and WRONG[wrong] in " ".join(shown.last_lines.split()), shown.last_lines
    try:
        compose_files.load([tmp_path / "c.yml"], None, [], {}, Path.read_bytes)
    except ComposeFileError as error:
        assert "hunter2" not in str(error)
