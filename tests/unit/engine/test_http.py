"""The engine over HTTP: a server at a Unix socket answers as an engine does, or as it should not."""

from __future__ import annotations

import json
import re
import socket
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from compose_chap.engine.execution import Execution
from compose_chap.engine.failures import engine_errors
from compose_chap.engine.http import Http, Refused
from compose_chap.engine.link import Link
from compose_chap.errors import EngineError


def answer(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


GOOD = answer(b'{"Id": "1"}')
PONG = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\n"
OLD_PONG = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
ENDED = answer(b'{"Running": false, "ExitCode": 0}')
LINK = Link("unix:///engine.sock", "unix:///engine.sock")
UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


class Server:
    """A server that has the answers of each connection, which it closes after the last of them."""

    def __init__(self, path: Path) -> None:
        self.address, self.requests = f"unix://{path}", list[str]()
        self.closed = threading.Semaphore(0)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()

    def answers(self, *connections: list[bytes]) -> Http:
        """Serve these connections one after the other; return what asks."""
        threading.Thread(target=self._serve, args=connections, daemon=True).start()
        return Http(self.address)

    def _serve(self, *connections: list[bytes]) -> None:
        with self._listener:
            for answers in connections:
                connection, _ = self._listener.accept()
                with connection, connection.makefile("rb") as reader:
                    for data in answers:
                        self.requests.append(_request(reader))
                        connection.sendall(data)
                self.closed.release()


def _request(reader: BinaryIO) -> str:
    head = b"".join(iter(reader.readline, b"\r\n")).decode()
    length = re.search(r"Content-Length: (\d+)", head)
    return f"{head}\r\n{reader.read(int(length[1]) if length else 0).decode()}"


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path / "engine.sock")


def test_requests_go_over_the_same_connection_until_it_ends(server: Server) -> None:
    http = server.answers([PONG, GOOD, answer(b'{"message": "no such"}', "404 Not Found"), GOOD], [GOOD])
    filters = json.dumps({"label": ["a=b c&d"]})
    assert http.get("/containers/json", all=1, filters=filters) == {"Id": "1"}
    assert http.look_up("/images/127.0.0.1:5000/chap/core@sha256:1?/json") is None
    assert http.post("/containers/x/exec", {"Cmd": ["größer"]}) == {"Id": "1"}
    assert server.closed.acquire(timeout=10)
    assert http.get("/info") == {"Id": "1"}
    ping, first, second, third, _ = server.requests
    assert ping.startswith("HEAD /_ping HTTP/1.1\r\n")
    assert first.startswith(
        "GET /v1.41/containers/json?all=1&filters=%7B%22label%22%3A+%5B%22a%3Db+c%26d%22%5D%7D HTTP/1.1\r\n"
    )
    assert second.startswith("GET /v1.41/images/127.0.0.1:5000/chap/core%40sha256:1%3F/json? HTTP/1.1\r\n")
    assert third.startswith("POST /v1.41/containers/x/exec HTTP/1.1\r\n") and json.loads(third.partition("\r\n\r\n")[2])


@pytest.mark.parametrize(
    ("body", "why"),
    [(b'{"message": "is not running"}', "is not running"), (b"<html>", "<html>"), (b"[7]", "[7]"), (b"7", "7")],
)
def test_a_refusal_says_why(server: Server, body: bytes, why: str) -> None:
    http = server.answers([OLD_PONG, answer(body, "409 Conflict")], [answer(body, "409 Conflict")])
    with pytest.raises(EngineError, match="Docker could not stop it: ") as failed, engine_errors("stop it", LINK):
        http.post("/stop", {})
    assert failed.value.message.endswith(f": {why}")
    with pytest.raises(Refused) as refused:
        Execution(http, LINK, "1")
    assert refused.value.status == 409


@pytest.mark.parametrize("data", [b"", b"nonsense\r\n\r\n", answer(b"<html>"), answer(b"\xff"), GOOD[:-3], UPGRADED])
def test_what_is_no_answer_of_an_engine_is_named(server: Server, data: bytes) -> None:
    http = server.answers([PONG, data])
    with pytest.raises(EngineError, match="does not answer"), engine_errors("list the containers", LINK):
        http.get("/containers/json")


def test_where_nothing_listens_no_engine_answers(tmp_path: Path) -> None:
    for address in (f"unix://{tmp_path}/none", "npipe:////./pipe/docker_engine"):
        with pytest.raises(EngineError, match="does not answer"), engine_errors("ask", LINK):
            Http(address).get("/info")


def test_a_stream_begins_with_what_came_with_its_headers(server: Server) -> None:
    out, err = b"\1\0\0\0\0\0\0\2hi", b"\2\0\0\0\0\0\0\3oh!"
    ended = answer(b'{"Running": false, "ExitCode": 3}')
    http = server.answers([PONG], [UPGRADED + out + err], [ended])
    execution = Execution(http, LINK, "1")
    assert list(execution.output()) == [b"hi"] and execution.stderr == b"oh!"
    assert execution.status() == 3
    execution.close()
    assert "\r\nUpgrade: tcp\r\n" in server.requests[1]


@pytest.mark.parametrize("piece", [b"\1\0\0\0\0\0\0\x64hi", b"\1\0\0\0\0\0\0\2hi\1\0"])
def test_a_stream_that_is_cut_off_is_no_success(server: Server, piece: bytes) -> None:
    execution = Execution(server.answers([PONG], [UPGRADED + piece], [ENDED]), LINK, "1")
    assert b"".join(execution.output()) == b"hi"
    with pytest.raises(EngineError, match="The connection to the Docker engine was lost"):
        execution.status()


def test_the_reason_of_a_process_that_did_not_read_its_input_is_its_own(server: Server) -> None:
    execution = Execution(server.answers([PONG], [UPGRADED + b"\2\0\0\0\0\0\0\3no!"], [ENDED]), LINK, "1")
    assert server.closed.acquire(timeout=10) and server.closed.acquire(timeout=10)
    assert not execution.feed([b"x" * (1 << 22)])
    assert not list(execution.output()) and execution.stderr == b"no!"
