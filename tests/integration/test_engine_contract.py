"""What the procedures rely on, asked of the engine in memory and of the real one alike."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from compose_chap.engine.engine import Engine
from compose_chap.engine.process import check
from compose_chap.errors import EngineError
from compose_chap.model import Project, Stack, detect
from compose_chap.postgres.server import Server
from tests.fakes import API, WORKER, FakeEngine
from tests.sample.stack import SampleStack, environment


@dataclass
class Place:
    """An engine with a CHAP stack on it."""

    engine: Engine
    project: str
    folder: Path

    @property
    def stack(self) -> Stack:
        """The stack as it is now."""
        return detect(self.engine.containers(self.project))[0]

    @property
    def server(self) -> Server:
        """Its PostgreSQL."""
        stack = self.stack
        return Server(self.engine, stack.database.containers[0].id, stack.access.admin)


@pytest.fixture(scope="module", params=["in memory", "real"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Give a stack on an engine of each kind."""
    folder = tmp_path_factory.mktemp("contract")
    if request.param == "in memory":
        (folder / "compose.yml").write_text(f"chap {API}:v1\nworker {WORKER}:v1\ndb postgres:17\nredis valkey:8\n")
        yield Place(FakeEngine(folder), "p", folder)
        return
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        stack = SampleStack.create(folder)
        try:
            stack.up()
            yield Place(Engine(), stack.project, folder)
        finally:
            stack.down()


def test_a_stopped_container_keeps_its_id_and_cannot_be_asked(place: Place) -> None:
    worker = place.stack.writers[1].containers[0]
    place.engine.stop(worker.id)
    stopped = place.engine.container(worker.id)
    assert stopped and stopped.state == "exited" and stopped.image_id == worker.image_id
    with pytest.raises(EngineError):
        place.engine.run(worker.id, ["true"])
    place.engine.start(worker.id)
    started = place.engine.container(worker.id)
    assert started and started.running
    assert place.engine.container("no-such-container") is None


def test_an_image_can_have_one_more_name(place: Place) -> None:
    image = place.stack.api.containers[0].image_id
    name = f"docker-chap/kept:{place.project}-20260101T000000Z-chap"
    place.engine.tag(image, *name.split(":"))
    assert place.engine.tags("docker-chap/kept")[name] == image
    place.engine.untag(name)
    place.engine.untag(name)
    assert name not in place.engine.tags("docker-chap/kept")
    assert place.engine.image(image) and place.engine.image("no-such:image") is None


def test_a_database_is_copied_renamed_and_dropped(place: Place) -> None:
    server, access = place.server, place.stack.access
    assert server.ready() and access.name in server.databases()
    place.engine.stop(place.stack.api.containers[0].id)
    place.engine.stop(place.stack.writers[1].containers[0].id)
    rows = server.counts(access.name)
    server.copy(access.name, "kept_one", access.owner)
    assert server.exists("kept_one") and server.counts("kept_one") == rows
    server.carry(access.name, "kept_one")
    server.rename((access.name, "failed_one"), ("kept_one", access.name))
    assert server.exists("failed_one") and not server.exists("kept_one") and server.counts(access.name) == rows
    server.drop("failed_one")
    server.drop("failed_one")
    assert not server.exists("failed_one")
    server.end_own_sessions()


def test_only_the_named_service_is_made_anew_and_only_when_it_differs(place: Place) -> None:
    api, others = place.stack.api, {service.name: service.containers[0].id for service in place.stack.services}
    up = ("up", "-d", "--no-deps", "--no-build", "--pull", "never", api.name)
    assert place.engine.compose(place.stack.project, *up).status == 0
    assert {service.name: service.containers[0].id for service in place.stack.services} == others

    file = place.folder / "compose.yml"
    file.write_text(file.read_text().replace("chap-core:v1", "chap-core:v2").replace("core:v2.0.0", "core:v2.1.0"))
    config = place.engine.compose_config(place.stack.project)["services"][api.name]["image"]
    assert config != api.containers[0].image
    if not place.engine.image(config):
        repository, _, tag = config.rpartition(":")
        place.engine.pull(repository, tag, "linux/amd64", lambda done, total: None)
    assert place.engine.compose(place.stack.project, *up).status == 0
    now = {service.name: service.containers[0] for service in place.stack.services}
    assert {name for name, one in now.items() if one.id != others[name]} == {api.name}
    assert now[api.name].name == api.containers[0].name and now[api.name].image == config and now[api.name].running


PROFILES = """
services:
  db: {image: a, profiles: [bundled]}
  chap: {image: b, depends_on: [db], deploy: {replicas: 2}}
  worker: {image: c, profiles: [work], depends_on: [chap], container_name: the-worker}
  debug: {image: d, profiles: [debug]}
"""


def test_services_of_every_profile_are_known_and_only_named_ones_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    (tmp_path / "compose.yml").write_text(PROFILES)
    engine, project = Engine(), Project("docker-chap-test-profiles", tmp_path, (tmp_path / "compose.yml",))
    services = {"db", "chap", "worker", "debug"}
    assert set(engine.compose_config(project)["services"]) == services
    hashes = check(engine.compose(project, "config", "--hash", "*"), "config")
    assert {line.split()[0] for line in hashes.splitlines()} == services
    scale = ("--scale=chap=1", "--scale=worker=1")
    words = ("--dry-run", "up", "-d", "--no-deps", "--no-build", "--pull", "never")
    up = engine.compose(project, *words, *scale, "chap", "worker")
    assert up.status == 0, up.stderr
    made = set(re.findall(r"Container (\S+)", up.stderr + up.stdout))
    assert made == {"docker-chap-test-profiles-chap-1", "the-worker"}
