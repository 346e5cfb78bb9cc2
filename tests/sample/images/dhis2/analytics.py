"""Ask DHIS2 to build its analytics tables: a one-shot."""

import base64
import os
import urllib.request

user = f"{os.environ.get('DHIS2_ADMIN_USER') or 'admin'}:{os.environ.get('DHIS2_ADMIN_PASSWORD') or 'district'}"
request = urllib.request.Request(
    os.environ.get("DHIS2_URL", "http://dhis2-web:8080") + "/api/resourceTables/analytics",
    method="POST",
    headers={"Authorization": "Basic " + base64.b64encode(user.encode()).decode()},
)
with urllib.request.urlopen(request, timeout=30) as answer:
    print("analytics:", answer.status)
