"""A real connection pooler between CHAP and its database: it is called that, and nothing begins."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.calls import chap, until
from tests.sample.images import LABEL, PREFIX
from tests.sample.stack import SAMPLE, SampleStack, environment

# Its packages come from Debian, which takes longer than the tests.
pytestmark = pytest.mark.torture

IMAGE = f"{PREFIX}/pool"
# PostgreSQL's own programs are in it too, as in many images of poolers.
RECIPE = f"""
FROM {PREFIX}/postgres:17
COPY root/ /
RUN printf '#!/bin/sh\\nexec /usr/sbin/pgbouncer "$@"\\n' >/start && chmod 755 /start
USER postgres
ENTRYPOINT []
LABEL {LABEL}
"""
INI = """
[databases]
* = host=chap-postgres port=5432 user=chap password=chap
[pgbouncer]
listen_addr = *
listen_port = 5432
unix_socket_dir = /tmp
auth_type = any
ignore_startup_parameters = {ignored}
"""
SITE = """
services:
  chap: &chap
    environment: {{CHAP_DATABASE_URL: "postgresql://chap:chap@pool:5432/chap_core"}}
  chap-worker: *chap
  pool:
    image: {image}
    command: {command}
    volumes: ["./pool.ini:/etc/pool.ini:ro"]
"""
WORDS = (
    ("check",),
    ("check", "v2.1.0"),
    ("backup",),
    ("upgrade", "v2.1.0", "--yes"),
    ("restore", "given.sql", "--yes"),
)


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """Give a stack in which PgBouncer stands between CHAP and its database."""
    folder = tmp_path_factory.mktemp("image")
    fetch = f'. "{SAMPLE}/debian.sh"; fetch_packages trixie "$1" pgbouncer libcares2 libevent-2.1-7t64'
    subprocess.run(["bash", "-c", fetch, "bash", folder / "root"], check=True)
    (folder / "Dockerfile").write_text(RECIPE)
    subprocess.run(["docker", "build", "-q", "-t", IMAGE, folder], env=environment(), check=True)
    stack = SampleStack.create(tmp_path_factory.mktemp("pooled"))
    stack.files.append(stack.folder / "compose.pool.yml")
    try:
        yield stack
    finally:
        stack.down()
        subprocess.run(["docker", "rmi", IMAGE], env=environment(), check=False)


@pytest.mark.parametrize(
    ("command", "ignored", "match"),
    [
        ('["/usr/sbin/pgbouncer", "/etc/pool.ini"]', "", "through 'pool' .*, a connection pooler"),
        # Nothing about it says what it is, but what it answers.
        ('["/start", "/etc/pool.ini"]', "extra_float_digits", "pooler or a proxy: .*unsupported startup parameter"),
        ('["/start", "/etc/pool.ini"]', "options", "pooler or a proxy: it passes connections on to a server at"),
    ],
)
def test_a_pooler_is_called_that_before_anything_begins(
    pooled: SampleStack, command: str, ignored: str, match: str
) -> None:
    Path(pooled.folder, "pool.ini").write_text(INI.format(ignored=ignored))
    pooled.files[-1].write_text(SITE.format(image=IMAGE, command=command))
    pooled.compose("up", "-d", "--force-recreate", "pool")
    pooled.up()
    (pooled.folder / "given.sql").write_text("SELECT 1;")
    before = _beginnings(pooled)
    for words in WORDS:
        document = chap(pooled, *words, expect=1)
        text = str(document.get("checks") or document["error"])
        assert re.search(match, text), text
    status = chap(pooled, "status")
    assert any(re.search(match, text) for text in status["problems"]), status["problems"]
    until(lambda: pooled.api("/health/ready")[0] == 200)
    assert _beginnings(pooled) == before
    assert not (pooled.folder / "backups").exists() and not (pooled.folder / ".docker-chap/journal.json").exists()


def _beginnings(stack: SampleStack) -> dict[str, tuple[str, str]]:
    """Return each service's container and when it began. Its health may still be on the way to healthy."""
    return {name: (container["id"], container["started_at"]) for name, container in stack.containers().items()}
