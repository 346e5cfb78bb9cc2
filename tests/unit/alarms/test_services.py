"""What each service is really sent, over real connections; and what an address of a wrong form is answered with."""

from __future__ import annotations

import base64
import io
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose_chap.alarms import services
from compose_chap.alarms.services import Services
from compose_chap.alarms.wording import AlarmText
from compose_chap.errors import StateError
from compose_chap.records import lock
from tests.services import MailServer, WebService, serving

TEXT = AlarmText("CHAP p on s: nightly copy fails", "The repository cannot be reached.\nNächste Zeile.", bad=True)
SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
HOOK = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
TELEGRAM = "tgram://123456789:alphaBETAgamma_delta-0123456789abcd/10001"


@pytest.fixture(scope="module")
def known() -> Iterator[Services]:
    with services.loaded() as known:
        yield known


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with serving(MailServer()) as mail:
        yield mail


@pytest.fixture
def web() -> Iterator[WebService]:
    with serving(WebService()) as web:
        yield web


def test_a_mail_has_sender_receiver_title_and_text(known: Services, mail: MailServer) -> None:
    address = f"mailto://chap:s3cret@127.0.0.1:{mail.port}?from=chap@moh.example&to=ops@moh.example"
    assert known.send(address, TEXT) == ""
    (sent,) = mail.mails
    assert sent["Subject"] == TEXT.title and "chap@moh.example" in sent["From"] and "ops@moh.example" in sent["To"]
    body = sent.get_body(("plain", "html"))
    assert body and "cannot be reached" in body.get_content() and "Nächste Zeile" in body.get_content()
    assert base64.b64decode(mail.logins[0]) == b"\0chap\0s3cret"


def test_ntfy_and_a_webhook_get_title_and_text(known: Services, web: WebService) -> None:
    assert known.send(f"ntfy://127.0.0.1:{web.port}/chap-alarms", TEXT) == ""
    assert known.send(f"json://127.0.0.1:{web.port}/hook", TEXT) == ""
    (_, ntfy), (path, hook) = web.received
    assert (ntfy["topic"], ntfy["title"], ntfy["message"]) == ("chap-alarms", TEXT.title, TEXT.body)
    assert path == "/hook" and (hook["title"], hook["message"], hook["type"]) == (TEXT.title, TEXT.body, "failure")


def test_telegram_and_slack(known: Services, web: WebService, monkeypatch: pytest.MonkeyPatch) -> None:
    from apprise.plugins.slack import NotifySlack
    from apprise.plugins.telegram import NotifyTelegram

    monkeypatch.setattr(NotifyTelegram, "notify_url", f"http://127.0.0.1:{web.port}/bot")
    monkeypatch.setattr(NotifySlack, "webhook_url", f"http://127.0.0.1:{web.port}/services")
    assert known.send(TELEGRAM, TEXT) == ""
    web.answer = b"ok"
    assert known.send(SLACK, TEXT) == ""
    (telegram_path, telegram), (slack_path, slack) = web.received
    assert telegram_path.startswith("/bot123456789:alphaBETAgamma") and telegram_path.endswith("/sendMessage")
    assert str(telegram["chat_id"]) == "10001" and TEXT.title in telegram["text"] and "Zeile" in telegram["text"]
    assert slack_path == "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    assert "cannot be reached" in str(slack) and TEXT.title in str(slack)


def test_a_long_text_is_cut_where_the_service_takes_no_more(known: Services, web: WebService) -> None:
    assert known.send(f"ntfy://127.0.0.1:{web.port}/t", AlarmText("t", "long " * 4000)) == ""
    ((_, ntfy),) = web.received
    assert 3000 < len(ntfy["message"]) <= 8000


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("mailot://a:secretpw@example.org", "no service is called mailot://, but mailto:// is known"),
        ("telgram://123456789:secretpw/1", "no service is called telgram://, but "),
        ("o.secretpw://x", "no service is called o.secretpw://"),
        (
            "https://example.org/secretpw",
            "no service is known at https://example.org; for a webhook of your own: jsons://",
        ),
        ("http://example.org/secretpw", "for a webhook of your own: json://"),
        ("tgram://secretpw", "it is not complete: "),
        ("slack://secretpw/x", "it is not complete: "),
    ],
)
def test_what_is_no_address_is_named_without_what_it_holds(known: Services, address: str, words: str) -> None:
    fault = known.fault(address)
    assert words in fault and (address.startswith("o.") or "secretpw" not in fault)


@pytest.mark.parametrize("address", [SLACK, TELEGRAM, HOOK])
def test_what_can_be_tried_has_no_fault(known: Services, address: str) -> None:
    assert known.fault(address) == ""


def test_why_it_did_not_arrive_holds_no_secret(known: Services, web: WebService) -> None:
    web.status = 403
    for address in (
        f"ntfy://user:passwd-1@127.0.0.1:{web.port}/topic-2",
        f"json://user:passwd-1@127.0.0.1:{web.port}/topic-2?+key=value-3",
        "mailto://user:passwd-1@127.0.0.1:9?from=from-4@a.example&to=to-5@b.example",
        "ntfy://127.0.0.1:9/topic-2",
    ):
        why = known.send(address, TEXT)
        assert why.startswith("it did not take the message ("), why
        assert not any(piece in why for piece in ("passwd-1", "topic-2", "value-3", "from-4", "to-5")), why
    assert web.received == []


def test_an_address_that_no_service_understands_any_more_is_no_end(known: Services) -> None:
    assert known.send("mailot://a:secretpw@example.org", TEXT) == (
        "no service is called mailot://, but mailto:// is known"
    )


def test_a_service_that_drips_is_given_up(known: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(known, "_sent", lambda address, text: str(ended.wait(30)))
    monkeypatch.setattr(services, "_LONGEST", 0.1)
    assert known.send("json://127.0.0.1/secretpw", TEXT) == "it does not finish its answer"
    ended.set()


def test_a_service_whose_code_fails_ends_nothing(known: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_service", lambda address: 1)
    assert known.send("json://127.0.0.1/secretpw", TEXT) == "its service failed (AttributeError)"


def test_nothing_of_it_is_loaded_before() -> None:
    import subprocess

    program = "import sys, compose_chap.cli.commands.schedule, compose_chap.cli.commands.status\n"
    program += "assert not {'apprise', 'compose_chap.alarms.services'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(StateError, match="cannot be loaded"), services.loaded():
        pass


def test_it_is_unpacked_where_it_has_room_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("apprise/plugins/one.py", "x = 1")
    killed, young, busy = (tmp_path / f"docker-chap-alarms-{name}" for name in ("killed", "young", "busy"))
    for folder in (killed, young, busy):
        (folder / "apprise").mkdir(parents=True)
    for folder in (killed, busy):
        os.utime(folder, (1, 1))
    monkeypatch.setattr(services, "_ROOM", ("/dev/null/no-room", str(tmp_path)))
    with lock.claimed(busy), services._unpacked(packed.getvalue()) as own:
        assert (Path(own) / "apprise/plugins/one.py").read_text() == "x = 1"
        assert not killed.exists() and young.exists() and busy.exists()
    assert sorted(tmp_path.iterdir()) == [busy, young]
    monkeypatch.setattr(services, "_ROOM", ("/dev/null/no-room",))
    with pytest.raises(StateError, match="no room"), services._unpacked(packed.getvalue()):
        pass
