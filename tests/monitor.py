"""A monitor that records what it receives, and answers 200: the protocol of healthchecks.io needs no more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer


class Monitor(HTTPServer):
    """A monitor that keeps what it gets, and refuses the first few."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[tuple[str, str]] = []
        self.refusals = 0
        self.status = 200


class Handler(BaseHTTPRequestHandler):
    """Keep a request."""

    def do_POST(self) -> None:
        assert isinstance(self.server, Monitor)
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        refused, self.server.refusals = self.server.refusals > 0, self.server.refusals - 1
        if not refused:
            self.server.received.append((self.path, body))
        self.send_response(503 if refused else self.server.status)
        self.send_header("Location", "https://elsewhere.example/")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def monitoring() -> Iterator[Monitor]:
    """Give a monitor that answers while the block runs."""
    with Monitor() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
