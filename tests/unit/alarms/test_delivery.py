"""Messages are sent in order, once to each address, whatever fails or is cut off meanwhile."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from compose_chap.alarms import addresses, changes, delivery, ledger
from compose_chap.alarms.changes import Failing, Sign
from compose_chap.alarms.ledger import MOST, Ledger, Waiting
from compose_chap.alarms.wording import AlarmText
from compose_chap.errors import StateError
from tests.services import WebService, serving

NOW = datetime(2026, 11, 28, 1, 30, tzinfo=timezone.utc)
MAIL, CHAT = "mailtos://u:p@a.example", "tgram://1:secret/2"
NAMES = tuple(map(addresses.identity, (MAIL, CHAT)))


class FakePost:
    """What sends: it keeps what it sends, and fails for the addresses in `down`."""

    def __init__(self, *down: str) -> None:
        self.down = set(down)
        self.sent: list[tuple[str, AlarmText]] = []
        self.loaded = 0
        self.killed_after = -1

    @contextmanager
    def load(self) -> Iterator[FakePost]:
        self.loaded += 1
        yield self

    def send(self, address: str, text: AlarmText) -> str:
        if address in self.down:
            return f"{addresses.shown(address)} did not take it"
        self.sent.append((address, text))
        if len(self.sent) == self.killed_after:
            raise KeyboardInterrupt
        return ""

    def titles(self, address: str) -> list[str]:
        return [text.title for to, text in self.sent if to == address]


def message(title: str, at: datetime = NOW) -> Waiting:
    return Waiting(at, title, f"text of {title}", True, NAMES)


def deliver(
    folder: Path, post: FakePost, *titles: str, to: Sequence[str] = (MAIL, CHAT), now: datetime = NOW
) -> tuple[list[str], list[str]]:
    def update(before: Ledger) -> Ledger:
        for title in titles:
            before = before.with_message(replace(message(title, now), to=tuple(map(addresses.identity, to))))
        return before

    failures, troubles = delivery.deliver(folder, to, update, post.load, lambda: now)
    return [failure.shown for failure in failures], troubles


def test_what_did_not_arrive_is_sent_later_in_order_and_to_nobody_twice(tmp_path: Path) -> None:
    post = FakePost(CHAT)
    assert deliver(tmp_path, post, "one") == (["tgram://…"], [])
    assert deliver(tmp_path, post, "two") == (["tgram://…"], [])
    assert post.titles(MAIL) == ["one", "two"] and post.titles(CHAT) == []
    post.down.clear()
    assert deliver(tmp_path, post, "three", now=NOW + timedelta(days=1)) == ([], [])
    assert post.titles(MAIL) == ["one", "two", "three"] == post.titles(CHAT)
    late, new = (text.body for to, text in post.sent[-2:])
    first = post.sent[3][1].body
    assert "This message was written at 2026-11-28" in first and "text of one" in first
    assert "This message was written at" not in new and "text of three" in new, late
    assert ledger.read(tmp_path).waiting == ()
    assert deliver(tmp_path, post) == ([], []) and post.loaded == 3


def test_nothing_is_loaded_where_nothing_is_to_be_sent(tmp_path: Path) -> None:
    post = FakePost()
    assert deliver(tmp_path, post) == ([], []) and post.loaded == 0


def test_the_oldest_goes_where_too_many_wait_with_a_note(tmp_path: Path) -> None:
    post = FakePost(MAIL, CHAT)
    for number in range(MOST + 3):
        deliver(tmp_path, post, str(number))
    waiting = ledger.read(tmp_path).waiting
    assert len(waiting) == MOST and waiting[0].title == "3" and waiting[0].dropped == 3
    post.down.clear()
    deliver(tmp_path, post)
    assert post.titles(MAIL) == [str(number) for number in range(3, MOST + 3)]
    assert "3 older messages could not be sent and were thrown away" in post.sent[0][1].body
    assert "thrown away" not in post.sent[1][1].body


def test_nobody_waits_at_an_address_that_was_taken_away(tmp_path: Path) -> None:
    post = FakePost(CHAT)
    deliver(tmp_path, post, "one")
    assert deliver(tmp_path, post, to=[MAIL]) == ([], [])
    assert ledger.read(tmp_path).waiting == () and post.titles(MAIL) == ["one"]


def test_sending_that_was_cut_off_goes_on_and_says_that_it_may_be_the_second_time(tmp_path: Path) -> None:
    post = FakePost()
    post.killed_after = 3
    with pytest.raises(KeyboardInterrupt):
        deliver(tmp_path, post, "one", "two")
    deliver(tmp_path, post)
    assert post.titles(MAIL) == ["one", "two"]
    assert post.titles(CHAT) == ["one", "one", "two"]
    assert "may have arrived already" in post.sent[3][1].body
    assert all("may have arrived" not in text.body for _, text in post.sent[:3] + post.sent[4:])


SENDING = """
import sys
from datetime import datetime, timezone
from pathlib import Path
from compose_chap.alarms import addresses, delivery, services
from compose_chap.alarms.ledger import Waiting

