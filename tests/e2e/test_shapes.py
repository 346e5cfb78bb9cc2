"""Shapes that operators make of a stack: what can be operated is, all of it; what cannot is refused with the reason.

One project has them all: other names, a worker service of two containers and another one beside it, of a profile and
with fewer containers than its file wants, a fixed container name, a second file with a network of its own, and a
database server that a second project uses too.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.calls import chap
from tests.e2e.faults import SEEDED
from tests.sample.stack import SampleStack, registry, run_in

SITE = """
services:
  malaria-api:
    container_name: {project}.malaria
    networks: [default, hospital]
  more-jobs:
    extends: {{file: compose.yml, service: jobs}}
    profiles: [many]
    deploy: {{replicas: 2}}
  data:
    networks: [default, hospital]
networks:
  hospital: {{name: {project}-hospital}}
"""
NEIGHBOUR = """
services:
  chap:
    image: {registry}/docker-chap-test/chap-core:v2.0.0
    environment: {{CHAP_DATABASE_URL: 'postgresql://chap:chap@data:5432/neighbour', REDIS_HOST: nowhere}}
    healthcheck: {{test: [CMD, bash, -c, "exec 3<>/dev/tcp/127.0.0.1/8000"], interval: 1s, start_period: 2m}}
    networks: [hospital]
networks:
  hospital: {{name: {project}-hospital, external: true}}
"""
SERVICES = {"chap": "malaria-api", "chap-worker": "jobs", "chap-postgres": "data", "chap-redis": "queue"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """The project with all these shapes."""
    stack = SampleStack.create(tmp_path_factory.mktemp("shapes"))
    text = stack.files[0].read_text()
    for old, new in SERVICES.items():
        text = re.sub(rf"(?m)^( +){old}:$", rf"\1{new}:", text).replace(f"//{old}:", f"//{new}:")
        text = text.replace(f"@{old}:", f"@{new}:").replace(f"HOST: {old}\n", f"HOST: {new}\n")
    stack.files[0].write_text(text)
    stack.files.append(stack.folder / "compose.site.yml")
    stack.files[1].write_text(SITE.format(project=stack.project))
    stack.api_service, stack.worker_service, stack.database_service, stack.broker_service = SERVICES.values()
    try:
        scale = ("--scale", "jobs=2", "--scale", "more-jobs=1")
        stack.compose("--profile", "many", "up", "-d", "--quiet-pull", *scale)
        stack.wait_ready()
        stack.fill(rows=2_000)
        yield stack
    finally:
        stack.down()


@pytest.fixture(scope="module")
def neighbour(stack: SampleStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a second project: a CHAP API with its data in the first one's server."""
    stack.sql("CREATE DATABASE neighbour", "postgres")
    folder = tmp_path_factory.mktemp("neighbour")
    text = f"name: {stack.project}-neighbour\n" + NEIGHBOUR.format(project=stack.project, registry=registry())
    (folder / "compose.yml").write_text(text)
    try:
        docker(folder, "compose", "up", "-d", "--wait")
        yield folder
    finally:
        docker(folder, "compose", "down")


def docker(folder: Path, *words: str, expect: int = 0) -> str:
    """Run `docker` in a folder and return what it printed."""
    done = run_in(folder, "docker", *words)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


@dataclass
class Seen:
    """All that has to be as it was, and, of the writers, how many containers run which image on which networks."""

    files: list[bytes]
    writers: dict[str, list[Any]]
    others: dict[str, list[str]]
    rows: dict[str, Any]
    neighbours: list[list[str]]

    @classmethod
    def of(cls, stack: SampleStack) -> Seen:
        """Look at the stack."""
        stack.wait_ready()
        ids = docker(stack.folder, "ps", "-aq", "--no-trunc", "--filter", f"label={PROJECT}={stack.project}").split()
        writers: dict[str, list[Any]] = {}
        others: dict[str, list[str]] = {}
        for container in sorted(json.loads(docker(stack.folder, "inspect", *ids)), key=lambda load: str(load["Name"])):
            service = container["Config"]["Labels"]["com.docker.compose.service"]
            if service in (stack.api_service, stack.worker_service, "more-jobs"):
                networks = sorted(container["NetworkSettings"]["Networks"])
                writers.setdefault(service, []).append(
                    (container["Name"], container["Image"], networks, container["State"]["Status"])
                )
            else:
                others.setdefault(service, []).append(container["Id"])
        sessions = "SELECT pid, backend_start FROM pg_stat_activity WHERE datname = 'neighbour' ORDER BY 1"
        rows = {table: mark for table, mark in stack.checksum().items() if table not in SEEDED}
        return cls([path.read_bytes() for path in stack.files], writers, others, rows, stack.sql(sessions))


