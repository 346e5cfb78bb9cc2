"""Alarms of the schedule: one when something begins to fail, one when it works again, and none between."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from compose_chap.alarms import ledger
from compose_chap.cli import app
from compose_chap.cli.call import Call
from compose_chap.ownership import user_name
from compose_chap.records import audit, lock
from compose_chap.schedule import plan
from tests.monitor import monitoring
from tests.services import MailServer, WebService, serving


@pytest.fixture
def web() -> Iterator[WebService]:
    with serving(WebService()) as web:
        yield web


def call(capsys: pytest.CaptureFixture[str], *words: str, expect: int = 0) -> Any:
    capsys.readouterr()
    assert app.main(["schedule", *words, "--json"]) == expect
    return json.loads(capsys.readouterr().out)


def on(capsys: pytest.CaptureFixture[str], web: WebService, *words: str) -> Any:
    return call(capsys, "on", "--by", "cron", "--alarm", address(web), *words)


def address(web: WebService) -> str:
    return f"json://ops:passw0rd@127.0.0.1:{web.port}/hook-path"


def titles(web: WebService) -> list[str]:
    return [body["title"].partition(": ")[2] for _, body in web.received]


def test_a_single_alarm_for_each_change_and_none_between(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], web: WebService
) -> None:
    on(capsys, web)
    call(capsys, "run")
    assert web.received == []
    (programs / "failing").write_text("backup")
    for _ in range(3):
        call(capsys, "run", expect=1)
    assert titles(web) == ["nightly backup fails"]
    text = web.received[0][1]["message"]
    assert "FAILS: nightly backup\nThe database does not answer." in text and "Newest backup: none" in text
    user = re.escape(user_name(os.geteuid()))
    lines = rf"Next, on that server, as user {user}:\ncd {re.escape(str(tmp_path))}\ndocker chap schedule run nightly\Z"
    assert re.search(lines, text)
    (programs / "failing").write_text("backup prune --deep")
    call(capsys, "run", expect=1)
    call(capsys, "run", "weekly", expect=1)
    assert titles(web)[1:] == ["weekly verify fails"] and "Still fails, since" in web.received[1][1]["message"]
    (programs / "failing").write_text("--deep")
    call(capsys, "run")
    assert titles(web)[2:] == ["nightly backup works again"]
    assert (
        "It had been failing since" in web.received[2][1]["message"]
        and "weekly verify" in web.received[2][1]["message"]
    )
    (programs / "failing").write_text("")
    call(capsys, "run", "weekly")
    call(capsys, "run")
    assert titles(web)[3:] == ["weekly verify works again"]
    assert "Nothing fails now" in web.received[3][1]["message"]
    assert [body["type"] for _, body in web.received] == ["failure", "failure", "failure", "success"]


def test_an_alarm_that_cannot_be_sent_is_kept_shown_and_sent_later(
    programs: Path, capsys: pytest.CaptureFixture[str], web: WebService
) -> None:
    on(capsys, web)
    web.status = 503
    (programs / "failing").write_text("backup")
    assert app.main(["schedule", "run"]) == 1
    shown = capsys.readouterr().err
    assert (
        "an alarm was not sent to json://127.0.0.1, and is sent with the next run: it did not take the message ("
        in shown
    )
    assert "passw0rd" not in shown and "hook-path" not in shown
    scheduled = call(capsys)["scheduled"]
    assert [each["title"].partition(": ")[2] for each in scheduled["undelivered"]] == ["nightly backup fails"]
    assert app.main(["schedule"]) == 0
    text = capsys.readouterr().out
    assert "Alarms go to json://127.0.0.1." in text and "These could not be sent yet:" in text
    assert app.main(["status", "--json"]) == 0
    assert "1 alarm could not be sent" in " ".join(json.loads(capsys.readouterr().out)["problems"])
    web.status = 200
    (programs / "failing").write_text("")
    call(capsys, "run")
    assert titles(web) == ["nightly backup fails", "nightly backup works again"]
    assert call(capsys)["scheduled"]["undelivered"] == []


def test_an_address_is_nowhere_but_in_its_file(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], web: WebService
) -> None:
    with monitoring() as monitor:
        url = f"http://127.0.0.1:{monitor.server_port}/ping-token"
        on(capsys, web, "--ping", url)
        app.main(["schedule", "on", "--by", "cron", f"--alarm={address(web)}", f"--ping={url}"])
        (programs / "failing").write_text("backup")
        for words in (["run"], [], ["--json"], ["--test-alarm"], ["--test-alarm", "--json"]):
            app.main(["schedule", *words])
        app.main(["status", "--json"])
        app.main(["history", "--json"])
        shown = "".join(capsys.readouterr())
        assert monitor.received
    files = [path for path in (tmp_path, programs) for path in path.rglob("*") if path.is_file()]
    secrets = {"ping-token": {"schedule.json"}, "passw0rd": {"alarms.addresses"}, "hook-path": {"alarms.addresses"}}
    for secret, where in secrets.items():
        assert secret not in shown
        assert {path.name for path in files if secret in path.read_text(errors="replace")} == where
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / ".docker-chap").iterdir())


def test_off_forgets_addresses_and_messages(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], web: WebService
) -> None:
    on(capsys, web)
    web.status = 500
    (programs / "failing").write_text("backup")
    call(capsys, "run", expect=1)
    call(capsys, "off")
    assert not [path.name for path in (tmp_path / ".docker-chap").iterdir() if path.name.startswith("alarms")]
    on(capsys, web)
    assert call(capsys, "on", "--without", "alarm")["removed"] == ["alarm"]
    assert call(capsys)["scheduled"]["alarms"] == []
    assert not (tmp_path / ".docker-chap" / "alarms.addresses").exists()


def test_a_file_of_addresses_is_read_each_time(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], web: WebService
) -> None:
    file = tmp_path / "addresses"
    file.write_text(f"# Operators\n{address(web)}\n")
    file.chmod(0o600)
    call(capsys, "on", "--by", "cron", "--alarm-file", str(file), "--digest", "weekly")
    (programs / "failing").write_text("backup")
    file.chmod(0o644)
    assert app.main(["schedule", "run"]) == 1
    shown = capsys.readouterr().err
    assert "no alarm can be sent. Other users of this machine may read" in shown and "chmod 600" in shown
    assert app.main(["status", "--json"]) == 0
    assert "No alarm can be sent" in " ".join(json.loads(capsys.readouterr().out)["problems"])
    file.chmod(0o600)
    call(capsys, "run", expect=1)
    assert titles(web) == ["nightly backup fails"]
    file.unlink()
    assert app.main(["schedule", "run"]) == 1
    assert "There is no file" in capsys.readouterr().err
    assert app.main(["schedule"]) == 0
    written = capsys.readouterr()
    assert "There is no file" in written.err and "nobody hears of it" in " ".join(written.out.split())


def test_a_test_says_of_each_address_whether_it_arrived(
    programs: Path, capsys: pytest.CaptureFixture[str], web: WebService
) -> None:
    with serving(MailServer()) as mail, monitoring() as monitor:
        url = f"http://127.0.0.1:{monitor.server_port}/x"
        on(capsys, web, "--alarm", f"mailto://127.0.0.1:{mail.port}?from=a@b.example&to=c@d.example", "--ping", url)
        tests = call(capsys, "--test-alarm")["tests"]
        assert [(test["to"], test["ok"]) for test in tests] == [
            ("json://127.0.0.1", True),
            ("mailto://127.0.0.1", True),
            ("monitor 127.0.0.1", True),
        ]
        assert monitor.received[0][0] == "/x/log" and mail.mails[0]["Subject"].endswith("a test")
        web.status = 404
        failed = call(capsys, "--test-alarm", expect=1)
        assert [test["ok"] for test in failed["tests"]] == [False, True, True]
        assert "FAILED  json://127.0.0.1: it did not take the message (" in failed["error"]["message"]
        assert "--test-alarm" in failed["error"]["hint"]
    assert [test["ok"] for test in call(capsys, "--test-alarm", expect=1)["tests"]] == [False, False, False]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("on", "--alarm", "mailot://u:secretpw@a.example"), ", but mailto:// is known"),
        (("on", "--alarm", "secretpw"), "begin with its kind"),
        (("on", "--alarm", "https://a.example/secretpw"), "no service is known at https://a.example"),
        (("on", "--alarm", "tgram://secretpw"), "not complete"),
        (("on", "--alarm", "json://a.example", "--alarm-file", "x"), "not both"),
        (("on", "--alarm-file", "nothing-here"), "There is no file"),
        (("on", "--digest", "weekly"), "about alarms"),
        (("on", "--ping", "htps://a.example/secretpw"), "not the address of a monitor"),
        (("--alarm", "json://a.example"), "schedule on"),
        (("run", "--test-alarm"), "--test-alarm"),
    ],
)
def test_what_is_no_alarm_is_refused_before_anything_is_changed(
    programs: Path, tmp_path: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = call(capsys, *words, expect=2)["error"]
    assert message in error["message"] + error["hint"] and "secretpw" not in json.dumps(error)
    assert not (tmp_path / ".docker-chap" / "schedule.json").exists()


def test_a_test_without_an_address(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Nothing is scheduled" in call(capsys, "--test-alarm", expect=1)["error"]["message"]
    call(capsys, "on", "--by", "cron")
    assert "--alarm URL" in call(capsys, "--test-alarm", expect=2)["error"]["hint"]


def test_nights_without_a_run_and_a_run_that_was_cut_off_are_noticed(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], web: WebService, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(capsys, web)
    call(capsys, "run")
    now = Call.clock(Call(()))
    days = [0.0]
    monkeypatch.setattr(Call, "clock", lambda _: now + timedelta(days=days[0]))
    days[0] = 3
    call(capsys, "run")
    assert titles(web) == ["nightly run fails", "nightly run works again"]
    assert "No nightly work has begun since" in web.received[0][1]["message"]
    days[0] = 3.9
    origin = audit.entries(tmp_path)[-1].origin
    entry = audit.begin(tmp_path, "schedule", ["schedule", "run"], origin, Call.clock(Call(())))
    trail = tmp_path / ".docker-chap" / audit.FILE
    trail.write_text(trail.read_text().replace(entry.process, "1 2 3"))
    assert "nightly: cut off" in " ".join(json.loads(status(capsys))["problems"])
    days[0] = 4.5
    call(capsys, "run")
    assert titles(web)[2:] == ["nightly run fails", "nightly run works again"]
    assert "was cut off" in web.received[2][1]["message"]
    # A clock that was ahead: what it made does not count as new, and the run says so.
    days[0] = 400
    call(capsys, "run")
    days[0] = 5
    assert "lies in the future" in " ".join(json.loads(status(capsys))["problems"])
    web.received.clear()
    call(capsys, "run")
    assert titles(web) == ["the clock fails"] and "the clock of this machine is wrong" in web.received[0][1]["message"]
    days[0] = 6
    call(capsys, "run")
    assert titles(web)[1:] == ["the clock works again"]


def status(capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert app.main(["status", "--json"]) == 0
    return capsys.readouterr().out


def test_a_digest_each_week(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], web: WebService
) -> None:
    on(capsys, web, "--digest", "weekly")
    for kind in ("nightly", "weekly", "weekly"):
        call(capsys, "run", kind)
    assert titles(web) == ["the week"]
    text = web.received[0][1]["message"]
    for piece in ("Backups made: 0", "Newest copy elsewhere: none", "Nothing fails."):
        assert piece in text


def test_on_a_full_disk_the_alarm_comes_all_the_same(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], web: WebService, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(capsys, web)
    (programs / "failing").write_text("backup")

    def refuse(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as during:
        during.setattr(os, "fsync", refuse)
        assert app.main(["schedule", "run"]) == 1
    assert "cannot be written down" in capsys.readouterr().err
    assert titles(web) == ["nightly backup fails"]


def test_what_the_schedule_no_longer_does_does_not_fail_for_ever(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], web: WebService
) -> None:
    on(capsys, web)
    (programs / "failing").write_text("--metrics-file")
    schedule = plan.read(tmp_path)
    assert schedule
    plan.write(tmp_path, replace(schedule, metrics_file=str(tmp_path / "x.prom")))
    call(capsys, "run", expect=1)
    assert [each.subject for each in ledger.read(tmp_path).failing] == ["nightly metrics"]
    call(capsys, "on", "--without", "metrics-file")
    call(capsys, "run")
    assert ledger.read(tmp_path).failing == () and titles(web) == ["nightly metrics fails"]


def test_a_cron_that_refuses_leaves_the_addresses_as_they_were(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], web: WebService
) -> None:
    on(capsys, web)
    file = tmp_path / ".docker-chap" / "alarms.addresses"
    before = file.read_text()
    (programs / "crontab").write_text('#!/bin/sh\n[ $1 = -l ] && exit 0\necho "not allowed" >&2\nexit 1\n')
    for words in (("--alarm", "json://127.0.0.1/other"), ()):
        assert "not allowed" in call(capsys, "on", "--by", "cron", *words, expect=1)["error"]["message"]
        assert file.read_text() == before and call(capsys)["scheduled"]["alarms"] == ["json://127.0.0.1"]


def test_work_that_hangs_for_days_is_an_alarm(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], web: WebService, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(capsys, web)
    call(capsys, "run")
    now = Call.clock(Call(()))
    monkeypatch.setattr(Call, "clock", lambda _: now + timedelta(days=3))
    audit.begin(tmp_path, "schedule", ["schedule", "run"], audit.entries(tmp_path)[-1].origin, now)
    with lock.claimed(plan.mark(tmp_path, "nightly")):
        for _ in range(2):
            assert "still under way" in call(capsys, "run", expect=5)["error"]["message"]
    assert titles(web) == ["nightly run fails"] and "Does it hang?" in web.received[0][1]["message"]
