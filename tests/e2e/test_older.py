"""A checkout from the time of CHAP's first releases: each trap of the later ones is seen, or led around."""

from __future__ import annotations

import json
import secrets
import signal
import stat
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.calls import chap
from tests.e2e.conftest import running
from tests.e2e.faults import Run
from tests.e2e.test_source import Seen, image_named
from tests.sample import older
from tests.sample.stack import PROJECT_PREFIX, SampleStack

WRITTEN = f"POSTGRES_USER=root\nPOSTGRES_PASSWORD={older.SECRET}\nPOSTGRES_DB=chap_core\n"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """A stack of v1.0.6, without .env; `docker compose` calls it like its folder."""
    name = PROJECT_PREFIX + secrets.token_hex(4)
    stack = SampleStack.create(tmp_path_factory.mktemp("older") / name, name, kind="older")
    yield from running(stack)


def checks(stack: SampleStack, version: str) -> dict[str, Any]:
    """Return the checks of an upgrade by name, whether one fails or not."""
    done = stack.docker("chap", "check", version, "--json", check=False)
    assert done.returncode in (0, 1) and older.SECRET not in done.stdout + done.stderr, done.stderr
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_a_database_that_would_look_empty(stack: SampleStack) -> None:
    result = checks(stack, "v1.0.7")["data_mount"]
    assert result["status"] == "fail" and "find an empty one" in result["message"]
    assert f"{stack.folder}-data at /var/lib/postgresql/data becomes chap-db" in result["message"]
    assert checks(stack, "v1.1.3")["data_mount"]["status"] == "ok"

    # The way around it, as the hint says.
    own = stack.folder / "compose.override.yml"
    own.write_text(f"services: {{postgres: {{volumes: ['{stack.folder}-data:/var/lib/postgresql/data']}}}}\n")
    done = chap(stack, "check", "v1.0.7", "-f", "compose.yml", "-f", own.name)
    assert {check["name"]: check["status"] for check in done["checks"]}["data_mount"] == "ok"
    own.unlink()


def test_which_postgresql(stack: SampleStack) -> None:
    name = f"{stack.project}/postgres"
    result = checks(stack, "v1.0.7")["postgresql"]
    assert result["status"] == "warn" and name in result["message"] and f"{name}:17" in result["hint"]
    ran = image_named(stack, name)
    stack.docker("tag", stack.containers()["redis"]["image_id"], name)  # as if pulled again
    try:
        result = checks(stack, "v1.0.7")["postgresql"]
        assert result["status"] == "fail" and "another image now" in result["message"]
        assert checks(stack, "v1.1.3")["postgresql"]["status"] == "ok"
    finally:
        stack.docker("tag", ran, name)
    result = checks(stack, "v1.4.9")["postgresql"]
    assert result["status"] == "fail" and "PostgreSQL 17 runs, and the files say postgres:18" in result["message"]


def test_credentials_of_the_example_and_a_folder_that_is_missing_are_seen(stack: SampleStack) -> None:
    env = stack.folder / ".env"
    env.write_text("POSTGRES_USER=chap\nPOSTGRES_PASSWORD=chap\nPOSTGRES_DB=chap_core\n")
    try:
        seen = checks(stack, "v1.1.5")
        assert f"mount folders that do not exist: {stack.folder}/runs" in seen["folders"]["message"]
        assert seen["folders"]["status"] == "fail" and f"mkdir -p {stack.folder}/runs" in seen["folders"]["hint"]
        result = seen["settings"]
        assert result["status"] == "fail" and "another user, password than now" in result["message"]
        assert "POSTGRES_USER" in result["hint"] and str(env) in result["hint"]
    finally:
        env.unlink()


@pytest.mark.parametrize("how", ["sick", "killed"])
@pytest.mark.torture
def test_env_goes_with_a_failed_upgrade(stack: SampleStack, how: str) -> None:
    (stack.folder / "runs").mkdir(exist_ok=True)
    before = Seen.of(stack)
    if how == "sick":
        failure = chap(stack, "upgrade", "v1.1.6", "--yes", expect=3)["error"]
        assert "prediction.calibration" in failure["message"] and older.SECRET not in str(failure)
    else:
        seen: list[bool] = []

        def kill(run: Run) -> None:
            seen.append((stack.folder / ".env").exists())
            run.signal(signal.SIGKILL)

        run = Run(stack, "upgrade", "v1.1.6", "--yes", at="build", hit=kill)
        assert run.end() == -signal.SIGKILL and seen == [True]
        assert chap(stack, "recover")["outcome"] == "undone"
    assert Seen.of(stack) == before and not (stack.folder / ".env").exists()


@pytest.mark.torture
def test_a_release_that_says_it_is_another(stack: SampleStack) -> None:
    result = checks(stack, "v1.1.3")
    assert "reports version 1.1.1" in result["note_number"]["message"]
    chap(stack, "upgrade", "v1.1.3", "--yes")
    assert stack.version() == "1.1.1" and chap(stack, "versions")["running"] == "1.1.3"
    assert "v1.1.2 is older than the running 1.1.3" in checks(stack, "v1.1.2")["version_path"]["message"]
    assert not chap(stack, "upgrade", "v1.1.3", "--yes")["changed"]

    # The network that later releases do not have, in a file of the operator's own.
    (stack.folder / "own.yml").write_text("services: {redis: {networks: [chap-network]}}\n")
    result = chap(stack, "check", "v1.1.5", "-f", "compose.yml", "-f", "own.yml", expect=1)["checks"]
    (failed,) = (result for result in result if result["status"] == "fail")
    assert failed["name"] == "services" and "network chap-network of redis" in failed["message"]
    chap(stack, "rollback", "--yes")


@pytest.mark.torture
def test_env_goes_with_a_rollback(stack: SampleStack) -> None:
    (stack.folder / "runs").mkdir(exist_ok=True)
    before = Seen.of(stack)
    chap(stack, "upgrade", "v1.1.5", "--yes")
    assert (stack.folder / ".env").exists()
    chap(stack, "rollback", "--yes")
    assert Seen.of(stack) == before and not (stack.folder / ".env").exists()


def test_env_is_written_from_what_runs(stack: SampleStack) -> None:
    (stack.folder / "runs").mkdir(exist_ok=True)
    env = stack.folder / ".env"
    plan = chap(stack, "upgrade", "v1.1.5", "--dry-run")
    assert (
        f"+++ {env}" in plan["plan"]["diff"] and "+POSTGRES_PASSWORD=*** (as chap has it now)" in plan["plan"]["diff"]
    )
    assert not env.exists() and older.SECRET not in str(plan)

    chap(stack, "upgrade", "v1.1.5", "--yes")
    assert stack.version() == "1.1.5" and env.read_text().endswith(WRITTEN)
    assert stat.S_IMODE(env.stat().st_mode) == 0o600 and env.stat().st_uid == stack.folder.stat().st_uid
    stack.compose("config", "--quiet")
    kept = [path for path in (stack.folder / ".docker-chap/runs").glob("*.json") if older.SECRET in path.read_text()]
    assert not kept

    result = checks(stack, "v1.2.0")["mounts"]
    assert result["status"] == "fail" and f"{stack.folder}/runs at /app/runs becomes" in result["message"]
    assert f"cp {stack.folder}/runs/. worker:/data/runs" in result["hint"]
