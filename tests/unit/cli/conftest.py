"""What tests of several commands share: an engine with a stack."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from compose_chap.cli.call import Call
from compose_chap.records import run_records
from tests.fakes import API, WORKER, FakeEngine, world

CRONTAB = "#!/bin/sh\n[ $1 = - ] && exec cat >'{table}'\n[ $1 = -l ] && exec cat '{table}'\nexit 2\n"
DOCKER = f"""#!{sys.executable}
import json, pathlib, sys
failing = pathlib.Path(__file__).with_name("failing").read_text().split()
bad = [word for word in failing if word in sys.argv]
with open(pathlib.Path(__file__).with_name("asked"), "a") as asked:
    asked.write(" ".join(sys.argv[1:]) + "\\n")
print(json.dumps({{"error": {{"message": "The database does not answer."}}}} if bad else {{"ok": True}}))
sys.exit(len(bad))
"""
FILE = f"chap {API}:v1\nworker {WORKER}:v1\ndb postgres:17\nredis valkey:8\n"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """An engine with a stack, in whose folder the commands are called."""
    (tmp_path / "compose.yml").write_text(FILE)
    engine = FakeEngine(tmp_path)
    here = world(engine)
    monkeypatch.setattr(Call, "world", lambda call: here)
    monkeypatch.setattr(run_records, "_ROOM", 16)
    monkeypatch.chdir(tmp_path)
    return engine


@pytest.fixture
def programs(engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder of the programs that the command calls; the file `failing` names what docker fails at."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, text in (("crontab", CRONTAB.format(table=folder / "table")), ("docker", DOCKER)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "failing").write_text("")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder
