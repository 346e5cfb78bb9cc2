"""The audit of the pinned packages, against a service of our own that speaks OSV's protocol."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from build import audit

NAMES = [name for name, _ in audit.pinned()]


@contextmanager
def service(holes: dict[str, list[str]], status: int = 200, lost: int = 0) -> Iterator[str]:
    """Answer as OSV does: one result per query, in order; `lost` results are missing at the end."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/querybatch"
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            results: list[dict[str, Any]] = []
            for query in document:
                assert query["package"]["ecosystem"] == "PyPI" and query["version"][0].isdigit()
                result = holes.get(query["package"]["name"])
                results.append({"vulns": [{"id": hole} for hole in result]} if result else {})
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps({"results": results[: len(results) - lost]}).encode())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(url: str, *more: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "build.audit", "--service", url, *more]
    return subprocess.run(words, cwd=audit.RECIPE.parent, capture_output=True, text=True, check=False)


def test_what_is_packed_and_what_checks_it_are_asked_about() -> None:
    assert {"click", "docker", "httpx", "ruamel-yaml", "pytest", "shiv"} <= set(NAMES)
    assert len(NAMES) == len(set(audit.pinned())) > 30


def test_no_vulnerability_is_reported() -> None:
    with service({}) as url:
        done = run(url, "--must")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"audited: no known hole in the {len(NAMES)} pinned packages\n"


def test_a_hole_fails_and_is_named() -> None:
    with service({"urllib3": ["GHSA-1", "PYSEC-2"]}) as url:
        done = run(url)
    assert done.returncode == 1 and "vulnerability/GHSA-1" in done.stderr and "vulnerability/PYSEC-2" in done.stderr
    assert "Error: urllib3==" in done.stderr and "make lock" in done.stderr


@pytest.mark.parametrize("how", [{"status": 503}, {"lost": 1}])
@pytest.mark.parametrize("must", [True, False])
def test_a_missing_answer_is_reported_and_only_a_release_needs_it(how: dict[str, int], must: bool) -> None:
    with service({}, **how) as url:
        done = run(url, *(["--must"] if must else []))
    assert done.returncode == int(must) and done.stdout == ""
    assert done.stderr.startswith(f"not audited: {url} does not answer (")


def test_an_unreachable_service_is_reported() -> None:
    done = run("http://127.0.0.1:9")
    assert done.returncode == 0 and "not audited" in done.stderr
