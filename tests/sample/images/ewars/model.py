"""A model service: registers itself with CHAP, keeps itself registered, keeps its own SQLite file in the container."""

import http.server
import json
import os
import signal
import socket
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

REGISTER = os.environ.get("SERVICEKIT_ORCHESTRATOR_URL", "")
KEY = os.environ.get("SERVICEKIT_REGISTRATION_KEY", "")
EVERY = float(os.environ.get("CHAP_TEST_KEEPALIVE_SECONDS") or 10)
GRACE = float(os.environ.get("CHAP_TEST_GRACE_SECONDS") or 30)
INFO = {"id": "chapkit-ewars-model", "display_name": "CHAP-EWARS Model", "version": "1.2.0", "description": "Sample of the EWARS model"}
DATABASE = Path("/app/data/chapkit.db")


class Model(http.server.BaseHTTPRequestHandler):
    """Answers as a model service does."""

    def do_GET(self) -> None:
        """Answer /health and /api/v1/info."""
        body = {"/health": {"status": "healthy"}, "/api/v1/info": INFO, "/api/v1/configs": configs()}.get(self.path)
        content = json.dumps(body if body is not None else {"detail": "Not Found"}).encode()
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


def configs() -> list[str]:
    """Return the names of the configurations kept in the container's own layer."""
    with sqlite3.connect(DATABASE) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM configs")]


def prepare() -> None:
    """Make the SQLite file on the first start."""
    DATABASE.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(DATABASE) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS configs (name TEXT PRIMARY KEY)")
        connection.execute("INSERT OR IGNORE INTO configs VALUES ('default')")


def ask(method: str, url: str, body: object = None) -> int:
    """Return the status of a request to CHAP, 0 when it does not answer."""
    headers = {"Content-Type": "application/json"} | ({"X-Service-Key": KEY} if KEY else {})
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def register() -> bool:
    """Try five times to register."""
    for _ in range(5):
        if ask("POST", REGISTER, {"url": f"http://{socket.gethostname()}:8000", "info": INFO}) == 200:
            print("registered", flush=True)
            return True
        time.sleep(2)
    print("could not register", flush=True)
    return False


def keep_registered() -> None:
    """Ping for ever; when the first registration fails there is no ping either, as in the real one."""
    if not register():
        return
    url = REGISTER.replace("$register", f"{INFO['id']}/$ping")
    while True:
        time.sleep(EVERY)
        if ask("PUT", url) == 404:
            time.sleep(GRACE)
            register()


if __name__ == "__main__":
    # As process 1 it would ignore SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    prepare()
    if REGISTER:
        threading.Thread(target=keep_registered, daemon=True).start()
    http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Model).serve_forever()
