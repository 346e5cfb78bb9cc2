"""What alarms are sent to in tests: a mail server, and a web server for ntfy, Slack, Telegram or a webhook."""

from __future__ import annotations

import email
import email.policy
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

_Server = TypeVar("_Server", bound=socketserver.BaseServer)


class MailServer(socketserver.ThreadingTCPServer):
    """A mail server on the loopback interface that keeps every mail it takes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MailHandler)
        self.port = self.server_address[1]
        self.mails: list[EmailMessage] = []
        self.logins: list[str] = []


class _MailHandler(socketserver.StreamRequestHandler):
    """One session of SMTP, RFC 5321, with AUTH PLAIN and LOGIN as clients use them."""

    def handle(self) -> None:
        assert isinstance(self.server, MailServer)
        self._say("220 mail.test ESMTP")
        while line := self.rfile.readline():
            words = line.decode().split()
            verb = words[0].upper() if words else ""
            if verb == "EHLO":
                self._say("250-mail.test", "250-8BITMIME", "250 AUTH PLAIN")
            elif verb == "AUTH":
                self.server.logins.append(words[-1])
                self._say("235 welcome")
            elif verb == "DATA":
                self._say("354 go on")
                self.server.mails.append(self._mail())
                self._say("250 taken")
            elif verb == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 fine")

    def _mail(self) -> EmailMessage:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        mail = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        return mail

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


class WebService(ThreadingHTTPServer):
    """A web server that keeps every request with its body, parsed where it is JSON, and answers with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _WebHandler)
        self.port = self.server_address[1]
        self.received: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.answer = b'{"ok": true, "result": {"message_id": 1}}'


class _WebHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, WebService)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.status < 400:
            is_json = "json" in self.headers.get("Content-Type", "")
            self.server.received.append((self.path, json.loads(body) if is_json else body.decode()))
            self.server.headers.append(dict(self.headers))
        answer = self.server.answer
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def serving(server: _Server) -> Iterator[_Server]:
    """Give a server that answers while the block runs."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
