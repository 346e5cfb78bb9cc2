"""What a monitor is sent, by a real server; and that a monitor that is down does no harm."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from compose_chap.alarms import ping as ping_module
from compose_chap.alarms.ping import Signal, is_address, ping
from tests.monitor import Monitor, monitoring


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    with monitoring() as monitor:
        yield monitor


def test_each_signal_has_its_address_and_reason(monitor: Monitor) -> None:
    url = f"http://127.0.0.1:{monitor.server_port}/ping/secret"
    assert ping(url, Signal.START) == ping(f"{url}/", Signal.FAIL, "copy failed") == ping(url, Signal.SUCCESS) == ""
    assert monitor.received == [("/ping/secret/start", ""), ("/ping/secret/fail", "copy failed"), ("/ping/secret", "")]


def test_of_a_long_reason_the_end_is_sent(monitor: Monitor) -> None:
    assert ping(f"http://127.0.0.1:{monitor.server_port}/x?create=1", Signal.FAIL, "é" * 20_000 + "the end") == ""
    path, body = monitor.received[0]
    assert path == "/x/fail?create=1" and len(body.encode()) <= 10_000 and body.endswith("the end")


def test_it_tries_again_and_says_why_it_could_not(monitor: Monitor) -> None:
    url = f"http://127.0.0.1:{monitor.server_port}/secret"
    monitor.refusals = 2
    assert ping(url, Signal.SUCCESS) == "" and len(monitor.received) == 1
    monitor.refusals = 3
    assert ping(url, Signal.SUCCESS) == "127.0.0.1 answers with HTTP 503"
    why = ping("http://127.0.0.1:9/secret", Signal.SUCCESS)
    assert why == "127.0.0.1 cannot be reached (ConnectError)"


def test_a_proxy_that_cannot_be_used_is_a_reason_too(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "nonsense://127.0.0.1:9")
    why = ping("http://monitor.example/secret", Signal.SUCCESS)
    assert why.startswith("monitor.example cannot be reached (") and not monitor.received


def test_an_answer_elsewhere_is_no_arrival(monitor: Monitor) -> None:
    monitor.status = 301
    why = ping(f"http://127.0.0.1:{monitor.server_port}/secret", Signal.SUCCESS)
    assert why == "127.0.0.1 answers with HTTP 301: write the address that it redirects to"
    assert len(monitor.received) == 1


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"])
def test_a_monitor_whose_answer_drips_holds_nothing_up(first: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ping_module, "_LONGEST", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip, args=[listener, first], daemon=True).start()
        why = ping(f"http://127.0.0.1:{listener.getsockname()[1]}/secret", Signal.START)
    # A status is an answer, whatever follows it.
    assert why == ("" if first else "127.0.0.1 does not finish its answer")


def drip(listener: socket.socket, first: bytes) -> None:
    """Answer with `first` and then, slowly, with letters without end."""
    with suppress(OSError):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(first)
            while True:
                connection.sendall(b"H")
                time.sleep(0.1)


def test_what_is_no_address() -> None:
    assert is_address("https://hc-ping.com/abc") and is_address("http://[::1]:8000/x")
    for text in ("", "hc-ping.com/abc", "ftp://x/y", "https://", "http:///x", "mailto:me@example.org"):
        assert not is_address(text)
