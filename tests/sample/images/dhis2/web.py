"""A small DHIS2: enough of /api to keep a route to CHAP and to send requests through it."""

import base64
import http.server
import json
import os
import signal
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import psycopg2
import psycopg2.extras

USERS = {f"{os.environ.get('DHIS2_ADMIN_USER') or 'admin'}:{os.environ.get('DHIS2_ADMIN_PASSWORD') or 'district'}"}
FIELDS = ("id", "code", "name", "url", "disabled", "headers", "auth", "authorities")


def query(sql: str, values: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
    """Run one statement in a transaction of its own."""
    connection = psycopg2.connect(os.environ["DHIS2_DATABASE_URL"], connect_timeout=3)
    try:
        with connection, connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(sql, values)
            return [dict(row) for row in cursor.fetchall()] if cursor.description else []
    finally:
        connection.close()


def routes(where: str = "true", values: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
    """Return the routes that match."""
    return query(f"SELECT uid AS id, code, name, url, disabled, headers, auth, authorities FROM route WHERE {where} ORDER BY uid", values)


class Web(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a read."""
        self.respond(self.read)

    def do_POST(self) -> None:
        """Answer a write."""
        self.respond(self.write)

    do_PUT = do_POST

    def respond(self, action: Any) -> None:
        """Let only known users in, and never die of an error."""
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        try:
            if not self.known():
                self.send(401, {"httpStatus": "Unauthorized", "httpStatusCode": 401, "status": "ERROR", "message": "Unauthorized"})
            else:
                action(urllib.parse.urlsplit(self.path))
        except psycopg2.Error as error:
            self.send(500, {"httpStatusCode": 500, "status": "ERROR", "message": str(error).strip()})

    def known(self) -> bool:
        """Check the password."""
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        try:
            return scheme == "Basic" and base64.b64decode(value).decode() in USERS
        except ValueError:
            return False

    def read(self, url: urllib.parse.SplitResult) -> None:
        """Answer GET."""
        path = url.path.removeprefix("/api")
        if path in ("/system/info", "/system/info.json"):
            query("SELECT 1")
            self.send(200, {"version": "2.42.5", "systemName": "Sample DHIS2", "contextPath": ""})
        elif path in ("/me", "/me.json"):
            self.send(200, {"id": "M5zQapPyTZI", "username": "admin", "authorities": ["ALL"]})
        elif path in ("/routes", "/routes.json"):
            self.send_routes(urllib.parse.parse_qs(url.query))
        elif path.startswith("/routes/") and "/run" in path:
            name, _, rest = path.removeprefix("/routes/").partition("/run")
            self.run(name, rest.lstrip("/") + (f"?{url.query}" if url.query else ""))
        elif path.startswith("/routes/"):
            found = routes("uid = %s OR code = %s", (path.removeprefix("/routes/"),) * 2)
            if found:
                self.send(200, found[0])
            else:
                self.missing()
        else:
            self.missing()

    def send_routes(self, parameters: dict[str, list[str]]) -> None:
        """Answer with the routes that pass the filter, only the asked fields."""
        found = routes()
        for condition in parameters.get("filter", []):
            field, operator, value = condition.split(":", 2)
            if operator == "eq":
                found = [route for route in found if str(route.get(field)) == value]
        fields = (parameters.get("fields") or ["id,name"])[0].split(",")
        chosen = FIELDS if "*" in fields or ":all" in fields else fields
        self.send(200, {"routes": [{field: route[field] for field in chosen if route.get(field) is not None} for route in found]})

    def write(self, url: urllib.parse.SplitResult) -> None:
        """Answer POST and PUT; a PUT replaces the whole route, so what it does not name is gone."""
        path = url.path.removeprefix("/api")
        if path == "/resourceTables/analytics":
            query("INSERT INTO analyticsrun DEFAULT VALUES")
            self.send(200, {"status": "OK"})
            return
        if path == "/routes" or path.startswith("/routes/"):
            if path.startswith("/routes/") and "/run" in path:
                name, _, rest = path.removeprefix("/routes/").partition("/run")
                self.run(name, rest.lstrip("/"))
                return
            route = json.loads(self.body)
            identity = path.removeprefix("/routes").strip("/") or route.get("id") or "TkdmmuSCGPA"
            query("DELETE FROM route WHERE uid = %s OR code = %s", (identity, route.get("code")))
            query(
                "INSERT INTO route VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                (identity, route.get("code"), route["name"], route["url"], bool(route.get("disabled")),
                 *(json.dumps(route[key]) if route.get(key) is not None else None for key in ("headers", "auth", "authorities"))),
            )
            self.send(200 if self.command == "PUT" else 201, {"status": "OK", "response": {"uid": identity}})
            return
        self.missing()

    def run(self, name: str, rest: str) -> None:
        """Send the request on to the place the route points at."""
        found = routes("uid = %s OR code = %s", (name, name))
        if not found or found[0]["disabled"]:
            self.missing()
            return
        url = found[0]["url"]
        if rest and not url.endswith("/**"):
            self.send(400, {"httpStatusCode": 400, "status": "ERROR", "message": "Route does not support sub-paths"})
            return
        headers = {"Content-Type": "application/json"} | (found[0]["headers"] or {})
        if (found[0]["auth"] or {}).get("type") == "api-token":
            headers["Authorization"] = f"ApiToken {found[0]['auth']['token']}"
        request = urllib.request.Request(url.removesuffix("**") + rest, self.body or None, headers, method=self.command)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                self.send(answer.status, answer.read(), answer.headers.get_content_type())
        except urllib.error.HTTPError as error:
            self.send(error.code, error.read(), error.headers.get_content_type())
        except OSError:
            self.send(502, {"httpStatus": "Bad Gateway", "httpStatusCode": 502, "status": "ERROR", "message": "Bad Gateway"})

    def missing(self) -> None:
        """Answer 404."""
        self.send(404, {"httpStatus": "Not Found", "httpStatusCode": 404, "status": "ERROR", "message": "Not found"})

    def send(self, status: int, content: Any, kind: str = "application/json") -> None:
        """Send one answer."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


if __name__ == "__main__":
    # As process 1 it would ignore SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Web).serve_forever()
