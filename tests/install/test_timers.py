"""The timers of the schedule on a booted Debian: systemd and cron themselves begin the work, word for word."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from compose_chap.schedule import systemd
from compose_chap.schedule.plan import KINDS, NIGHTLY, Schedule
from tests.e2e.calls import until
from tests.install.booted import SOURCE, Booted, booted
from tests.install.roots import Root

pytestmark = pytest.mark.install

# Stands in for docker: it writes down how it was called.
DOCKER = """#!/usr/bin/python3
import json, os, sys
document = {"words": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ), "user": os.getuid()}
open("/srv/called.part", "w").write(json.dumps(document))
os.rename("/srv/called.part", "/srv/called")
print("the work is done")
"""
# What `schedule on` and `schedule off` do, without a stack.
CALL = """
import json, os, sys
from datetime import datetime, timezone
sys.path.insert(0, {source!r})
from compose_chap.schedule import timers
from compose_chap.schedule.plan import KINDS, Schedule
os.environ["DOCKER_CONFIG"] = '/root/a "b" %c'
action, facts = sys.argv[1], json.loads(sys.argv[2])
schedule = Schedule(**{{**facts, "docker": tuple(facts["docker"]), "options": tuple(facts["options"])}})
starter = timers.timers(schedule.by)
if action == "on":
    starter.install(schedule, timers.environment(os.environ))
if action == "off":
    starter.remove(schedule.project)
now = datetime.now(timezone.utc)
moments = {{kind: starter.next_run(schedule, kind, now) for kind in KINDS}}
print(json.dumps({{kind: moment and moment.isoformat() for kind, moment in moments.items()}}))
"""
ODD = Schedule(
    project="chap.odd-1",
    user="root",
    by="systemd",
    hour=0,
    minute=0,
    docker=("/usr/local/bin/docker", "--context", "50%"),
    options=("-f", '/srv/a "b" $HOME ${X} \\n;/compose.yml', "-p", "chap.odd-1"),
    folder="/srv/100% chap",
)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """Boot a Debian 12 with cron and a docker that writes down how it was called."""
    folder = tmp_path_factory.mktemp("booted")
    root = Root("bookworm", folder)
    root.write("usr/local/bin/docker", DOCKER, 0o755)
    root.write("root/call.py", CALL.format(source=SOURCE))
    (folder / "srv" / "100% chap").mkdir()
    with booted(root, "python3", "cron") as machine:
        yield machine
    shutil.rmtree(folder)


def call(machine: Booted, action: str, schedule: Schedule) -> dict[str, str | None]:
    answer = machine.run("python3", "/root/call.py", action, json.dumps(vars(schedule)))
    return dict(json.loads(answer))


def soon(machine: Booted, by: str) -> Schedule:
    """Return a schedule whose nightly work begins in one to two minutes."""
    when = datetime.fromisoformat(machine.run("date", "-Iseconds").strip()) + timedelta(seconds=75)
    return replace(ODD, by=by, hour=when.hour, minute=when.minute)


def was_called(machine: Booted, schedule: Schedule, progress: str) -> None:
    """Wait until docker was called, and see that it was called as it should be."""
    file = Path(machine.root) / "srv" / "called"
    until(file.exists, 180)
    seen = json.loads(file.read_text())
    file.unlink()
    assert seen["words"] == schedule.command(NIGHTLY, progress) and seen["folder"] == schedule.folder
    assert seen["environment"]["DOCKER_CONFIG"] == '/root/a "b" %c' and seen["user"] == 0


def test_systemd_begins_the_work_at_its_time(machine: Booted) -> None:
    schedule = soon(machine, "systemd")
    call(machine, "on", schedule)
    units = [f"{systemd.unit_name(schedule.project, kind)}.timer" for kind in KINDS]
    assert machine.run("systemd-analyze", "verify", "--man=no", *units) == ""
    # At once, not within ten minutes.
    quick = f"/etc/systemd/system/{units[0]}.d"
    machine.run("mkdir", "-p", quick)
    machine.run("sh", "-c", f"printf '[Timer]\\nRandomizedDelaySec=0\\nAccuracySec=1s\\n' >{quick}/quick.conf")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", units[0])
    upcoming = call(machine, "show", schedule)
    assert all(upcoming.values()) and str(upcoming[NIGHTLY])[14:16] == f"{schedule.minute:02}"
    was_called(machine, schedule, "plain")
    service = units[0].replace(".timer", ".service")
    until(lambda: "the work is done" in machine.run("journalctl", "--no-pager", "-u", service), 30)

    assert call(machine, "off", schedule) == dict.fromkeys(KINDS)
    assert "docker-chap" not in machine.run("systemctl", "list-timers", "--all", "--no-pager")
    left = machine.run("ls", "/etc/systemd/system").splitlines()
    assert [name for name in left if "docker-chap" in name] == [Path(quick).name]


def test_cron_begins_the_work_at_its_time(machine: Booted) -> None:
    machine.run("sh", "-c", "echo '0 0 1 1 * true' | crontab -")
    schedule = soon(machine, "cron")
    upcoming = call(machine, "on", schedule)
    assert all(upcoming.values()) and str(upcoming[NIGHTLY])[14:16] == f"{schedule.minute:02}"
    was_called(machine, schedule, "quiet")
    assert call(machine, "off", schedule) == dict.fromkeys(KINDS)
    assert machine.run("crontab", "-l") == "0 0 1 1 * true\n"
