"""Run `docker chap` as an operator or a script does, and stop it as the world does."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.sample.stack import SampleStack, environment, run_in

AUTOMATION = (Path(__file__).parents[2] / "docs/automation.md").read_text()
COMMON = {"version", "command", "ok"}
OF_A_FAILURE = {"error", "exit_status"}
OF_A_FAILED_RUN = {*OF_A_FAILURE, "run", "report", "checks"}
_CRONTAB = "#!/bin/sh\n[ $1 = - ] && exec cat >'{table}'\n[ $1 = -l ] && exec cat '{table}'\nexit 2\n"


def chap(stack: SampleStack, *words: str, expect: int = 0, **variables: str) -> Any:
    """Run a command with --json in the stack's folder and return its document, which is as the docs promise.

    Its progress comes as JSON too, so that in every test of a whole command standard error holds nothing else.
    """
    done = run_in(stack.folder, "docker", "chap", *words, "--json", "--progress", "json", env=environment() | variables)
    assert done.returncode == expect, done.stdout + done.stderr
    assert not (other := no_json_lines(done.stderr)), other
    return as_promised(done.stdout, words[0], expect)


def no_json_lines(text: str) -> list[str]:
    """Return the whole lines that are not a JSON object each: a process that is killed may leave half a line."""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n") and not _is_object(line)]


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def own_crontab(folder: Path) -> Path:
    """Return a folder with a crontab that keeps its lines beside it: this machine must not do the work of a sample."""
    bin = folder / "bin"
    bin.mkdir()
    (bin / "crontab").write_text(_CRONTAB.format(table=folder / "table"))
    (bin / "crontab").chmod(0o755)
    return bin


def as_promised(output: str, command: str, status: int) -> Any:
    """Return the document of a command that ended with this exit status. It has the names that the docs promise."""
    document = json.loads(output)
    assert document["version"] == 1 and document["command"] == command, document
    assert document["ok"] is (status == 0), document
    names = set(document) - COMMON
    assert names in promised()[command] or not document["ok"] and names in (OF_A_FAILURE, OF_A_FAILED_RUN), names
    return document


def put_files_back(copy: Path) -> None:
    """Put the files of a copy to where its manifest says that they were, as a person does on a new machine."""
    for file in json.loads((copy / "manifest.json").read_text())["files"]:
        Path(file["path"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(copy / file["file"], file["path"])


@cache
def promised() -> dict[str, list[set[str]]]:
    """Return the names that the docs promise of each command's documents, of which some have several kinds."""
    table = AUTOMATION.partition("| Command | Names in the document |")[2].partition("\n\n")[0]
    result: dict[str, list[set[str]]] = {}
    for command, names in re.findall(r"^\| `(\w+)[^`]*`[^|]* \| (.*) \|$", table, re.MULTILINE):
        result.setdefault(command, []).append(set(re.findall(r"`(\w+)`", names)))
    return result


@contextmanager
def started(stack: SampleStack, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command whose progress comes as JSON lines on standard error; it is dead when the block ends."""
    child = subprocess.Popen(
        ["docker", "chap", *words, "--progress", "json"],
        cwd=stack.folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        assert child.stderr is not None
        child.stderr.close()


def reach(child: subprocess.Popen[str], step: str) -> None:
    """Read progress until a step begins."""
    assert child.stderr is not None
    for line in child.stderr:
        assert _is_object(line), line
        if json.loads(line).get("step") == step:
            return
    raise AssertionError(f"it ended before '{step}'")


def plugin_process(child: subprocess.Popen[str]) -> int:
    """Return the process of the plugin, which is what docker started."""
    result = subprocess.run(["pgrep", "-P", str(child.pid)], capture_output=True, text=True, check=False)
    return int(result.stdout.split()[0])


def kill(child: subprocess.Popen[str], number: int = signal.SIGKILL) -> int:
    """Send a signal to docker and the plugin, as a terminal or the kernel does, and return docker's exit status."""
    assert child.stderr is not None
    for process in (plugin_process(child), child.pid):
        os.kill(process, number)
    assert not (other := no_json_lines(child.stderr.read())), other
    return child.wait(timeout=120)


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.1)


def tools_running(stack: SampleStack) -> list[str]:
    """Return PostgreSQL's tools that run in the database's container or are connected to its server."""
    done = stack.docker("top", f"{stack.project}-{stack.database_service}-1")
    names = [name for name in ("pg_dump", "pg_restore") if f" {name} " in done.stdout]
    ours = "pg_dump|pg_restore|docker-chap"
    connected = f"SELECT application_name FROM pg_stat_activity WHERE application_name ~ '{ours}'"
    return names + [name for (name,) in stack.sql(connected, "postgres")]


def server_crashed(stack: SampleStack) -> bool:
    """Whether PostgreSQL took the end of a process of ours for a crash."""
    done = stack.compose("logs", "--no-log-prefix", stack.database_service)
    return "terminated by signal" in done.stdout or "reinitializing" in done.stdout


@contextmanager
def standstill(stack: SampleStack) -> Iterator[None]:
    """Hold a table that CHAP does not know so that nobody can read it: a dump stands still."""
    stack.sql("CREATE TABLE standstill (a int)")
    holder = subprocess.Popen(
        ["docker", "compose", "exec", "-T", stack.database_service, "psql", "-U", stack.user, "-d", stack.database],
        cwd=stack.folder,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin and holder.stdout
    holder.stdin.write("BEGIN; LOCK TABLE standstill IN ACCESS EXCLUSIVE MODE; SELECT 'held';\n")
    holder.stdin.flush()
    while "held" not in holder.stdout.readline():
        pass
    try:
        yield
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()
        stack.sql("DROP TABLE standstill")
