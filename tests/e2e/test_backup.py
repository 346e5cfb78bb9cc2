"""Backups prove themselves: complete, whole, without secrets; a killed one leaves nothing; retention keeps its word."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from compose_chap.engine.engine import Engine
from compose_chap.errors import DumpError
from compose_chap.postgres import pg_tools
from compose_chap.postgres.server import Server
from compose_chap.schedule import plan
from compose_chap.schedule.plan import Schedule
from tests.e2e.calls import chap, kill, server_crashed, standstill, started, tools_running, until
from tests.sample.stack import SampleStack, environment


@pytest.fixture(autouse=True)
def engine_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_a_backup_is_complete_and_says_so(small: SampleStack) -> None:
    folder = small.folder
    git(folder, "init", "-q")
    git(folder, "remote", "add", "origin", "https://user:t0ken@example.org/chap.git")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "as installed")
    models = folder / "config" / "configured_models"
    models.mkdir(parents=True)
    (models / "mine.yaml").write_text("- url: https://example.org/model\n")
    (folder / "compose.yml").write_text((folder / "compose.yml").read_text() + "# changed here\n")
    small.sql(f"ALTER DATABASE {small.database} SET app.key = 's3cret'; ALTER DATABASE {small.database} SET jit = off")
    dirty = git(folder, "status", "--short")

    made = chap(small, "backup", "--reason", "before the audit")["backup"]
    folder_path = Path(made["folder"])
    manifest = json.loads((folder_path / "manifest.json").read_text())

    assert git(folder, "status", "--short") == dirty
    assert made["tables"] == {f"public.{name}": rows for name, rows in small.counts().items()}
    assert {Path(file["path"]).name for file in manifest["files"]} == {"compose.yml", ".env", "mine.yaml"}
    assert manifest["checkout"]["remote"] == "https://example.org/chap.git"
    assert "+# changed here" in (folder_path / "local-changes.diff").read_text()
    assert manifest["reason"] == "before the audit" and manifest["format"] == 1
    assert {"role": "", "name": "jit", "value": "off"} in manifest["database"]["settings"]
    assert "s3cret" not in json.dumps(manifest) and "t0ken" not in json.dumps(manifest)
    assert f"{small.user}:{small.user}@" not in json.dumps(manifest)
    assert manifest["dump"]["compression"] == "zstd:1" and manifest["chap"]["version"] == "2.0.0"
    assert {file["service"] for file in manifest["images"]} == set(small.containers())
    for path in [folder_path, *folder_path.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert "pg_restore" in (folder_path / "RESTORE.txt").read_text()


def test_every_command_sees_the_backups_of_the_schedule_too(small: SampleStack, tmp_path: Path) -> None:
    usb = tmp_path / "usb"
    near = chap(small, "backup", "--reason", "near")["backup"]
    plan.write(small.folder, Schedule(small.project, "root", "cron", 1, 30, ("docker",), (), "/", output=str(usb)))
    try:
        far = chap(small, "backup", "-o", str(usb), "--reason", "far")["backup"]
        listed = {
            each["id"]: Path(each["folder"]).parent for each in chap(small, "backups", "--pin", far["id"])["backups"]
        }
        assert listed[near["id"]] == small.folder / "backups" and listed[far["id"]] == usb
        assert chap(small, "verify")["backup"]["id"] == far["id"]
        kept = chap(small, "prune", "--dry-run", "--keep-last", "0", "--keep-daily", "0")["kept"]
        assert kept[far["id"]] == "pinned"
        table = subprocess.run(
            ["docker", "chap", "-p", small.project, "backups"],
            env=environment(),
            cwd="/",
            capture_output=True,
            text=True,
        ).stdout
        assert "FOLDER" in table and str(usb) in table
    finally:
        plan.remove(small.folder)
        shutil.rmtree(near["folder"])


def test_rows_written_meanwhile_do_not_upset_the_counts(small: SampleStack) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            small.sql(
                "INSERT INTO observation (dataset_id, period, org_unit, value, feature_name)"
                " SELECT min(id), '2026-01', 'ou', 1, 'rainfall' FROM dataset"
            )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        made = chap(small, "backup")["backup"]
    finally:
        stop.set()
        writer.join()
    assert small.counts()["observation"] > made["tables"]["public.observation"]
    proven = chap(small, "verify", made["id"], "--deep")
    assert proven["proven_by"] == "test-restored" and proven["tables"] == made["tables"]
    listed = chap(small, "backups")["backups"]
    assert [backup["proven_by"] for backup in listed if backup["id"] == made["id"]] == ["test-restored"]


def test_a_dump_alone_goes_to_a_file_or_a_pipe(small: SampleStack) -> None:
    small.sql("CREATE VIEW of_mine AS SELECT 1 AS one")
    try:
        made = chap(small, "backup", "--dump-only", "alone.dump")["dump"]
        piped = subprocess.run(
            ["docker", "chap", "backup", "--dump-only", "-"], cwd=small.folder, env=environment(), capture_output=True
        )
    finally:
        small.sql("DROP VIEW of_mine")
    assert (small.folder / "alone.dump").stat().st_mode & 0o777 == 0o600
    assert made["foreign"] == ["VIEW of_mine"] and made["lost_tables"] == []
    dumps = [entry for entry in chap(small, "history")["entries"] if entry["operation"] == "dump"]
    assert [entry["facts"]["dump"] for entry in dumps] == [str(small.folder / "alone.dump"), "standard output"]
    assert [entry["facts"]["size"] for entry in dumps] == [made["size"], len(piped.stdout)]
    assert made["size"] == (small.folder / "alone.dump").stat().st_size
    assert piped.returncode == 0 and b"VIEW of_mine. A restore needs --trust." in b" ".join(piped.stderr.split())
    for content in ((small.folder / "alone.dump").read_bytes(), piped.stdout):
        read = subprocess.run(
            ["docker", "compose", "exec", "-T", small.database_service, "pg_restore", "--list"],
            cwd=small.folder,
            env=environment(),
            input=content,
            capture_output=True,
        )
        assert read.returncode == 0 and b"TABLE DATA public observation" in read.stdout


def test_damage_is_detected(small: SampleStack, backup_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / backup_folder.name
    shutil.copytree(backup_folder, copy)
    # On a machine without the stack too.
    assert chap(small, "verify", str(copy))["proven_by"] == "read back"
    content = bytearray((copy / "files" / "compose.yml").read_bytes())
    content[5] ^= 1
    (copy / "files" / "compose.yml").write_bytes(content)
    assert "compose.yml" in chap(small, "verify", str(copy), expect=1)["error"]["message"]

    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["dump"]["file"] = "../../../etc/passwd"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "outside" in chap(small, "verify", str(copy), expect=1)["error"]["message"]
    (copy / "files" / "compose.yml").unlink()
    (copy / "files" / "compose.yml").symlink_to("/etc/passwd")
    manifest["dump"]["file"] = next(backup_folder.glob("*.dump")).name
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "outside" in chap(small, "verify", str(copy), expect=1)["error"]["message"]


def test_a_truncated_dump_is_detected(small: SampleStack, backup_folder: Path) -> None:
    content = next(backup_folder.glob("*.dump")).read_bytes()
    server = Server(Engine(), small.containers()[small.database_service]["id"], small.user)
    pg_tools.read_to_end(server, [content])
    for percent in range(5, 100, 5):
        with pytest.raises(DumpError):
            pg_tools.read_to_end(server, [content[: len(content) * percent // 100]])


def ids(stack: SampleStack) -> list[str]:
    return [backup["id"] for backup in chap(stack, "backups")["backups"]]


TORTURE = [pytest.param(number, marks=pytest.mark.torture) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize("number", [signal.SIGKILL, *TORTURE])
def test_a_backup_that_is_killed_leaves_nothing(small: SampleStack, number: int) -> None:
    before, folder = ids(small), small.folder / "backups"
    with standstill(small), started(small, "backup") as child:
        # Before it makes its folder, it asks pg_dump which compression it knows.
        until(lambda: any(folder.glob("*.partial")) and "pg_dump" in tools_running(small))
        status = kill(child, number)
        until(lambda: "pg_dump" not in tools_running(small))
    assert number == signal.SIGKILL or status == 130
    until(lambda: not tools_running(small))
    assert ids(small) == before and not server_crashed(small)
    assert any(folder.glob("*.partial")) == (number == signal.SIGKILL)
    chap(small, "backup")
    assert not any(folder.glob("*.partial"))


def test_a_full_disk_leaves_nothing(small: SampleStack, backup_folder: Path, tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", tmp_path], check=False).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        refused = chap(small, "backup", "-o", str(tmp_path / "b"), expect=1)["error"]
        assert "Not enough room" in refused["message"]
        # An estimate that is wrong: the disk fills up in the middle.
        known = tmp_path / "b" / backup_folder.name
        known.mkdir(parents=True)
        manifest = json.loads((backup_folder / "manifest.json").read_text())
        manifest["dump"]["size"] = 1
        (known / "manifest.json").write_text(json.dumps(manifest))
        (tmp_path / "filler").write_bytes(b"x" * 320_000)
        failed = chap(small, "backup", "-o", str(tmp_path / "b"), expect=1)["error"]
        assert "space" in failed["message"]
        assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [".gitignore", backup_folder.name]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def peak_memory(stack: SampleStack, *words: str) -> float:
    """Run the plugin itself to its end, which must be good, and return the most memory that it had, in MiB."""
    plugin = Path(environment()["DOCKER_CONFIG"], "cli-plugins", "docker-chap")
    peak, child = (
        0.0,
        subprocess.Popen(
            [plugin, "chap", *words],
            cwd=stack.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ),
    )
    while child.poll() is None:
        # The kernel keeps the highest value since the program began; what has ended has none.
        result = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{child.pid}/status").read_text())
        peak = max(peak, int(result[1]) / 1024 if result else 0)
        time.sleep(0.02)
    assert child.returncode == 0
    return peak


@pytest.mark.torture
def test_a_large_database_needs_little_memory(small: SampleStack) -> None:
    small.fill(megabytes=300)
    plain = small.folder / "plain.sql.gz"
    plain.write_bytes(small.inside("pg_dump", "-U", small.user, "-Z", "1", small.database))
    calls = [("backup",), ("restore", "latest", "--yes"), ("restore", plain.name, "--yes")]
    peaks = {words[:2]: peak_memory(small, *words) for words in calls}
    assert all(10 < peak < 100 for peak in peaks.values()), peaks


def test_prune_keeps_its_word(small: SampleStack, backup_folder: Path, tmp_path: Path) -> None:
    for day in range(1, 29):
        copy = tmp_path / f"202601{day:02}T000000Z"
        shutil.copytree(backup_folder, copy)
        manifest = json.loads((copy / "manifest.json").read_text())
        manifest |= {"id": copy.name, "created_at": f"2026-01-{day:02}T00:00:00+00:00"}
        (copy / "manifest.json").write_text(json.dumps(manifest))
    chap(small, "backups", "-o", str(tmp_path), "--pin", "20260102T000000Z")
    words = ["prune", "-o", str(tmp_path), "--keep-last", "2", "--keep-daily", "3", "--keep-weekly", "2"]
    chosen = chap(small, *words, "--keep-monthly", "0", "--dry-run")
    assert len(list(tmp_path.iterdir())) == 28 and not chosen["removed"]
    done = chap(small, *words, "--keep-monthly", "0", "--yes")
    left = sorted(path.name[6:8] for path in tmp_path.iterdir())
    assert left == ["02", "25", "26", "27", "28"] and done["backups"] == chosen["backups"]
    chap(small, "backups", "-o", str(tmp_path), "--unpin", "20260102T000000Z")
    chap(
        small,
        "prune",
        "-o",
        str(tmp_path),
        *(w for p in ("last", "daily", "weekly", "monthly") for w in (f"--keep-{p}", "0")),
        "--yes",
    )
    assert [path.name[6:8] for path in tmp_path.iterdir()] == ["28"]
