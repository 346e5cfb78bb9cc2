"""The command schedule on an engine in memory: a crontab in a file, a docker that fails where a file says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compose_chap.cli import app
from compose_chap.records import audit, lock
from compose_chap.records.files import mounted
from compose_chap.schedule import plan
from tests.fakes import FakeEngine
from tests.monitor import Monitor, monitoring


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    with monitoring() as monitor:
        yield monitor


def call(capsys: pytest.CaptureFixture[str], *words: str, expect: int = 0) -> Any:
    capsys.readouterr()
    assert app.main(["schedule", *words, "--json"], ("docker", "--context", "north")) == expect
    return json.loads(capsys.readouterr().out)


def on(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return call(capsys, "on", "--by", "cron", *words)


def test_on_is_shown_and_off_leaves_nothing(programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys)["scheduled"] is None
    made = on(capsys, "--at", "02:10", "-o", str(tmp_path / "backups"))
    assert len(made["written"]) == 3 and made["sheet"] == "" and made["scheduled"]["repository"] is None
    lines = (programs / "table").read_text().splitlines()
    assert len(lines) == 3 and f" {programs}/docker --context north chap " in lines[0]
    assert all(work["next"] and not work["last"] for work in call(capsys)["scheduled"]["work"].values())
    on(capsys)
    assert len((programs / "table").read_text().splitlines()) == 3
    assert call(capsys, "off")["changed"] and (programs / "table").read_text() == ""
    assert not call(capsys, "off")["changed"]
    assert [entry.summary for entry in audit.entries(tmp_path)] == ["on, by cron", "on, by cron", "off"]


def test_a_folder_is_meant_where_it_was_named(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    on(capsys, "-o", "backups", "--metrics-file", "chap.prom")
    schedule = plan.read(tmp_path)
    assert schedule and schedule.output == f"{tmp_path}/elsewhere/backups"
    assert schedule.metrics_file == f"{tmp_path}/elsewhere/chap.prom"


def test_a_disk_that_is_not_mounted_is_asked_about_now_and_not_each_night(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "fstab").write_text(f"UUID=1 {disk} ext4 defaults 0 2\n")
    monkeypatch.setattr(mounted, "_FSTAB", tmp_path / "fstab")
    refused = call(capsys, "on", "--by", "cron", "-o", str(disk / "backups"), "--copy-to", "x", expect=1)["error"]
    assert f"No disk is mounted at {disk}" in refused["message"] and plan.read(tmp_path) is None
    assert not list(tmp_path.glob(".docker-chap/*password"))
    on(capsys, "-o", str(disk / "backups"), "--allow-unmounted")
    # The work is handed the same answer.
    assert " DOCKER_CHAP_ALLOW_UNMOUNTED=1 " in (programs / "table").read_text()


def test_what_is_written_down_is_what_the_timers_do(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cron = (programs / "crontab").read_text()
    # It shows what is written down at the moment when the timers begin to count.
    seen = f"cp '{tmp_path}/.docker-chap/schedule.json' '{tmp_path}/seen'\n"
    (programs / "crontab").write_text(cron.replace("#!/bin/sh\n", f"#!/bin/sh\n{seen}"))
    on(capsys, "--at", "03:00")
    assert json.loads((tmp_path / "seen").read_text())["hour"] == 3
    (programs / "crontab").write_text("#!/bin/sh\necho you are not allowed >&2\nexit 1\n")
    assert "not allowed" in call(capsys, "on", "--by", "cron", "--at", "05:00", expect=1)["error"]["message"]
    schedule = plan.read(tmp_path)
    assert schedule and schedule.hour == 3
    plan.remove(tmp_path)
    call(capsys, "on", "--by", "cron", expect=1)
    assert plan.read(tmp_path) is None


def test_a_run_makes_an_entry_with_its_parts_and_reaches_the_monitor(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monitor: Monitor
) -> None:
    on(capsys, "--ping", f"http://127.0.0.1:{monitor.server_port}/x")
    assert [part["name"] for part in call(capsys, "run")["parts"]] == ["backup", "prune"]
    assert [path for path, _ in monitor.received] == ["/x/start", "/x"]
    (programs / "failing").write_text("backup")
    error = call(capsys, "run", "nightly", expect=1)["error"]
    assert "does not answer" in error["message"] and "left out" in error["message"]
    assert monitor.received[-1][0] == "/x/fail" and "does not answer" in monitor.received[-1][1]
    entry = audit.entries(tmp_path)[-1]
    assert entry.result == audit.FAILED and entry.summary == "nightly: backup failed; prune left out"
    assert [part["exit_status"] for part in entry.facts["parts"]] == [1, None]
    assert call(capsys)["scheduled"]["work"]["nightly"]["last"]["result"] == "failed"


def test_work_that_is_still_under_way_is_not_begun_again(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on(capsys)
    with lock.claimed(plan.mark(tmp_path, "nightly")):
        error = call(capsys, "run", "nightly", expect=5)["error"]
        assert "still under way" in error["message"]
        call(capsys, "run", "weekly")
    assert [entry.facts.get("kind") for entry in audit.entries(tmp_path)] == [None, "weekly"]
    call(capsys, "run", "nightly")


def test_work_that_is_cancelled_does_not_say_that_nothing_was_changed(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on(capsys)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("compose_chap.schedule.work.run", interrupted)
    error = call(capsys, "run", "nightly", expect=130)["error"]
    assert "What was done before stays" in error["state"]
    assert audit.entries(tmp_path)[-1].result == audit.CANCELLED


def test_what_failed_in_the_week_stays_a_failure_every_night(
    programs: Path, capsys: pytest.CaptureFixture[str], monitor: Monitor
) -> None:
    on(capsys, "--ping", f"http://127.0.0.1:{monitor.server_port}/x")
    (programs / "failing").write_text("verify")
    call(capsys, "run", "weekly", expect=1)
    assert [path for path, _ in monitor.received] == ["/x/fail"]
    call(capsys, "run", "nightly")
    assert monitor.received[-1][0] == "/x/fail" and "weekly: verify failed" in monitor.received[-1][1]
    (programs / "failing").write_text("")
    call(capsys, "run", "weekly")
    assert monitor.received[-1][0] == "/x"


def test_a_monitor_that_is_down_does_no_harm(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on(capsys, "--ping", "http://127.0.0.1:9/secret-path")
    assert app.main(["schedule", "run"]) == 0
    shown = capsys.readouterr()
    assert "monitor was not reached: 127.0.0.1 cannot be reached" in shown.err and "secret-path" not in shown.err


def test_the_schedule_of_another_user_is_left_alone(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on(capsys)
    schedule = plan.read(tmp_path)
    assert schedule
    plan.write(tmp_path, replace(schedule, user="anna"))
    for words in (("on", "--by", "cron"), ("off",)):
        error = call(capsys, *words, expect=1)["error"]
        assert (
            "user anna" in error["message"] and "sudo -u anna docker --context north chap schedule off" in error["hint"]
        )
    assert len((programs / "table").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("on", "--at", "25:00"), "time of day"),
        (("--at", "01:00"), "schedule on"),
        (("on", "weekly"), "schedule run"),
        (("on", "--ping", "hc-ping.com/x"), "monitor"),
        (("on", "--limit-upload", "-1"), "-1 is less than 0"),
        (("on", "--by", "cron", "--limit-upload", "100"), "--copy-to"),
    ],
)
def test_what_is_not_understood(
    programs: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = call(capsys, *words, expect=2)["error"]
    assert message in error["message"] + error["hint"]


def test_nothing_is_run_that_is_not_scheduled(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "schedule on" in call(capsys, "run", expect=1)["error"]["hint"]


RESTIC_THAT_OPENS = """#!/bin/sh
[ "$1" = version ] && echo "restic 0.14.0 compiled with go1.19 on linux/amd64"
echo "$*" >>'{asked}'
exit 0
"""


def test_on_again_changes_only_what_is_given(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = programs / "asked"
    (programs / "restic").write_text(RESTIC_THAT_OPENS.format(asked=asked))
    (programs / "restic").chmod(0o755)
    everything = ("--at", "02:10", "--copy-to", "sftp:chap@north:/srv/chap", "--limit-upload", "300",
                  "-o", str(tmp_path / "mnt"), "--metrics-file", str(tmp_path / "chap.prom"),
                  "--ping", "https://hc-ping.com/secret-path", "--alarm", "json://ops:alarm-password@127.0.0.1/x",
                  "--digest", "weekly", "--with-volumes")  # fmt: skip
    made = on(capsys, *everything)
    password = (tmp_path / ".docker-chap" / "copies.password").read_text().strip()
    assert password in made["sheet"] and made["kept"] == []
    before, addresses = plan.read(tmp_path), tmp_path / ".docker-chap" / "alarms.addresses"
    # What the messages of this tool propose: each alone, and nothing at all.
    asked.unlink()
    for words, changed in ((("--at", "03:20"), ["at"]), ((), [])):
        again = call(capsys, "on", *words)
        assert again["changed"] == changed and again["sheet"] == "" and not again["removed"]
        assert set(again["kept"]) >= {"copy-to", "password-file", "limit-upload", "alarm", "digest", "ping", "volumes"}
        assert plan.read(tmp_path) == replace(before or pytest.fail("no schedule"), hour=3, minute=20)
        assert addresses.read_text() == "json://ops:alarm-password@127.0.0.1/x\n"
    assert not asked.exists(), "the link may be down"
    assert call(capsys, "on", "--copy-to", "sftp:chap@north:/srv/chap")["sheet"] == "" and asked.exists()
    again = call(capsys, "on", "--alarm", "json://127.0.0.1/other", "--alarm", "json://127.0.0.1/third")
    assert again["changed"] == ["alarm"] and addresses.read_text().splitlines()[0] == "json://127.0.0.1/other"
    assert addresses.stat().st_mode & 0o777 == 0o600
    assert call(capsys, "--sheet")["sheet"] == made["sheet"]
    other = call(capsys, "on", "--copy-to", str(tmp_path / "copies"), "--without", "digest", "--without", "volumes")
    assert password in other["sheet"] and other["changed"] == ["copy-to"] and other["removed"] == ["volumes", "digest"]
    last = call(capsys, "on", "--without", "copy-to", "--without", "alarm")
    assert last["removed"] == ["copy-to", "password-file", "limit-upload", "alarm"] and not addresses.exists()
    assert last["scheduled"]["repository"] is None and last["scheduled"]["at"] == "03:20"
    assert "makes no copies" in call(capsys, "--sheet", expect=2)["error"]["message"]
    written = (tmp_path / ".docker-chap" / "audit.jsonl").read_text() + (programs / "table").read_text()
    assert not any(secret in written for secret in (password, "alarm-password", "secret-path"))


def test_what_was_kept_and_changed_is_shown(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on(capsys, "--ping", "https://hc-ping.com/x")
    assert app.main(["schedule", "on", "--at", "04:00"]) == 0
    shown = capsys.readouterr().out
    assert "\nChanged: at.\nKept: by, ping.\n" in shown and "NEXT" in shown
    assert app.main(["schedule", "on", "--without", "ping"]) == 0
    assert "\nTaken away: ping.\nKept: at, by.\n" in capsys.readouterr().out
    assert app.main(["schedule", "on"]) == 0
    assert "\nChanged: nothing.\nKept: at, by.\n" in capsys.readouterr().out


def test_what_dhis2_has_is_in_the_backups_where_that_is_wanted(
    engine: FakeEngine, programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = call(capsys, "on", "--by", "cron", "--with-dhis2", expect=1)["error"]
    assert "no database of DHIS2" in error["message"] and plan.read(tmp_path) is None
    assert on(capsys)["notes"] == []
    database = engine._make("dhis2-db", "postgres:17")
    engine._set(database.id, environment={"POSTGRES_DB": "dhis"})
    assert "docker --context north chap schedule on --with-dhis2" in " ".join(shown(capsys, "on").split())
    made = call(capsys, "on", "--with-dhis2", "--with-volumes")
    assert made["changed"] == ["dhis2", "volumes"] and made["notes"] == [] and made["scheduled"]["with_dhis2"]
    assert "Backups include DHIS2's database and the volumes." in shown(capsys)
    assert "DHIS2" not in shown(capsys, "on", "--at", "03:00").replace("include DHIS2's", "")
    call(capsys, "run")
    assert "--with-dhis2 --with-volumes" in (programs / "asked").read_text().splitlines()[0]


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert app.main(["schedule", *words], ("docker", "--context", "north")) == 0
    return capsys.readouterr().out


def test_the_compose_files_that_were_named_stay(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on(capsys, "-f", "compose.yml")
    named = ("-f", str(tmp_path / "compose.yml"))
    for words in (("--at", "04:00"), ("-f", "compose.yml")):
        call(capsys, "on", *words)
        schedule = plan.read(tmp_path)
        assert schedule and schedule.options == (*named, "-p", schedule.project)
    assert f" -f {tmp_path}/compose.yml -p " in (programs / "table").read_text()


RESTIC = """#!/bin/sh
[ "$1" = version ] && { echo "restic VERSION compiled with go1.19 on linux/amd64"; exit; }
echo "WORDS" >&2
exit 1
"""
NOWHERE = "Fatal: unable to open config file: dial tcp 127.0.0.1:9: connect: connection refused"
LOCKED = (
    "Fatal: unable to create lock in backend: repository is already locked by PID 7 on north by root (UID 0, GID 0)"
)


@pytest.mark.parametrize(
    ("version", "words", "message", "hint"),
    [
        ("", "", "restic is not installed", "version 0.14 or later: apt install restic"),
        ("0.11.0", "", "restic 0.11.0 is too old: copies need 0.14 or later", "https://restic.readthedocs.io"),
        ("0.14.0", NOWHERE, "The repository cannot be reached", "when the link is back"),
        ("0.14.0", LOCKED, "locked by PID 7 on north", "half an hour"),
        (
            "0.14.0",
            "Fatal: wrong password or no key found",
            "The password of the repository is wrong",
            "--password-file",
        ),
        ("0.14.0", "Fatal: write /c/data/72: no space left on device", "has no room left", "Make room"),
    ],
)
def test_a_repository_that_cannot_be_used_keeps_the_schedule_as_it_was(
    programs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    words: str,
    message: str,
    hint: str,
) -> None:
    on(capsys, "--at", "03:15")
    before = (programs / "table").read_text()
    (programs / "cat").symlink_to("/bin/cat")
    if version:
        (programs / "restic").write_text(RESTIC.replace("VERSION", version).replace("WORDS", words))
        (programs / "restic").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    (tmp_path / "password").write_text("x\n")
    given = ("--copy-to", str(tmp_path / "copies"), "--password-file", str(tmp_path / "password"))
    error = call(capsys, "on", "--by", "cron", *given, expect=1)["error"]
    assert message in error["message"] and hint in error["hint"]
    schedule = plan.read(tmp_path)
    assert schedule and schedule.hour == 3 and schedule.store is None
    assert (programs / "table").read_text() == before


def test_what_started_the_work_is_gone(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on(capsys)
    (programs / "crontab").unlink()
    monkeypatch.setenv("PATH", str(programs))
    assert app.main(["schedule"]) == 0
    shown = capsys.readouterr()
    assert "cron is not at work for this user" in shown.err and shown.out.count("NEVER") == 3
    error = call(capsys, "off", expect=1)["error"]
    assert "cron is not at work" in error["message"] and "apt install cron" in error["hint"]
    assert plan.read(tmp_path)
    assert app.main(["status", "--json"]) == 0
    assert "timer of the nightly work is gone" in " ".join(json.loads(capsys.readouterr().out)["problems"])


def test_what_only_a_person_removes_is_named_every_night_and_in_the_status(
    engine: FakeEngine, programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aside = "chap_core_after_20250101t000000z"
    engine.databases[aside] = engine.databases["chap_core"]
    capsys.readouterr()
    for words in (["prune", "--yes"], ["prune", "--yes", "--json"]):
        assert app.main(words) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert f"Database {aside} (" in text and "only a person removes it" in text and "docker chap prune" in text
    assert aside in engine.databases
    assert app.main(["prune", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert (
        f"Their rows may be nowhere else:\n{aside}  the newer data, from before a rollback: 10 rows in 1 table" in text
    )
    assert app.main(["status"]) == 0
    assert f"Database {aside} (" in " ".join(capsys.readouterr().out.split())
    assert app.main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["database"]["undecided"] == [aside]
    # What a part that went well has to say is shown with it.
    note = f"Database {aside} is kept."
    (programs / "docker").write_text(f"#!/bin/sh\necho '{json.dumps({'ok': True, 'notes': [note]})}'\n")
    on(capsys)
    assert note in shown(capsys, "run")
    assert app.main(["prune", "--yes", "--set-aside"]) == 0 and aside not in engine.databases
