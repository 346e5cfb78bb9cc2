"""What the procedures rely on, asked of the engine in memory and of the real one alike."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from compose_chap.detection import detect
from compose_chap.engine.engine import Engine
from compose_chap.errors import EngineError
from compose_chap.model import Project, Stack
from compose_chap.postgres.server import Server
from compose_chap.processes.process import check
from tests.fake_server import FakeServer
from tests.fakes import API, WORKER, FakeEngine
from tests.sample.stack import SampleStack, environment


@dataclass
class Site:
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
        kind = FakeServer if isinstance(self.engine, FakeEngine) else Server
        return kind(self.engine, stack.database.containers[0].id, stack.access.admin)


@pytest.fixture(scope="module", params=["in memory", "real"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give a stack on an engine of each kind."""
    folder = tmp_path_factory.mktemp("contract")
    if request.param == "in memory":
        (folder / "compose.yml").write_text(f"chap {API}:v1\nworker {WORKER}:v1\ndb postgres:17\nredis valkey:8\n")
        yield Site(FakeEngine(folder), "p", folder)
        return
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        stack = SampleStack.create(folder)
        try:
            stack.up()
            yield Site(Engine(), stack.project, folder)
        finally:
            stack.down()


def test_a_stopped_container_keeps_its_id_and_cannot_be_asked(site: Site) -> None:
    worker = site.stack.writers[1].containers[0]
    site.engine.stop(worker.id)
    stopped = site.engine.container(worker.id)
    assert stopped and stopped.state == "exited" and stopped.image_id == worker.image_id
    with pytest.raises(EngineError):
        site.engine.run(worker.id, ["true"])
    site.engine.start(worker.id)
    started = site.engine.container(worker.id)
    assert started and started.running
    assert site.engine.container("no-such-container") is None


def test_an_image_can_get_another_tag(site: Site) -> None:
    image = site.stack.api.containers[0].image_id
    name = f"docker-chap/kept:{site.project}-20260101T000000Z-chap"
    site.engine.tag(image, *name.split(":"))
    assert site.engine.tags("docker-chap/kept")[name] == image
    site.engine.untag(name)
    site.engine.untag(name)
    assert name not in site.engine.tags("docker-chap/kept")
    assert site.engine.image(image) and site.engine.image("no-such:image") is None


def test_a_database_is_copied_renamed_and_dropped(site: Site) -> None:
    server, access = site.server, site.stack.access
    assert server.ready() and access.name in server.databases()
    site.engine.stop(site.stack.api.containers[0].id)
    site.engine.stop(site.stack.writers[1].containers[0].id)
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


HOSTILE = """
CREATE ROLE ordinary;
CREATE DATABASE hostile OWNER ordinary;
ALTER DATABASE hostile SET "app.user" = 'it''s';
SET SESSION AUTHORIZATION ordinary;
ALTER DATABASE hostile SET search_path = '$user', public, 'a, "b"';
ALTER DATABASE hostile SET temp_tablespaces = '';
SELECT set_config('local_preload_libraries', 'x; ALTER ROLE ordinary SUPERUSER; --, "y; z"', false);
ALTER DATABASE hostile SET local_preload_libraries FROM CURRENT;
"""


def test_settings_that_mean_harm_are_carried_as_what_they_are(site: Site) -> None:
    server = site.server
    if isinstance(site.engine, FakeEngine):
        pytest.skip("it has no SQL")
    server.command(HOSTILE)
    before = settings_of(server, "hostile")
    assert len(before) == 4
    server.copy("hostile", "carried", "ordinary")
    assert settings_of(server, "carried") == before
    assert server.query("SELECT rolsuper FROM pg_roles WHERE rolname = 'ordinary'") == [[False]]
    server.drop("carried")
    server.drop("hostile")
    server.end_own_sessions()


def settings_of(server: Server, database: str) -> list[str]:
    """Return the settings of a database, without the quotes around names that need not have them."""
    asked = "SELECT unnest(setconfig) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase"
    values = server.query(f"{asked} WHERE datname = '{database}' ORDER BY 1")
    return [str(value).replace('"', "") for (value,) in values]


def test_only_the_named_service_is_recreated_and_only_when_it_differs(site: Site) -> None:
    api, others = site.stack.api, {service.name: service.containers[0].id for service in site.stack.services}
    up = ("up", "-d", "--no-deps", "--no-build", "--pull", "never", api.name)
    assert site.engine.compose(site.stack.project, *up).status == 0
    assert {service.name: service.containers[0].id for service in site.stack.services} == others

    file = site.folder / "compose.yml"
    file.write_text(file.read_text().replace("chap-core:v1", "chap-core:v2").replace("core:v2.0.0", "core:v2.1.0"))
    config = site.engine.compose_config(site.stack.project)["services"][api.name]["image"]
    assert config != api.containers[0].image
    if not site.engine.image(config):
        repository, _, tag = config.rpartition(":")
        site.engine.pull(repository, tag, "linux/amd64", lambda done, total: None)
    assert site.engine.compose(site.stack.project, *up).status == 0
    now = {service.name: service.containers[0] for service in site.stack.services}
    assert {name for name, container in now.items() if container.id != others[name]} == {api.name}
    assert now[api.name].name == api.containers[0].name and now[api.name].image == config and now[api.name].running


PROFILES = """
services:
  db: {image: a, profiles: [bundled]}
  chap: {image: b, depends_on: [db], deploy: {replicas: 2}}
  worker: {image: c, profiles: [work], depends_on: [chap], container_name: the-worker}
  debug: {image: d, profiles: [debug]}
"""


def test_services_of_every_profile_are_known_and_only_named_services_are_created(
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