to = sys.argv[2:]
now = datetime.now(timezone.utc)
message = Waiting(now, "title", "text", True, tuple(map(addresses.identity, to)))
delivery.deliver(Path(sys.argv[1]), to, lambda before: before.with_message(message), services.loaded, lambda: now)
"""


def test_a_process_that_is_killed_while_it_sends(tmp_path: Path) -> None:
    with serving(WebService()) as web, socket.create_server(("127.0.0.1", 0)) as silent:
        first, second = f"json://127.0.0.1:{web.port}/a", f"json://127.0.0.1:{silent.getsockname()[1]}/b"
        silent.settimeout(60)
        with subprocess.Popen([sys.executable, "-c", SENDING, str(tmp_path), first, second]) as child:
            connection, _ = silent.accept()
            with connection:
                connection.recv(1)
                child.kill()
        (waiting,) = ledger.read(tmp_path).waiting
        assert len(web.received) == 1
        assert waiting.to == waiting.begun == (addresses.identity(second),)
    post = FakePost()
    deliver(tmp_path, post, to=[first, second])
    assert [address for address, _ in post.sent] == [second] and "may have arrived already" in post.sent[0][1].body


def full(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)


def test_on_a_full_disk_it_is_sent_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    post = FakePost()
    full(monkeypatch)
    failures, troubles = deliver(tmp_path, post, "one")
    assert not failures and post.titles(MAIL) == ["one"] == post.titles(CHAT)
    assert any("No space left" in trouble for trouble in troubles)


def test_a_disk_that_is_full_later_leaves_what_was_written_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = FakePost(CHAT)
    deliver(tmp_path, post, "one")
    with monkeypatch.context() as during:
        full(during)
        _, troubles = deliver(tmp_path, post, "two")
    assert troubles and [waiting.title for waiting in ledger.read(tmp_path).waiting] == ["one"]


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"version": 1}', b'{"failing": [{}], "waiting": []}'])
def test_a_ledger_that_cannot_be_read_is_named_and_begun_again(tmp_path: Path, content: bytes) -> None:
    post = FakePost()
    deliver(tmp_path, post)
    (tmp_path / ".docker-chap" / ledger.FILE).write_bytes(content)
    _, troubles = deliver(tmp_path, post, "one")
    assert "alarms.json" in troubles[0] and post.titles(MAIL) == ["one"]
    assert json.loads((tmp_path / ".docker-chap" / ledger.FILE).read_text())["waiting"] == []


def test_no_room_to_load_what_sends(tmp_path: Path) -> None:
    @contextmanager
    def load() -> Iterator[FakePost]:
        raise StateError("There is no room to load what sends alarms.")
        yield FakePost()

    failures, troubles = delivery.deliver(
        tmp_path, [MAIL], lambda before: before.with_message(message("one")), load, lambda: NOW
    )
    assert "no room" in failures[0].why and not troubles and ledger.read(tmp_path).waiting


def test_two_processes_do_not_send_the_same(tmp_path: Path) -> None:
    post = FakePost(MAIL, CHAT)
    deliver(tmp_path, post, "one")
    post.down.clear()
    with ledger.held(tmp_path):
        other = threading.Thread(target=deliver, args=(tmp_path, post), daemon=True)
        other.start()
        other.join(0.3)
        assert other.is_alive() and not post.sent
    other.join(10)
    assert post.titles(MAIL) == ["one"]


def test_the_ledger_is_this_users_own_and_read_as_it_was_written(tmp_path: Path) -> None:
    known = Ledger(
        (Failing("nightly copy", NOW, "why", "hint"),), (replace(message("one"), begun=NAMES, dropped=2),), NOW
    )
    ledger.write(tmp_path, known)
    assert ledger.read(tmp_path) == known
    assert (tmp_path / ".docker-chap" / ledger.FILE).stat().st_mode & 0o777 == 0o600
    assert "secret" not in (tmp_path / ".docker-chap" / ledger.FILE).read_text()
    ledger.remove(tmp_path)
    assert ledger.read(tmp_path) == Ledger()


def test_only_a_change_is_news() -> None:
    bad, good = Sign("nightly copy", "no link", "do this"), Sign("nightly copy")
    first = changes.compare([], [bad, Sign("nightly backup")], NOW)
    assert first.began == first.failing == (Failing("nightly copy", NOW, "no link", "do this"),) and not first.ended
    night = NOW + timedelta(days=1)
    second = changes.compare(first.failing, [Sign("nightly copy", "other words")], night)
    assert not second.began and not second.ended
    assert second.failing == (Failing("nightly copy", NOW, "other words"),)
    assert changes.compare(second.failing, [], night).failing == second.failing
    third = changes.compare(second.failing, [bad, good], night)
    assert third.ended == second.failing and not third.failing and not third.began
    assert changes.compare([], [good], night) == changes.StateChange((), (), ())
