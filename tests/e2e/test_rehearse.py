"""A rehearsal tells what an upgrade would do to these very data, and leaves nothing behind, not even when killed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.calls import chap
from tests.e2e.conftest import running
from tests.e2e.faults import SECRETS, Picture, Run, assert_no_secret
from tests.sample.stack import SampleStack

LABEL = "label=docker-chap.throwaway"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """A small stack with secrets worth looking for."""
    stack = SampleStack.create(tmp_path_factory.mktemp("rehearse"), settings=SECRETS)
    yield from running(stack)


@pytest.fixture(autouse=True)
def production(stack: SampleStack) -> Iterator[Picture]:
    """Hold files, containers, databases and rows against what they were before the test."""
    before = picture(stack)
    yield before
    assert picture(stack) == before
    assert not (stack.folder / ".docker-chap" / "journal.json").exists()


def picture(stack: SampleStack) -> Picture:
    """Return everything of production that has to stay; how its healthchecks went is nobody's doing."""
    seen = Picture.of(stack)
    for container in seen.containers.values():
        del container["health"]
    return seen


def ours(stack: SampleStack, run: Run) -> tuple[list[str], list[str]]:
    """Return the throwaway containers of one run, and networks that bear the same label."""
    result = []
    for words in (("ps", "-a"), ("network", "ls")):
        listed = stack.docker(*words, "--filter", LABEL, "--format", '{{.ID}} {{.Label "docker-chap.throwaway"}}')
        lines = (line.split() for line in listed.stdout.splitlines())
        result.append([line for line, owner in lines if owner.startswith(f"{run.process.pid}@")])
    return result[0], result[1]


def rehearsed(stack: SampleStack, *words: str, expect: int = 0) -> Any:
    """Rehearse, look at the exit status and that nothing is left, and return the document."""
    run = Run(stack, "rehearse", *words)
    assert run.end() == expect, run.stdout + run.stderr
    assert ours(stack, run) == ([], [])
    assert_no_secret(stack, run.stdout, run.stderr)
    return run.document


# Tries to reach a port by all addresses of the machine, and prints those that answered.
REACH = """
import socket, sys
for address in sys.argv[2:]:
    try:
        socket.create_connection((address, int(sys.argv[1])), 2).close()
        print(address)
    except OSError:
        pass
"""


def addresses() -> list[str]:
    """Return the addresses of this machine, those of its bridges included, and one of the world."""
    output = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    return [address for address in output if ":" not in address] + ["127.0.0.1", "1.1.1.1"]


def test_a_good_version_on_fresh_data_with_no_network_at_all(stack: SampleStack) -> None:
    seen: dict[str, Any] = {}
    production = stack.containers()[stack.api_service]["id"]
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = str(listener.getsockname()[1])

        def look(run: Run) -> None:
            containers, networks = ours(stack, run)
            facts = json.loads(stack.docker("inspect", *containers).stdout)
            seen.update(ours=containers, networks=networks, modes={fact["HostConfig"]["NetworkMode"] for fact in facts})
            seen["variables"] = [variable for fact in facts for variable in fact["Config"]["Env"]]
            (api,) = (
                fact["Id"] for fact in facts if any("CHAP_DATABASE_URL" in each for each in fact["Config"]["Env"])
            )
            seen["reached"] = stack.docker("exec", api, "python3", "-c", REACH, port, *addresses()).stdout.split()
            # From where production runs it is reached: the question is a good one.
            seen["by_others"] = stack.docker(
                "exec", production, "python3", "-c", REACH, port, *addresses()
            ).stdout.split()

        run = Run(stack, "rehearse", "v2.1.0", at="verify copy", hit=look)
        assert run.end() == 0, run.stdout + run.stderr
    print(seen["modes"], "reached:", seen["reached"], "by others:", seen["by_others"])
    assert seen["networks"] == [] and len(seen["ours"]) == 3 and seen["by_others"]
    assert all(mode == "none" or mode.startswith("container:") for mode in seen["modes"])
    assert seen["reached"] == []
    assert not any(SECRETS["CHAP_DB_PASSWORD"] in variable for variable in seen["variables"])

    result = run.document
    assert result["verdict"] == "good" and all(check["status"] == "ok" for check in result["checks"])
    assert result["columns"] == {"added": ["public.backtest.max_horizon_distance"], "removed": []}
    assert result["tables"] == {f"public.{table}": rows for table, rows in stack.counts().items()}
    assert result["expected_downtime_seconds"] > result["seconds"]["start"] > 0
    assert_no_secret(stack, run.stdout, run.stderr)


@pytest.mark.parametrize(
    ("version", "check", "message"),
    [
        pytest.param("v2.1.3", "schema", "prediction.calibration", marks=pytest.mark.torture),
        ("v2.1.5", "rows", "public.observation had 2000, has 1800"),
        pytest.param("v2.1.1", "start", "RuntimeError: this build cannot start", marks=pytest.mark.torture),
        pytest.param("v2.1.7", "chap_version", "reports version 2.1.0", marks=pytest.mark.torture),
    ],
)
def test_a_version_that_harms_the_data_of_a_backup_is_detected(
    stack: SampleStack, version: str, check: str, message: str
) -> None:
    made = chap(stack, "backup")["backup"]["id"]
    result = rehearsed(stack, version, "--from", "latest", expect=1)
    assert result["source"] == made
    failed = {result["name"]: result["message"] for result in result["checks"] if result["status"] in ("fail", "error")}
    assert result["verdict"] == "bad" and message in failed[check] and result["log"]


@pytest.mark.torture
def test_an_api_that_ends_for_want_of_internet_still_shows_what_it_made_of_the_data(stack: SampleStack) -> None:
    result = rehearsed(stack, "v2.1.10")
    checks = {check["name"]: check["status"] for check in result["checks"]}
    assert result["verdict"] == "migrates"
    assert checks == {"start": "warn", "chap_version": "ok", "schema": "ok", "rows": "ok"}
    assert "no internet" in result["checks"][0]["message"]


@pytest.mark.torture
def test_a_killed_rehearsal_is_cleaned_up_by_recover_and_a_cancelled_rehearsal_by_itself(stack: SampleStack) -> None:
    killed = Run(stack, "rehearse", "v2.1.0", at="start copy", hit=lambda run: run.signal(signal.SIGKILL))
    assert killed.end() == -signal.SIGKILL
    assert ours(stack, killed)[0]
    stack.docker("chap", "recover")
    assert ours(stack, killed) == ([], [])

    cancelled = Run(stack, "rehearse", "v2.1.0", at="verify copy", hit=lambda run: run.signal(signal.SIGINT))
    assert cancelled.end() == 130 and cancelled.document["error"]["code"] == "cancelled"
    assert ours(stack, cancelled) == ([], [])
