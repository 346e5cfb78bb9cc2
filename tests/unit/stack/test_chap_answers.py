"""CHAP's answers may hold anything: a real server gives them, and the program that runs in CHAP's container asks."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from compose_chap.errors import EngineError
from compose_chap.processes.process import Finished
from compose_chap.stack import chap, chap_scripts
from compose_chap.stack.chap import Chap
from compose_chap.stack.chap_answers import Answer, Job, answers_of

ODD: list[Any] = [None, 7, 1.5, "text", True, [], {}, [None], [7], ["text"], [[]], [{}], {"a": None}]
DEEP = "[" * 100_000


class Server(ThreadingHTTPServer):
    """A server that answers each path with what it is given, and notes what it was asked with."""

    def __init__(self) -> None:
        self.bodies: dict[str, Any] = {}
        self.location = ""  # where /api has moved to
        self.goes_on = threading.Event()
        self.seen: list[tuple[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be silent about a client that went away."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.seen.append((path, self.headers.get("Authorization", "")))
        if path == "/drip":
            self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
            for _ in range(200):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.05)
            return
        if path == "/waits":
            self.server.goes_on.wait(10)
        moved = path == "/api" and self.server.location
        self.send_response(302 if moved else 200)
        if moved:
            self.send_header("Location", self.server.location)
        self.end_headers()
        body = self.server.bodies.get(path, {})
        self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with running() as running_server:
        monkeypatch.setattr(chap, "PORT", running_server.server_port)
        yield running_server


class running:
    """A server that runs while the block does."""

    def __enter__(self) -> Server:
        self.server = Server()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self.server

    def __exit__(self, *words: Any) -> None:
        self.server.shutdown()
        self.server.server_close()


def run(container: str, command: list[str], stdin: bytes = b"", **words: Any) -> Finished:
    done = subprocess.run([sys.executable, "-c", command[-1]], input=stdin, capture_output=True, check=True)
    return Finished(0, done.stdout.decode(), done.stderr.decode())


ENGINE: Any = SimpleNamespace(run=run)


@pytest.mark.parametrize("odd", [*ODD, b"", b"<html>", DEEP.encode(), b"\0\xff\xfe", b'{"checks": NaN}', b'"\\ud800"'])
def test_odd_answers_hide_nothing_and_raise_nothing(server: Server, odd: Any) -> None:
    for path in ("/health", "/health/ready", "/v2/services", "/v1/jobs"):
        server.bodies[path] = odd
    seen = Chap(ENGINE, "1").overview()
    assert seen.health.level == "answering"
    assert seen.models == ()
    if odd == []:
        assert seen.listed == {}
    else:
        assert isinstance(seen.listed, EngineError)
        assert seen.listed.message.startswith("CHAP's list of jobs cannot be used: ")


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_part_of_an_answer_is_passed_over_or_named(server: Server, odd: Any) -> None:
    server.bodies |= {
        "/health/ready": {"checks": {"database": odd}},
        "/v2/services": {"services": [{"id": "ewars"}, {"id": odd}, odd, {"id": ""}]},
        "/v1/jobs": [{"id": "1", "status": "STARTED", "type": odd}, {"id": odd, "status": "PENDING"}],
    }
    seen = Chap(ENGINE, "1").overview()
    assert seen.health.checks == {"database": odd if isinstance(odd, str) else json.dumps(odd)}
    assert seen.models == (("ewars", "text") if odd == "text" else ("ewars",))
    if odd == "text":
        assert seen.listed == {"1": Job("STARTED", "text"), "text": Job("PENDING", "")}
    else:
        assert isinstance(seen.listed, EngineError) and "[1].id" in seen.listed.message


def test_services_and_checks_of_another_type_are_none(server: Server) -> None:
    for odd in ODD:
        server.bodies |= {"/health/ready": {"checks": odd}, "/v2/services": {"services": odd}}
        seen = Chap(ENGINE, "1").overview()
        assert seen.models == () and seen.health.summary


@pytest.mark.parametrize("output", ["", "x", "[]", "7", "{}", '{"version": 1, "answers": []}', DEEP])
def test_what_the_program_printed_may_be_anything(output: str) -> None:
    engine: Any = SimpleNamespace(run=lambda *words, **kwargs: Finished(0, output, ""))
    assert Chap(engine, "1").health().level == "silent"
    with pytest.raises(EngineError):
        answers_of(output, 2)


@pytest.mark.parametrize(
    "output", [*map(json.dumps, ODD), '{"workers": 7, "jobs": []}', '{"workers": [], "jobs": [null]}']
)
def test_what_the_workers_answer_may_be_anything(output: str) -> None:
    engine: Any = SimpleNamespace(run=lambda *words, **kwargs: Finished(0, output, ""))
    with pytest.raises(EngineError, match="What the workers answered cannot be used"):
        Chap(engine, "1").active(1)


def test_an_answer_that_drips_ends(server: Server) -> None:
    begun = time.monotonic()
    (answer,) = Chap(ENGINE, "1").get("/drip", timeout=0.5)
    assert answer == Answer(0, "the answer does not come to its end")
    assert time.monotonic() - begun < 8


def test_a_login_goes_to_no_other_server(server: Server) -> None:
    with running() as other:
        server.location = f"http://127.0.0.1:{other.server_port}/taken"
        request = {"url": f"http://127.0.0.1:{server.server_port}/api", "headers": {"Authorization": "s3cret"}}
        _, (answer,) = Chap(ENGINE, "1")._requests([{**request, "timeout": 5}])
    assert answer.status == 302
    assert server.seen == [("/api", "s3cret")] and other.seen == []


def test_a_move_within_the_server_is_followed(server: Server) -> None:
    server.location, server.bodies["/new"] = "/new?a=b#c", "here"
    request = {"url": f"http://127.0.0.1:{server.server_port}/api", "headers": {"Authorization": "s3cret"}}
    _, (answer,) = Chap(ENGINE, "1")._requests([{**request, "timeout": 5}])
    assert answer == Answer(200, '"here"')
    assert server.seen == [("/api", "s3cret"), ("/new", "s3cret")]
    server.location = "/api"
    _, (answer,) = Chap(ENGINE, "1")._requests([{**request, "timeout": 5}])
    assert answer.status == 302


def test_a_line_says_that_all_is_asked(server: Server) -> None:
    urls = [f"http://127.0.0.1:{server.server_port}/{path}" for path in ("health", "waits", "waits")]
    words, pipe = [sys.executable, "-c", chap_scripts.REQUESTS], subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe) as program:
        assert program.stdin and program.stdout
        program.stdin.write(json.dumps([{"url": url, "timeout": 5} for url in urls]).encode())
        program.stdin.close()
        assert program.stdout.readline() == b"\n"
        server.goes_on.set()
        _, answers = answers_of(program.stdout.read().decode(), 3)
    assert [answer.status for answer in answers] == [200, 200, 200]
