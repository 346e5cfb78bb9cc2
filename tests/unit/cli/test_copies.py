"""What prune does in a repository, with a restic that answers as a real one did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compose_chap.cli import app
from compose_chap.operations import prune_copies
from compose_chap.operations.prune_copies import CopyPrunePlan
from compose_chap.records import audit
from tests.fakes import FakeEngine

RESTIC = """#!/bin/sh
for word; do case $word in
version) echo "restic 0.14.0 compiled with go1.19 on linux/amd64"; exit;;
snapshots) echo "[]"; exit;;
forget) echo "Remove(<snapshot/7252>) returned error: blob not removed, server response: 403 Forbidden (403)" >&2
        exit 1;;
esac; done
"""


def test_an_append_only_repository_fails_for_a_person_and_not_every_night(
    engine: FakeEngine,
    programs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (programs / "restic").write_text(RESTIC)
    (programs / "restic").chmod(0o755)
    (tmp_path / "password").write_text("x\n")
    monkeypatch.setattr(prune_copies, "plan", lambda *_: CopyPrunePlan((), ("7252",), {}))
    words = ["prune", "--from", "rest:http://north/chap", "--password-file", str(tmp_path / "password"), "--json"]
    assert app.main([*words, "--yes"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert not document["removed"] and "rest:http://north/chap could not be removed" in document["notes"][0]
    assert audit.entries(tmp_path)[-1].summary == "removed nothing: the repository is append-only"
    monkeypatch.setattr("compose_chap.cli.call.Call.confirm", lambda *_, **__: None)
    assert app.main(words) == 1
    assert "it is append-only" in json.loads(capsys.readouterr().out)["error"]["message"]
