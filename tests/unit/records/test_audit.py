"""The audit trail: what was begun and how it ended, however it was cut off, and never without bound."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from compose_chap.errors import StateError
from compose_chap.model import Origin
from compose_chap.ownership import user_name
from compose_chap.records import audit
from compose_chap.records.run_records import FOLDER

NOW = datetime(2026, 11, 23, 4, 15, tzinfo=timezone.utc)
HERE = Origin("chap", "ENGINE", "server")


def begun(directory: Path, operation: str = "backup", minutes: int = 0) -> audit.AuditEntry:
    words = (operation, "--reason", "nightly")
    return audit.begin(directory, operation, words, HERE, NOW + timedelta(minutes=minutes))


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    entry = begun(tmp_path)
    assert audit.entries(tmp_path) == [entry] and entry.result == audit.RUNNING
    ended = replace(entry, result="failed", exit_status=1, message="No room.", ended_at=NOW, facts={"backup": "x"})
    audit.end(tmp_path, ended)
    assert audit.entries(tmp_path) == [ended]
    assert (tmp_path / FOLDER / audit.FILE).stat().st_mode & 0o777 == 0o600


def test_sudo_is_recorded_with_both_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "anna")
    entry = begun(tmp_path)
    assert entry.by.startswith("anna@") and entry.user == user_name(os.geteuid())


def test_it_separates_stacks_and_leaves_out_what_was_handed_on(tmp_path: Path) -> None:
    begun(tmp_path)
    handed_on = begun(tmp_path, "upgrade")
    audit.end(tmp_path, replace(handed_on, result=audit.DETACHED))
    assert [entry.operation for entry in audit.entries(tmp_path, HERE)] == ["backup"]
    assert audit.entries(tmp_path, Origin("other")) == []


def test_a_run_without_a_process_was_interrupted(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from datetime import datetime, timezone;"
        "from compose_chap.records import audit; from compose_chap.model import Origin;"
        "audit.begin(Path(sys.argv[1]), 'backup', ['backup'], Origin(), datetime.now(timezone.utc));"
        "print('begun', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout and child.stdout.readline() == "begun\n"
    assert [entry.result for entry in audit.entries(tmp_path)] == [audit.RUNNING]
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert [entry.result for entry in audit.entries(tmp_path)] == [audit.CUT_OFF]


def test_half_a_line_of_a_power_cut_and_other_rubbish_hide_nothing(tmp_path: Path) -> None:
    first = begun(tmp_path)
    file = tmp_path / FOLDER / audit.FILE
    content = file.read_bytes()
    file.write_bytes(content + b'\n[]\n{"id": 3}\n\xff\n' + content[:40])
    second = begun(tmp_path, "prune", 1)
    assert audit.entries(tmp_path) == [first, second]


def test_it_never_grows_without_bound_and_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_LARGEST", 4000)
    for minute in range(60):
        begun(tmp_path, minutes=minute)
    recent, complete = audit.entries(tmp_path), audit.entries(tmp_path, complete=True)
    assert 5 < len(recent) < len(complete) == 60 and recent == complete[-len(recent) :]
    assert [entry.began_at for entry in complete] == [NOW + timedelta(minutes=minute) for minute in range(60)]

    monkeypatch.setattr(audit, "_MOST", 4)
    for minute in range(60, 90):
        begun(tmp_path, minutes=minute)
    files = sorted(path.name for path in (tmp_path / FOLDER).glob("audit*"))
    assert {"audit.1.jsonl", "audit.2.jsonl", "audit.3.jsonl", "audit.jsonl"} <= {*files}
    kept = audit.entries(tmp_path, complete=True)
    assert len(kept) < 90 and kept[-1].began_at == NOW + timedelta(minutes=89)


def test_a_power_cut_while_files_are_renumbered_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_LARGEST", 1000)
    made = [begun(tmp_path, minutes=minute) for minute in range(12)]
    real, renamed = os.replace, list[Any]()

    def cut(*names: Any, **folders: Any) -> None:
        if len(renamed) == 2:
            raise OSError("the power is gone")
        renamed.append(names)
        real(*names, **folders)

    monkeypatch.setattr(os, "replace", cut)
    for minute in range(12, 20):
        with suppress(StateError):
            made.append(begun(tmp_path, minutes=minute))
    assert len(renamed) == 2
    monkeypatch.setattr(os, "replace", real)
    made += [begun(tmp_path, minutes=minute) for minute in range(20, 40)]
    assert audit.entries(tmp_path, complete=True) == made


def test_a_word_that_is_no_text_does_not_hide_its_entry(tmp_path: Path) -> None:
    audit.begin(tmp_path, "verify", ("verify", "caf\udce9.dump"), HERE, NOW)
    assert [entry.words for entry in audit.entries(tmp_path)] == [("verify", "caf?.dump")]


def test_several_at_once_lose_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_LARGEST", 9000)
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda number: begun(tmp_path, minutes=number).id, range(24)))
    assert {entry.id for entry in audit.entries(tmp_path)} == made


def test_facts_without_bound_are_left_out_and_the_entry_stays(tmp_path: Path) -> None:
    entry = replace(begun(tmp_path), result="done", facts={"backups": ["x" * 100] * 1000})
    audit.end(tmp_path, entry)
    assert audit.entries(tmp_path) == [replace(entry, facts={})]


def test_a_trail_that_others_may_write_counts_for_nothing(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / FOLDER / audit.FILE).chmod(0o666)
    with pytest.raises(StateError, match="may be written by others"):
        begun(tmp_path)
    with pytest.raises(StateError, match="may be written by others"):
        audit.entries(tmp_path)


def test_a_folder_that_this_user_may_not_look_into_has_no_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".docker-chap").mkdir()
    assert audit.exists(tmp_path)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", denied)
        seen = audit.exists(tmp_path)
    assert not seen