PROJECT = "com.docker.compose.project"


def test_what_is_seen_of_them(stack: SampleStack, neighbour: Path) -> None:
    roles = {
        service["name"]: (service["role"], len(service["containers"])) for service in chap(stack, "status")["services"]
    }
    assert roles == {
        "malaria-api": ("api", 1),
        "jobs": ("worker", 2),
        "more-jobs": ("worker", 1),
        "data": ("database", 1),
        "queue": ("broker", 1),
    }
    # Of the second project what can be seen is shown, and what cannot be undone is not begun.
    seen = json.loads(docker(neighbour, "chap", "status", "--json"))
    assert seen["health"]["checks"]["db"] == "ok" and "'data'" in " ".join(seen["problems"])
    refused = json.loads(docker(neighbour, "chap", "upgrade", "v2.1.0", "--yes", "--json", expect=1))["error"]
    assert f"'data', outside of project '{stack.project}-neighbour'" in refused["message"]
    assert "docker chap pin" in refused["hint"] and "Nothing was changed" in refused["state"]
    refused = json.loads(docker(neighbour, "chap", "backup", "--json", expect=1))["error"]
    assert "'data'" in refused["message"] and "back it up where it runs" in refused["hint"]
    chap(stack, "backup", "--dump-only", str(neighbour / "a.dump"))
    refused = json.loads(docker(neighbour, "chap", "restore", "a.dump", "--yes", "--json", expect=1))["error"]
    assert "no such service: data" in refused["message"] and "restore it where it runs" in refused["hint"]


@pytest.mark.torture
def test_they_come_through_an_upgrade_and_back(stack: SampleStack, neighbour: Path) -> None:
    # Its API has a session once it was asked.
    docker(neighbour, "chap", "status")
    before = Seen.of(stack)
    assert len(before.neighbours) == 1
    chap(stack, "upgrade", "v2.1.0", "--yes")
    new = Seen.of(stack)
    assert (new.files[1], new.others, new.neighbours) == (before.files[1], before.others, before.neighbours)
    for service, containers in before.writers.items():
        # Names, networks and their number stay; every image is another.
        assert [(*writer[:1], *writer[2:]) for writer in new.writers[service]] == [
            (*container[:1], *container[2:]) for container in containers
        ]
        assert not {writer[1] for writer in new.writers[service]} & {container[1] for container in containers}
    chap(stack, "rollback", "--yes")
    assert Seen.of(stack) == before


@pytest.mark.torture
@pytest.mark.usefixtures("neighbour")
def test_they_come_back_from_a_version_whose_workers_end_at_once(stack: SampleStack) -> None:
    before = Seen.of(stack)
    failure = chap(stack, "upgrade", "v2.1.6", "--yes", expect=3)["error"]
    assert "worker" in failure["message"]
    assert Seen.of(stack) == before


def test_a_database_whose_container_is_gone(stack: SampleStack) -> None:
    before = stack.checksum()
    docker(stack.folder, "rm", "-f", stack.containers()["data"]["id"])
    refused = chap(stack, "upgrade", "v2.1.0", "--yes", expect=1)["error"]
    assert "The database service data has no container" in refused["message"]
    hint = chap(stack, "backup", expect=1)["error"]["hint"]
    assert "docker compose -p " in hint and " up -d --no-deps data" in hint
    command = shlex.split(refused["hint"].partition(": ")[2])
    docker(stack.folder, *command[1:])
    stack.wait_ready()
    assert stack.checksum() == before
