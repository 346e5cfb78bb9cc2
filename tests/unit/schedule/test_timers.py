"""What starts the work: units of systemd as systemd itself reads them, lines as a shell reads them, and their times."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from compose_chap.errors import EngineError, UsageError
from compose_chap.schedule import crontab, plan, systemd, timers
from compose_chap.schedule.crontab import Crontab
from compose_chap.schedule.plan import KINDS, MONTHLY, NIGHTLY, WEEKLY, Schedule
from compose_chap.schedule.systemd import Systemd

ODD = Schedule(
    project="chap",
    user="root",
    by="cron",
    hour=22,
    minute=5,
    docker=("/opt/my docker/docker", "--context", "50%"),
    options=("-f", '/srv/a "b" $HOME/compose.yml'),
    folder="/srv/100% chap",
)
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/root", "DOCKER_CONFIG": "/root/a b%"}
WORDS = ["chap", "-f", '/srv/a "b" $HOME/compose.yml', "--progress"]
NOW = datetime(2026, 11, 28, 4, tzinfo=timezone.utc)


def test_a_unit_has_every_word_as_it_is_whatever_systemd_makes_of_such_letters() -> None:
    service = systemd.files(ODD, NIGHTLY, ENVIRONMENT)["docker-chap-nightly-chap.service"]
    assert "\nWorkingDirectory=/srv/100%% chap\n" in service
    assert '"DOCKER_CONFIG=/root/a b%%"' in service
    command = next(line for line in service.splitlines() if line.startswith("ExecStart="))
    assert command.startswith('ExecStart="/opt/my docker/docker" "--context" "50%%" "chap" "-f" "/srv/a \\"b\\" $$HOME')
    assert command.endswith('"schedule" "run" "nightly"')


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze, which reads units, is not installed")
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    plain = Schedule("chap", "root", "systemd", 1, 30, ("/bin/true",), ("-f", 'a "b" $HOME %h'), "/")
    for kind in KINDS:
        for name, text in systemd.files(plain, kind, ENVIRONMENT).items():
            (tmp_path / name).write_text(text)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *tmp_path.glob("*.timer")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "docker-chap" not in verified.stderr, verified.stderr


@pytest.mark.parametrize(
    ("kind", "when"),
    [(NIGHTLY, "*-*-* 22:05:00"), (WEEKLY, "Sun *-*-* 01:05:00"), (MONTHLY, "*-*-01 03:05:00")],
)
def test_the_times_are_apart_and_go_over_midnight(kind: str, when: str) -> None:
    timer = systemd.files(ODD, kind, {})[f"docker-chap-{kind}-chap.timer"]
    assert f"\nOnCalendar={when}\n" in timer and "\nPersistent=true\n" in timer


def test_a_line_of_cron_is_read_by_a_shell_as_it_was_meant() -> None:
    line = crontab.lines(ODD, ENVIRONMENT)[0]
    assert line.startswith("5 22 * * * cd ")
    # cron takes a percent sign that is not escaped for the end of the line.
    assert "%" not in line.replace(r"\%", "")
    words = shlex.split(line.replace(r"\%", "%"), comments=True)[5:]
    assert words[:3] == ["cd", "/srv/100% chap", "&&"]
    assert words[3:7] == ["env", "PATH=/usr/bin:/bin", "HOME=/root", "DOCKER_CONFIG=/root/a b%"]
    assert words[7:14] == ["/opt/my docker/docker", "--context", "50%", *WORDS]
    assert words[14:] == ["quiet", "schedule", "run", "nightly", ">/dev/null"]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a crontab in a file, with the two ways in which it is called."""
    program = tmp_path / "crontab"
    file = tmp_path / "table"
    program.write_text(
        f"#!/bin/sh\n[ \"$1\" = - ] && exec cat >'{file}'\n[ \"$1\" = -l ] && exec cat '{file}'\nexit 2\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return file


def test_lines_of_others_stay_and_ours_are_replaced_and_removed(table: Path) -> None:
    cron, other = Crontab(), Schedule("chap-test", "root", "cron", 4, 0, ("docker",), (), "/srv/test")
    table.write_text("0 5 * * * backup-all # docker chap schedule of mine")
    before = table.read_text() + "\n"
    cron.install(other, ENVIRONMENT)
    cron.install(ODD, ENVIRONMENT)
    cron.install(ODD, ENVIRONMENT)
    assert len(table.read_text().splitlines()) == 7
    assert cron.next_run(ODD, NIGHTLY, NOW) is not None
    cron.remove("chap")
    assert len(table.read_text().splitlines()) == 4 and cron.next_run(ODD, NIGHTLY, NOW) is None
    cron.remove("chap-test")
    assert table.read_text() == before


@pytest.mark.parametrize(
    ("kind", "day"), [(NIGHTLY, (2026, 11, 28)), (WEEKLY, (2026, 11, 29)), (MONTHLY, (2026, 12, 1))]
)
def test_the_next_run_of_cron(table: Path, kind: str, day: tuple[int, int, int]) -> None:
    Crontab().install(ODD, ENVIRONMENT)
    upcoming = Crontab().next_run(ODD, kind, NOW)
    assert upcoming and (upcoming.year, upcoming.month, upcoming.day) == day
    assert (upcoming.hour, upcoming.minute) == ODD.time(kind)


def test_the_next_run_is_by_the_clock_on_the_wall(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Oslo")  # summer ends there in the night to October 25
    time.tzset()
    try:
        Crontab().install(ODD, ENVIRONMENT)
        evening = datetime(2026, 10, 24, 12, tzinfo=timezone.utc)
        upcoming = [Crontab().next_run(ODD, kind, evening) for kind in (NIGHTLY, WEEKLY, MONTHLY)]
        assert [when and when.isoformat() for when in upcoming] == [
            "2026-10-24T22:05:00+02:00",
            "2026-10-25T01:05:00+02:00",
            "2026-11-01T03:05:00+01:00",
        ]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_what_cannot_be_read_is_not_written_over(table: Path) -> None:
    table.write_text("0 5 * * * work of others\n")
    program = table.parent / "crontab"
    readable = program.read_text()
    program.write_text(readable.replace("exec cat '", "echo 'crontab: cannot read: Input/output error' >&2; exit 1 '"))
    for change in (lambda: Crontab().install(ODD, ENVIRONMENT), lambda: Crontab().remove("chap")):
        with pytest.raises(EngineError, match="Input/output error"):
            change()
    assert table.read_text() == "0 5 * * * work of others\n"


@pytest.mark.parametrize(
    "words",
    ["no crontab for anna", "crontab: can't open 'anna': No such file or directory", "user anna has no fcrontab", ""],
)
def test_a_user_without_a_crontab_gets_theirs(table: Path, words: str) -> None:
    program = table.parent / "crontab"
    program.write_text(program.read_text().replace(f"exec cat '{table}'", f'{{ echo "{words}" >&2; exit 1; }}'))
    Crontab().install(ODD, ENVIRONMENT)
    assert len(table.read_text().splitlines()) == 3


def test_the_timers_of_another_stack_of_the_same_name_are_not_replaced(table: Path, tmp_path: Path) -> None:
    cron, here = Crontab(), str(tmp_path / "100% it's")
    assert cron.folder("chap") == ""
    cron.install(replace(ODD, folder=here), ENVIRONMENT)
    assert cron.folder("chap") == here and cron.folder("hap") == "" and cron.folder("chap-test") == ""
    timers.refuse_namesake(cron, replace(ODD, folder=here))
    elsewhere = replace(ODD, folder="/srv/moved")
    timers.refuse_namesake(cron, elsewhere)  # that stack was moved: nothing is scheduled where it was
    Path(here).mkdir()
    plan.write(Path(here), ODD)
    with pytest.raises(UsageError, match="those of the stack in") as caught:
        timers.refuse_namesake(cron, elsewhere)
    assert f"cd {shlex.quote(here)} && docker chap schedule off" in caught.value.hint


def test_systemd_knows_whose_timers_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    starter = Systemd(["--user"])
    starter.units.mkdir(parents=True)
    assert starter.folder("chap") == ""
    for name, text in systemd.files(ODD, NIGHTLY, ENVIRONMENT).items():
        (starter.units / name).write_text(text)
    assert starter.folder("chap") == ODD.folder and starter.folder("chap-test") == ""


def test_cron_that_refuses_is_named(table: Path) -> None:
    (table.parent / "crontab").write_text("#!/bin/sh\necho you are not allowed >&2\nexit 1\n")
    with pytest.raises(EngineError, match="not allowed"):
        Crontab().install(ODD, ENVIRONMENT)


def test_what_starts_the_work_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("compose_chap.processes.background.systemd_options", lambda: None)
    with pytest.raises(EngineError, match="neither systemd nor cron") as caught:
        timers.timers()
    assert "enable-linger" in caught.value.hint
    for name in ("crontab", "systemctl"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert isinstance(timers.timers(), Crontab) and isinstance(timers.timers("cron"), Crontab)
    with pytest.raises(EngineError, match="systemd is not at work"):
        timers.timers("systemd")
    for options, folder in (([], "/etc/systemd/system"), (["--user"], "/home/anna/.config/systemd/user")):
        monkeypatch.setenv("HOME", "/home/anna")
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        monkeypatch.setattr("compose_chap.processes.background.systemd_options", lambda given=options: given)
        starter = timers.timers()
        assert isinstance(starter, Systemd) and str(starter.units) == folder


def test_the_work_gets_what_docker_needs_and_nothing_secret() -> None:
    own = {"PATH": "/bin", "DOCKER_HOST": "ssh://x", "RESTIC_PASSWORD": "x", "AWS_SECRET_ACCESS_KEY": "x", "TERM": "x"}
    assert timers.environment({**own, "HOME": "/root"}) == {"PATH": "/bin", "HOME": "/root", "DOCKER_HOST": "ssh://x"}
    assert timers.environment({"PATH": "/bin"})["HOME"]
    proxies = {"HTTPS_PROXY": "http://proxy:3128", "http_proxy": "http://u:secret@proxy:3128", "no_proxy": "localhost"}
    handed_on = timers.environment({"HOME": "/root", **proxies})
    assert handed_on == {"HOME": "/root", "HTTPS_PROXY": "http://proxy:3128", "no_proxy": "localhost"}


def test_the_work_finds_its_folders_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = {"HOME": "/root", "DOCKER_CHAP_BACKUPS": "backups", "DOCKER_CONFIG": "/etc/docker"}
    assert timers.environment(own) == {**own, "DOCKER_CHAP_BACKUPS": f"{tmp_path}/backups"}


def test_a_proxy_stays_until_it_is_set_again(tmp_path: Path) -> None:
    earlier = {"PATH": "/bin", "HTTPS_PROXY": "http://p:1", "DOCKER_CHAP_BACKUPS": "/mnt", "DOCKER_HOST": "ssh://x"}
    own = {"PATH": "/usr/bin", "HOME": "/root"}
    assert timers.environment(own, earlier) == {
        **own, "HTTPS_PROXY": "http://p:1", "DOCKER_CHAP_BACKUPS": "/mnt"
    }  # fmt: skip
    for name in ("HTTPS_PROXY", "https_proxy"):
        assert timers.environment({**own, name: "http://q:2"}, earlier)[name] == "http://q:2"
        assert "HTTPS_PROXY" not in timers.environment({**own, name: ""}, earlier)
    assert "HTTPS_PROXY" not in timers.environment({**own, "HTTPS_PROXY": "http://me:secret@q:2"}, earlier)


# Refuses whatever stands in the file `refused`, and writes down all it was asked.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>'{folder}/asked'
for word in $(cat '{folder}/refused'); do [ "$2" = "$word" ] && {{ echo "no" >&2; exit 1; }}; done
exit 0
"""


@pytest.mark.parametrize("refused", ["daemon-reload", "enable", "restart"])
def test_systemd_that_refuses_leaves_the_units_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "systemctl").write_text(SYSTEMCTL.format(folder=tmp_path))
    (tmp_path / "systemctl").chmod(0o755)
    (tmp_path / "refused").write_text(refused)
    starter = Systemd(["--user"])
    with pytest.raises(EngineError, match=f"refuses to {refused}"):
        starter.install(ODD, {"PATH": "/bin"})
    assert not list(starter.units.iterdir())
    (tmp_path / "refused").write_text("")
    assert sorted(starter.install(ODD, {"PATH": "/bin"})) == sorted(map(str, starter.units.iterdir()))
    before = {path: path.read_bytes() for path in starter.units.iterdir()}
    (tmp_path / "refused").write_text(refused)
    with pytest.raises(EngineError, match=f"refuses to {refused}"):
        starter.install(replace(ODD, hour=9), {"PATH": "/sbin"})
    assert {path: path.read_bytes() for path in starter.units.iterdir()} == before
