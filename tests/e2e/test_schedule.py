"""The work of every night, week and month, three nights in a row; and everything back by the recovery sheet alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import repositories
from tests.e2e.calls import chap, own_crontab, put_files_back
from tests.e2e.repositories import Store
from tests.monitor import Monitor, monitoring
from tests.sample.stack import SampleStack, environment
from tests.services import WebService, serving


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schedule")


@pytest.fixture(scope="module")
def path(root: Path) -> str:
    return f"{own_crontab(root)}:{environment()['PATH']}"


@pytest.fixture(scope="module")
def store(root: Path) -> Iterator[Store]:
    with repositories.rest(root) as store:
        yield store


@pytest.fixture(scope="module")
def monitor() -> Iterator[Monitor]:
    with monitoring() as monitor:
        yield monitor


@pytest.fixture(scope="module")
def web() -> Iterator[WebService]:
    with serving(WebService()) as web:
        yield web


@pytest.fixture(scope="module")
def words(store: Store, root: Path, monitor: Monitor, web: WebService) -> tuple[str, ...]:
    alarm = ("--alarm", f"json://ops:alarm-password@127.0.0.1:{web.port}/alarm-path")
    ping = f"http://127.0.0.1:{monitor.server_port}/ping"
    elsewhere = ("--copy-to", store.location, "--metrics-file", str(root / "chap.prom"), "--ping", ping, *alarm)
    return ("schedule", "on", "--at", "02:10", "--by", "cron", *elsewhere)


@pytest.fixture(scope="module")
def on(small: SampleStack, words: tuple[str, ...], path: str) -> Any:
    """Switch it on, with a repository that does not exist yet, and no password."""
    return chap(small, *words, PATH=path)


@pytest.fixture(scope="module")
def night(small: SampleStack, on: Any) -> dict[str, Any]:
    """Do the work of a first night, and return its parts by their names."""
    return {part["name"]: part for part in run(small, "nightly")["parts"]}


def run(stack: SampleStack, kind: str, expect: int = 0) -> Any:
    return chap(stack, "schedule", "run", kind, expect=expect)


def from_(stack: SampleStack, store: Store) -> tuple[str, ...]:
    return ("--from", store.location, "--password-file", str(stack.folder / ".docker-chap" / "copies.password"))


def test_it_is_on_with_a_password_that_only_the_sheet_shows(
    small: SampleStack, on: Any, words: tuple[str, ...], root: Path, path: str
) -> None:
    file = small.folder / ".docker-chap" / "copies.password"
    password = file.read_text().strip()
    assert len(password) >= 32 and file.stat().st_mode & 0o777 == 0o600
    assert password in on["sheet"]
    lines = (root / "table").read_text().splitlines()
    assert len(lines) == 3 and lines[0].startswith("10 2 * * * cd ") and password not in "".join(lines)
    shown = chap(small, "schedule", PATH=path)["scheduled"]
    assert shown["by"] == "cron" and all(shown["work"][kind]["next"] for kind in ("nightly", "weekly", "monthly"))
    # What messages propose: every other setting stays.
    later = chap(small, "schedule", "on", "--at", "03:05", PATH=path)
    assert later["changed"] == ["at"] and {"copy-to", "metrics-file", "ping", "alarm"} <= set(later["kept"])
    assert (root / "table").read_text().startswith("5 3 * * * cd ")
    again = chap(small, *words, PATH=path)
    assert again["sheet"] == "" and again["changed"] == ["at"]
    assert len((root / "table").read_text().splitlines()) == 3
    assert password not in json.dumps([again, later, shown, chap(small, "history")])
    assert chap(small, "schedule", "--sheet", PATH=path)["sheet"] == on["sheet"]


@pytest.mark.torture
def test_three_nights_with_changing_data(small: SampleStack, on: Any, root: Path) -> None:
    sent, parts = [], {}
    small.fill(rows=300_000)
    for _ in range(3):
        parts = {part["name"]: part for part in run(small, "nightly")["parts"]}
        assert all(part["exit_status"] == 0 for part in parts.values()), parts
        sent.append(parts["copy"]["facts"]["sent"])
        small.fill(rows=3_000)
    assert list(parts) == ["backup", "copy", "prune", "prune copies", "metrics"]
    # restic cuts into pieces of half a mebibyte and more; the last of every table changes, and such tables have few.
    assert 0 < sent[1] < sent[0] / 2 and 0 < sent[2] < sent[0] / 2, sent
    assert "docker_chap_last_backup_timestamp_seconds" in (root / "chap.prom").read_text()
    last = [entry for entry in chap(small, "history")["entries"] if entry["operation"] == "schedule"][-1]
    assert last["summary"].startswith("nightly: backup done; copy done;") and last["result"] == "done"
    assert [part["name"] for part in last["facts"]["parts"]] == list(parts)


@pytest.mark.torture
def test_what_cron_calls_is_the_work(small: SampleStack, night: Any, root: Path) -> None:
    last = chap(small, "backups")["backups"][-1]["id"]
    line = (root / "table").read_text().splitlines()[0]
    # As cron starts it: by a shell, with nearly nothing in its environment.
    done = subprocess.run(
        ["env", "-i", "/bin/sh", "-c", line.split(maxsplit=5)[5].replace(r"\%", "%")],
        cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout + done.stderr == "", "cron would mail that"
    assert chap(small, "backups")["backups"][-1]["id"] > last


def test_the_week(small: SampleStack, night: Any) -> None:
    assert list(night) == ["backup", "copy", "prune", "prune copies", "metrics"]
    assert all(part["exit_status"] == 0 for part in night.values()), night
    weekly = {part["name"]: part for part in run(small, "weekly")["parts"]}
    assert weekly["verify"]["facts"]["proven_by"] == "test-restored"
    assert weekly["check copies"]["facts"]["checked"] == 5


def test_the_month_and_its_alarms_when_the_link_is_down(
    small: SampleStack, night: Any, store: Store, root: Path, path: str, web: WebService
) -> None:
    web.received.clear()
    store.stop()
    assert "cannot be reached" in run(small, "monthly", expect=1)["error"]["message"]
    with repositories.rest(root, port=int(store.location.rpartition(":")[2].partition("/")[0])):
        drill = run(small, "monthly")["parts"][0]
        backup = chap(small, "backups")["backups"][-1]
        assert drill["name"] == "drill" and drill["facts"]["copy"] == backup["id"]
        assert drill["facts"]["tables"] == backup["tables"], "every table is compared"
    (where, failed), (_, works) = web.received
    assert where == "/alarm-path" and failed["type"] == "failure" and works["type"] == "success"
    assert failed["title"].endswith(": monthly drill fails") and small.project in failed["title"]
    assert works["title"].endswith(": monthly drill works again")
    for piece in ("The repository cannot be reached.", "Newest backup: 20", "Then: docker chap schedule run monthly"):
        assert piece in failed["message"], failed["message"]
    assert "Nothing fails now." in works["message"]
    shown = json.dumps(chap(small, "schedule", PATH=path))
    files = [file for file in (small.folder / ".docker-chap").rglob("*") if file.is_file()]
    for secret in ("alarm-password", "alarm-path"):
        assert secret not in shown + (root / "table").read_text()
        assert [file.name for file in files if secret in file.read_text(errors="replace")] == ["alarms.addresses"]


@pytest.mark.torture
def test_a_link_that_is_down_fails_the_night_and_loses_nothing(
    small: SampleStack, on: Any, store: Store, root: Path, path: str, monitor: Monitor
) -> None:
    port = int(store.location.rpartition(":")[2].partition("/")[0])
    monitor.received.clear()
    store.stop()
    error = run(small, "nightly", expect=1)["error"]
    assert re.search(r"copy +FAILED .*cannot be reached", error["message"]), error
    assert re.search(r"prune copies +left out", error["message"]) and "schedule run nightly" in error["hint"]
    last = chap(small, "schedule", PATH=path)["scheduled"]["work"]["nightly"]["last"]
    assert last["result"] == "failed" and "copy failed" in last["summary"]
    assert any("copy failed" in problem for problem in chap(small, "status")["problems"])
    assert [path for path, _ in monitor.received] == ["/ping/start", "/ping/fail"]
    assert "cannot be reached" in monitor.received[1][1]
    monitor.received.clear()
    with repositories.rest(root, port=port) as again:
        assert all(part["exit_status"] == 0 for part in run(small, "nightly")["parts"])
        listed = [item["id"] for item in chap(small, "copies", *from_(small, again))["copies"]]
        assert [path for path, _ in monitor.received] == ["/ping/start", "/ping"]
        status = chap(small, "status", PATH=path)
        assert status["last_copy"] and not status["problems"]
        assert listed[-1] == chap(small, "backups")["backups"][-1]["id"]


def test_everything_comes_back_by_the_sheet_alone(
    small: SampleStack, on: Any, night: Any, root: Path, tmp_path: Path
) -> None:
    """Lose the server, and follow the sheet with restic and Docker, as a person would."""
    rows, files = small.checksum(), {file: file.read_bytes() for file in (*small.files, small.folder / ".env")}
    stays = small.folder.with_name("lost")
    with repositories.rest(root, port=int(re.findall(r":(\d+)/chap", on["sheet"])[0])):
        small.compose("down", "--volumes")
        small.folder.rename(stays)
        try:
            sheet = on["sheet"].replace("/srv/chap-copy", f"{tmp_path}/copy")
            lines = [line for line in sheet.splitlines() if re.match(r"(export|restic|mkdir|docker) ", line)]
            exports, listing, bring, make, start, fill, everything = _joined(lines)
            newest = shell(f"{exports}\n{listing}").strip().splitlines()
            named = next(line for line in reversed(newest) if re.match(r"[0-9a-f]{8} ", line))
            identity = named.split()[0]
            sql = re.findall(r"sql=([0-9a-f]{8,})", shell(f"{exports}\nrestic snapshots --json {identity}"))[0]
            known = f"{exports}\nFILES={identity}\nSQL={sql}\n"
            shell(known + bring + "\n" + make)
            put_files_back(tmp_path / "copy")
            assert {file: file.read_bytes() for file in files} == files
            shell(known + start + "\n" + fill + "\n" + everything)
            small.wait_ready()
            assert small.checksum() == rows
        finally:
            small.folder.mkdir(exist_ok=True)
            for path in stays.iterdir():
                if not (small.folder / path.name).exists():
                    path.rename(small.folder / path.name)


def _joined(lines: list[str]) -> list[str]:
    """Return the exports in a piece, and each other command."""
    exports = [line for line in lines if line.startswith("export")]
    return ["\n".join(exports), *(line for line in lines if not line.startswith("export"))]


def shell(script: str) -> str:
    """Run lines of the sheet, each of which has to succeed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd="/",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_off_leaves_what_was_made(small: SampleStack, on: Any, root: Path, path: str) -> None:
    assert chap(small, "schedule", "off", PATH=path)["changed"]
    assert (root / "table").read_text() == "" and not (small.folder / ".docker-chap" / "schedule.json").exists()
    assert (small.folder / ".docker-chap" / "copies.password").exists()
    assert not chap(small, "schedule", "off", PATH=path)["changed"]
    assert chap(small, "schedule", PATH=path)["scheduled"] is None
    assert "schedule on" in chap(small, "schedule", "run", expect=1)["error"]["hint"]


def test_what_an_operator_gets_wrong(small: SampleStack, path: str, tmp_path: Path) -> None:
    assert "time of day" in chap(small, "schedule", "on", "--at", "25:00", expect=2)["error"]["message"]
    assert "schedule on" in chap(small, "schedule", "--at", "01:00", expect=2)["error"]["message"]
    error = chap(small, "schedule", "on", "--ping", "hc-ping.com/x", expect=2, PATH=path)["error"]
    assert "monitor" in error["message"]
    (tmp_path / "password").write_text("x\n")
    wrong = ("on", "--by", "cron", "--copy-to", "sftp:nobody@host.invalid:/x", "--password-file")
    error = chap(small, "schedule", *wrong, str(tmp_path / "password"), expect=1, PATH=path)["error"]
    assert "cannot be reached" in error["message"]
    assert chap(small, "schedule", PATH=path)["scheduled"] is None
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    (nothing / "docker").symlink_to(shutil.which("docker") or "docker")
    error = chap(small, "schedule", "on", "--by", "cron", expect=1, PATH=f"{nothing}:/bin-of-nobody",
                 CHAP_PYTHON=os.path.realpath("/usr/bin/python3"))["error"]  # fmt: skip
    assert "cron is not at work" in error["message"]
