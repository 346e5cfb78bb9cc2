"""Point DHIS2's route for CHAP at CHAP_ROUTE_URL: a one-shot that runs at every `up`."""

import base64
import json
import os
import time
import urllib.error
import urllib.request

BASE = os.environ.get("DHIS2_URL", "http://dhis2-web:8080")
USER = f"{os.environ.get('DHIS2_ADMIN_USER') or 'admin'}:{os.environ.get('DHIS2_ADMIN_PASSWORD') or 'district'}"
HEADERS = {"Authorization": "Basic " + base64.b64encode(USER.encode()).decode(), "Content-Type": "application/json"}
URL = os.environ.get("CHAP_ROUTE_URL") or "http://host.docker.internal:8000/**"
UID = os.environ.get("CHAP_ROUTE_UID") or "TkdmmuSCGPA"


def ask(method: str, path: str, body: object = None) -> dict[str, object]:
    """Return DHIS2's answer."""
    request = urllib.request.Request(BASE + path, json.dumps(body).encode() if body else None, HEADERS, method=method)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return dict(json.load(answer))


for _ in range(120):
    try:
        found = list(ask("GET", "/api/routes?filter=code:eq:chap&fields=id,url&paging=false")["routes"])  # type: ignore[call-overload]
        break
    except (OSError, KeyError):
        time.sleep(0.5)
else:
    raise SystemExit("DHIS2 does not answer")

# Only these three: what an operator put on the route beside them is lost.
route = {"name": "chap", "code": "chap", "url": URL}
if not found:
    ask("POST", "/api/routes", {"id": UID} | route)
    print(f"route made: {URL}")
elif found[0]["url"] == URL:
    print("route is right already")
else:
    ask("PUT", f"/api/routes/{found[0]['id']}", route)
    print(f"route changed to {URL}")
