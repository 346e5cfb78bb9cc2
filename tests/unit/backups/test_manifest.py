"""A manifest is read strictly, written as older versions read it, and a bad one never stops a command."""

from __future__ import annotations

import copy
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compose_chap.backups import catalogue, manifest_reader, proof, restore_txt, verdict
from compose_chap.backups.backup import remove_abandoned
from compose_chap.backups.manifest import DatabaseFacts, Dhis2Facts, DumpPart, ImageFacts, ServerFacts, VolumePart
from compose_chap.backups.volumes import unique_name
from compose_chap.errors import DumpError
from compose_chap.model import Project, Role
from compose_chap.operations import prune
from compose_chap.reading import Value
from compose_chap.records.retention import Retention
from tests.fakes import FakeEngine, manifest, world
from tests.unit.operations.test_prune import HERE, NOW, stack_in, write

PART = {"file": "a.dump", "size": 7, "sha256": "0" * 64}
# As version 0.1.0 wrote it, with everything that it could hold.
OLD: dict[str, Any] = {
    **{"format": 1, "id": "20261123T040000Z", "created_at": "2026-11-23T04:00:00+00:00", "reason": "by hand"},
    "tool": "docker-chap 0.1.0",
    "project": {"name": "p", "directory": "/srv/p", "files": ["/srv/p/compose.yml"], "env_files": [], "absent": []},
    "engine": {"id": "engine-1", "name": "north"},
    "checkout": {
        **{"commit": "abc", "branch": "", "describe": "v2.0.0", "remote": "https://example.org/chap.git"},
        "diff": {**PART, "file": "local-changes.diff"},
    },
    "chap": {
        **{"version": "2.0.0", "worker_version": "2.0.0"},
        "schema": {
            **{"missing_tables": [], "missing_columns": [], "alembic": [], "heads": ["a7b8c9d0e1f2"]},
            "verdict": "complete, Alembic behind",
        },
    },
    "server": {"version": 170006, "compression": "zstd:1"},
    "database": {
        **{"name": "chap_core", "owner": "chap", "size": 100, "encoding": "UTF8", "collate": "C", "ctype": "C"},
        **{
            "provider": "c",
            "collation_version": "",
            "comment": "",
            "privileges": [{"role": "r", "privilege": "CREATE"}],
        },
        "settings": [{"role": "", "name": "jit", "value": "off"}, {"role": "", "name": "a.b", "value": None}],
    },
    "images": [{"service": "chap", "role": "api", "image": "chap-core:v2.0.0", "id": "sha256:1", "digests": ["x@y"]}],
    "dump": {**PART, "compression": "zstd:1"},
    "tables": {"public.observation": 3},
    **{"lost_tables": [], "absent_tables": ["public.b"], "foreign": []},
    "dhis2": {
        **{
            "service": "dhis2-db",
            "admin": "dhis",
            "server": {"version": 160003},
            "image": "sha256:2",
            "tables": {"a": 1},
        },
        **{"database": {"name": "dhis2", "owner": "dhis", "size": 9}, "dump": {**PART, "compression": "gzip:6"}},
    },
    "volumes": [
        {**PART, "file": "volumes/runs.tar.gz", "volume": "p_runs", "service": "chap", "path": "/data", "entries": 3},
        {**PART, "file": "volumes/m.db", "volume": "", "service": "ewars", "path": "/app/m.db"},
    ],
    "files": [{**PART, "file": "files/compose.yml", "path": "/srv/p/compose.yml"}],
    "seconds": {"dump": 1.5, "all": 2},
    "proven_at": "2026-11-23T04:01:00+00:00",
    "instructions": {**PART, "file": "RESTORE.txt"},
}
# All that a manifest of the first versions had.
OLDEST = {
    name: OLD[name] for name in ("format", "id", "created_at", "reason", "proven_at", "tables", "server", "dump")
} | {
    **{"project": {"name": "p"}, "chap": {"version": ""}, "database": {"name": "chap_core", "size": 1}},
    **{"files": [], "checkout": None},
}


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """End a test that waits for a FIFO."""
    signal.alarm(60)
    yield
    signal.alarm(0)


def read(document: Any) -> Any:
    return manifest_reader.read(Value(document, "x/manifest.json", DumpError), Path("x"))


def subset(old: Any, new: Any) -> bool:
    """Whether everything of an old document is in a new one."""
    if isinstance(old, dict):
        return all(name in new and subset(old[name], new[name]) for name in old)
    if isinstance(old, (list, tuple)):
        return len(old) == len(new) and all(map(subset, old, new))
    return bool(old == new)


@pytest.mark.parametrize("document", [OLD, OLDEST])
def test_what_older_versions_wrote_is_read_and_written_as_they_read_it(document: dict[str, Any]) -> None:
    result = read(document)
    again = json.loads(result.document())
    assert subset(document, again)
    assert read(again) == result
    assert all(again[name] is not None for name in ("instructions",) if name in again), (
        "they take what is there for a file"
    )
    assert {part.file for part in read(OLD).parts} >= {"a.dump", "local-changes.diff", "RESTORE.txt", "volumes/m.db"}


def paths(document: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value of a document."""
    if before:
        yield before
    if isinstance(document, (dict, list)):
        for key, inner in document.items() if isinstance(document, dict) else enumerate(document):
            yield from paths(inner, (*before, key))


ODD: list[Any] = [
    None,
    7,
    -1,
    10**30,
    1e300,
    "text",
    "2026-11-23T04:00:00",
    True,
    [],
    {},
    [None],
    [[]],
    {"a": []},
    "a\0",
    "\ud800",
]


@pytest.mark.parametrize("way", list(paths(OLD)), ids=lambda way: ".".join(map(str, way)))
def test_an_odd_value_is_read_or_raises_an_error_with_its_field(way: tuple[Any, ...]) -> None:
    for odd in ODD:
        document = copy.deepcopy(OLD)
        node = document
        for key in way[:-1]:
            node = node[key]
        node[way[-1]] = odd
        try:
            result = read(document)
        except DumpError as error:
            assert str(way[0]) in error.message
        else:
            # What is read can be used, and written.
            assert result.document() and catalogue.Backup(Path("x"), result).size >= 0
            assert result.created_at.astimezone(timezone.utc) and result.proven_at - result.created_at is not None


@pytest.mark.parametrize("name", sorted(OLDEST.keys() - {"files", "checkout"}))
def test_a_manifest_without_what_everybody_needs_says_what_is_missing(name: str) -> None:
    with pytest.raises(DumpError, match=f"{name} is missing"):
        read({key: value for key, value in OLDEST.items() if key != name})


BAD = {
    "empty": b"",
    "list": b"[]",
    "deep": b"[" * 100_000,
    "binary": os.urandom(1000),
    "other": b'{"format": 2}',
    "outside": json.dumps({**OLD, "dump": {**PART, "file": "../../etc/passwd"}}).encode(),
    "naive": json.dumps({**OLD, "created_at": "2026-11-23T04:00:00"}).encode(),
    "range": json.dumps({**OLD, "proven_at": "9999-12-31T23:59:59-14:00"}).encode(),
    "size": json.dumps({**OLD, "dump": {**PART, "size": -1}}).encode(),
    "nan": json.dumps({**OLD, "seconds": {"all": float("nan")}}).encode(),
}


def test_a_bad_backup_hides_no_other_and_stops_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    good = write(folder, NOW)
    for name, content in BAD.items():
        (folder / name).mkdir(mode=0o755)
        (folder / name / "manifest.json").write_bytes(content)
    for name in ("fifo", "folder", "link", "nothing"):
        (folder / name).mkdir(mode=0o755)
    os.mkfifo(folder / "fifo" / "manifest.json")
    (folder / "folder" / "manifest.json").mkdir()
    (folder / "link" / "manifest.json").symlink_to(good / "manifest.json")
    with open(folder / "nothing" / "large", "wb") as file:
        file.truncate(1 << 40)
    (folder / "large").mkdir(mode=0o755)
    (folder / "nothing" / "large").rename(folder / "large" / "manifest.json")

    listing = catalogue.scan([folder])
    assert [backup.folder for backup in listing.backups] == [good]
    assert len(listing.unusable) == len(BAD) + 4 and all("\n" not in why for why in listing.unusable)
    assert catalogue.find("latest", [folder]).folder == good
    here = stack_in(tmp_path, "chap_core")
    chosen = prune.plan(here, prune.Inventory.of(here, HERE, [folder], {}), Retention(0, 0, 0, 0), NOW)
    assert [backup.folder for backup in chosen.backups] == [] and dict(chosen.kept)[good.name]
    remove_abandoned(folder)
    assert len(list(folder.iterdir())) == len(BAD) + 6


@pytest.mark.parametrize(
    "word", ["", "[]", '{"at": "2026-11-23T04:00:00", "how": "x"}', '{"at": 7}', '{"how": "bad"}', "[" * 99999]
)
def test_a_word_about_a_backup_that_cannot_be_read_says_nothing(word: str, tmp_path: Path) -> None:
    path = write(tmp_path, NOW)
    (path / "proof.json").write_text(word)
    (backup,) = catalogue.list_backups([tmp_path])
    assert backup.proof.how == verdict.READ_BACK and not backup.fault


@pytest.mark.parametrize("name", ["a.dump", "proof.json", "pinned"])
def test_a_part_that_is_a_link_out_of_the_backup_is_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, NOW)
    for target in ("/etc/passwd", "../elsewhere"):
        (path / name).symlink_to(target)
        with pytest.raises(DumpError, match=f"names a file outside of it: {name}"):
            catalogue.load(path)
        (path / name).unlink()


def test_a_part_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    path = write(tmp_path, NOW)
    os.mkfifo(path / "a.dump")
    with pytest.raises(DumpError, match="is a FIFO, not a file"):
        proof.check_sums(world(FakeEngine(tmp_path)), catalogue.load(path))
    (path / "a.dump").unlink()
    (path / "a.dump").symlink_to("a.dump")
    with pytest.raises(DumpError):
        proof.check_sums(world(FakeEngine(tmp_path)), catalogue.load(path))


# RESTORE.txt

HOSTILE = [
    *("/tmp/x;touch HACKED;#.db", "/tmp/$(touch HACKED).db", "/tmp/`touch HACKED`", "/tmp/a b'c\"d"),
    *("/tmp/\ntouch HACKED\n.db", "/tmp/x' ; touch HACKED ; '", "x > HACKED", "x && touch HACKED", "x\\"),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_what_stands_in_the_instructions_is_quoted_for_the_shell(name: str, tmp_path: Path) -> None:
    service = SimpleNamespace(name=name)
    project = Project(name, Path("/srv"), (Path("/srv", name),))
    stack: Any = SimpleNamespace(
        project=project,
        writers=[service],
        database=service,
        access=SimpleNamespace(name=name, owner=name),
        of=lambda role: [service] if role is Role.DHIS2 else [],
    )
    hostile = manifest(
        images=(ImageFacts(name, "api", name, name),),
        volumes=(
            VolumePart(name, 1, "", volume="", service=name, path=name),
            VolumePart(name, 1, "", name, name, name),
        ),
        dhis2=Dhis2Facts(name, name, ServerFacts(170000), DatabaseFacts(name, 1, name), "", DumpPart(name, 1, ""), {}),
    )
    (tmp_path / "bin").mkdir()
    for program in ("docker", "gunzip"):
        (tmp_path / "bin" / program).write_text('#!/bin/sh\nprintf "%s\\n" "$@" >> "$OUT"\n')
        (tmp_path / "bin" / program).chmod(0o755)
    (tmp_path / "work").mkdir()
    out, done = tmp_path / "out", 0
    environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "OUT": str(out)}
    for command in commands_of(restore_txt.text(stack, hostile, name, 5433)):
        subprocess.run(["sh", "-c", command], cwd=tmp_path / "work", env=environment, capture_output=True, check=False)
        done += 1
    assert done > 12 and out.read_text().count(name) > 20, "the commands were run, with the name as it is"
    assert list((tmp_path / "work").iterdir()) == [], "nothing else was run"


def commands_of(text: str) -> Iterator[str]:
    """Yield the commands of the instructions, each up to where its quotes are closed; what is no command too."""
    lines = iter(text.split("\n"))
    for line in lines:
        if line.startswith("   "):
            while not closed(line):
                line += "\n" + next(lines)
            yield line


def closed(command: str) -> bool:
    """Whether every quote of a command is closed."""
    try:
        return bool(shlex.split(command)) or True
    except ValueError:
        return False


def test_files_of_a_container_do_not_take_each_other_s_name() -> None:
    taken: set[str] = set()
    names = [
        unique_name(name, taken) for name in ("model/a/b.db", "model/a_b.db", "..", "/" * 400, "x" * 400, "x" * 401)
    ]
    assert len(set(names)) == len(names)
    assert all(len(file_name) <= 200 and "/" not in file_name and not file_name.startswith(".") for file_name in names)


def test_times_are_of_this_world() -> None:
    assert read(OLD).created_at == datetime(2026, 11, 23, 4, tzinfo=timezone.utc)
