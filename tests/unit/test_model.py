"""Which container is what, in the shapes that upstream ships and operators make of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from compose_chap.detection import classify, detect, project
from compose_chap.errors import StackError, UsageError
from compose_chap.image import Reference, release_key, release_tag
from compose_chap.model import Container, DatabaseUrl, Role, Stack
from compose_chap.stack.observe import choose

URL = "postgresql://chap:p%40ss@{host}:5432/chap_core"


def container(
    service: str,
    image: str,
    command: str = "",
    environment: Mapping[str, str] | None = None,
    *,
    project: str = "chap",
    state: str = "running",
    oneoff: str = "False",
    number: int = 1,
) -> Container:
    """Return a container as the engine would describe it."""
    name = f"{project}-{service}-{number}"
    return Container(
        id=f"id of {name}",
        name=name,
        project=project,
        service=service,
        image=image,
        image_id=f"sha256:{image}",
        state=state,
        health="",
        exit_status=0,
        restarts=0,
        started_at="2026-11-23T04:00:00Z",
        command=tuple(command.split()),
        names=frozenset({name, service}),
        addresses=frozenset(),
        labels={
            "com.docker.compose.oneoff": oneoff,
            "com.docker.compose.project.working_dir": f"/srv/{project}",
            "com.docker.compose.project.config_files": f"/srv/{project}/compose.yml,/srv/{project}/more.yml",
        },
        environment=environment or {},
    )


def bundled() -> list[Container]:
    """Return the containers of docker-dhis2-core."""
    own = {"CHAP_DATABASE_URL": URL.format(host="chap-postgres")}
    return [
        container("chap", "ghcr.io/dhis2-chap/chap-core:v2.1.0", "gunicorn chap_core.rest_api.app:app", own),
        container("chap-worker", "ghcr.io/dhis2-chap/chap-worker:v2.1.0", "celery -A chap_core worker", own),
        container("chap-redis", "valkey/valkey:8", "valkey-server"),
        container("chap-postgres", "postgres:17", "postgres", {"POSTGRES_USER": "chap", "POSTGRES_DB": "chap_core"}),
        container(
            "chap-ewars", "ghcr.io/chap-models/chapkit_ewars_model:latest", "", {"SERVICEKIT_ORCHESTRATOR_URL": "x"}
        ),
        container("dhis2-web", "dhis2/core:2.42.5", "catalina.sh run"),
        container("dhis2-db", "ghcr.io/baosystems/postgis:16-3.5", "postgres", {"POSTGRES_DB": "dhis"}),
        container("dhis2-analytics", "alpine", "sh -c analytics", state="exited"),
        container("chap-route-init", "alpine", "sh -c curl", {"CHAP_ROUTE_URL": "x"}, state="exited"),
    ]


def only(containers: list[Container]) -> Stack:
    """Return the one stack among these containers."""
    (stack,) = detect(containers)
    return stack


def roles(stack: Stack) -> dict[str, Role]:
    return {service.name: service.role for service in stack.services}


def test_the_bundled_stack() -> None:
    stack = only(bundled())
    assert roles(stack) == {
        "chap": Role.API,
        "chap-worker": Role.WORKER,
        "chap-redis": Role.BROKER,
        "chap-postgres": Role.DATABASE,
        "chap-ewars": Role.MODEL,
        "dhis2-web": Role.DHIS2,
        "dhis2-db": Role.DHIS2_DATABASE,
        "dhis2-analytics": Role.OTHER,
        "chap-route-init": Role.OTHER,
    }
    assert [service.name for service in stack.writers] == ["chap", "chap-worker"]
    assert [str(file) for file in stack.project.files] == ["/srv/chap/compose.yml", "/srv/chap/more.yml"]


def test_a_source_checkout_where_images_are_named_after_the_folder() -> None:
    own = {"CHAP_DATABASE_URL": "postgresql://root:thisisnotgoingtobeexposed@postgres:5432/chap_core"}
    stack = only(
        [
            container("chap", "chap-core-chap", "gunicorn -c gunicorn.conf.py chap_core.rest_api.app:app", own),
            container("worker", "chap-core-worker", "celery -A chap_core.rest_api.celery_tasks worker", own),
            container("postgres", "postgres", "postgres", {"POSTGRES_USER": "root"}),
            container("redis", "redis:7", "redis-server"),
        ]
    )
    assert roles(stack) == {
        "chap": Role.API,
        "worker": Role.WORKER,
        "postgres": Role.DATABASE,
        "redis": Role.BROKER,
    }
    assert (stack.access.name, stack.access.owner, stack.access.admin) == ("chap_core", "root", "root")


def test_services_that_were_renamed() -> None:
    renamed = [
        container(
            "malaria-api",
            "harbor.moh.example:5000/ghcr/dhis2-chap/chap-core:v2.0.0",
            "gunicorn app",
            {"CHAP_DATABASE_URL": URL.format(host="data")},
        ),
        container("jobs", "harbor.moh.example:5000/mirror/chap-worker:v2.0.0", "celery -A chap_core worker"),
        container("data", "registry.local/own-postgres:17", "postgres", {"POSTGRES_USER": "chap"}),
    ]
    assert roles(only(renamed)) == {"malaria-api": Role.API, "jobs": Role.WORKER, "data": Role.DATABASE}


def test_scaled_workers_are_a_single_service() -> None:
    containers = bundled() + [container("chap-worker", "ghcr.io/dhis2-chap/chap-worker:v2.1.0", "celery", number=2)]
    (worker,) = only(containers).of(Role.WORKER)
    assert [container.name for container in worker.containers] == ["chap-chap-worker-1", "chap-chap-worker-2"]


def test_run_containers_and_other_projects_do_not_count() -> None:
    oneoff = container("chap", "ghcr.io/dhis2-chap/chap-core:v2.1.0", oneoff="True", project="tried")
    other = container("web", "nginx", project="other")
    assert [stack.project.name for stack in detect([*bundled(), oneoff, other])] == ["chap"]


def test_a_database_elsewhere_is_named() -> None:
    containers = [container for container in bundled() if container.service != "chap-postgres"]
    with pytest.raises(StackError, match="CHAP's database is at 'chap-postgres'"):
        only(containers).access


def test_a_database_under_another_of_its_names() -> None:
    # A container_name, or an alias on a network, is as good as the name of the service.
    for host in ("their-database", "db.hospital"):
        own = {"CHAP_DATABASE_URL": URL.format(host=host)}
        database = replace(container("data", "postgres:17"), names=frozenset({"data", "their-database", "db.hospital"}))
        stack = only([container("chap", "x/chap-core:v2.1.0", "gunicorn", own), database])
        assert stack.database.name == "data" and stack.database_host == host


def test_a_server_that_dhis2_uses_too_is_chaps_database() -> None:
    own = {"CHAP_DATABASE_URL": URL.format(host="db")}
    shared = container("db", "postgis/postgis:16-3.5", "postgres", {"POSTGRES_DB": "dhis2", "POSTGRES_USER": "dhis"})
    stack = only([container("chap", "x/chap-core:v2.1.0", "gunicorn", own), shared])
    assert roles(stack)["db"] is Role.DATABASE
    assert (stack.access.name, stack.access.owner, stack.access.admin) == ("chap_core", "chap", "dhis")


@pytest.mark.parametrize(
    ("url", "user", "password", "host", "port", "database"),
    [
        ("postgresql://chap:p%40ss@db:5432/chap_core", "chap", "p@ss", "db", "5432", "chap_core"),
        ("postgresql+psycopg2://root:[a]b/c#d?e:f@CHAP-DB/x?sslmode=off", "root", "[a]b/c#d?e:f", "CHAP-DB", "", "x"),
        ("postgresql://chap:\u2100\uff0f@db/x", "chap", "\u2100\uff0f", "db", "", "x"),
        ("postgresql://[::1]:5432/x", "", "", "::1", "5432", "x"),
        ("postgresql://db", "", "", "db", "", ""),
        ("nonsense", "", "", "", "", ""),
    ],
)
def test_a_database_s_address_is_read_as_sqlalchemy_does(
    url: str, user: str, password: str, host: str, port: str, database: str
) -> None:
    result = DatabaseUrl.of({"CHAP_DATABASE_URL": url})
    assert result == DatabaseUrl(user, password, host, port, database)
    assert not password or password not in repr(result)


def test_a_password_or_a_name_in_capitals_hides_no_stack() -> None:
    for host in ("CHAP-DB", "chap-db"):
        own = {"CHAP_DATABASE_URL": f"postgresql://chap:a[b@{host}:5432/chap_core"}
        stack = only([container("chap", "x/chap-core:v2.1.0", "gunicorn", own), container("CHAP-DB", "postgres:17")])
        assert stack.database.name == "CHAP-DB" and stack.database_host == host
        assert stack.database_url.password == "a[b" and stack.access.name == "chap_core"
    own["CHAP_DATABASE_URL"] = "postgresql://chap:pw@Gone-DB/chap_core"
    with pytest.raises(StackError, match="'Gone-DB'") as refused:
        only([container("chap", "x/chap-core:v2.1.0", "gunicorn", own)]).database
    assert "--no-deps Gone-DB" in refused.value.hint


def test_choosing() -> None:
    two = detect(bundled() + [container("chap", "x/chap-core:v2.0.0", project="second")])
    assert choose(two, "second").project.name == "second"
    with pytest.raises(StackError, match="several CHAP stacks on this engine: chap, second"):
        choose(two)
    with pytest.raises(StackError, match="No CHAP stack found.*'third'"):
        choose(two, "third")


def test_the_password_never_shows() -> None:
    message = repr(only(bundled()))
    assert "p%40ss" not in message and "CHAP_DATABASE_URL" not in message


@pytest.mark.parametrize(
    ("text", "repository", "tag", "digest"),
    [
        ("postgres", "postgres", "", ""),
        ("postgres:17", "postgres", "17", ""),
        ("registry.local:5000/a/chap-core", "registry.local:5000/a/chap-core", "", ""),
        ("registry.local:5000/a/chap-core:v2", "registry.local:5000/a/chap-core", "v2", ""),
        ("a/b@sha256:12", "a/b", "", "sha256:12"),
        ("a:5000/b:v1@sha256:12", "a:5000/b", "v1", "sha256:12"),
    ],
)
def test_references(text: str, repository: str, tag: str, digest: str) -> None:
    reference = Reference.parse(text)
    assert (reference.repository, reference.tag, reference.digest) == (repository, tag, digest) and str(
        reference
    ) == text


def test_releases() -> None:
    assert release_tag("2.1.0") == release_tag("v2.1.0") == "v2.1.0"
    assert sorted(["v2.10.0", "v2.9.0"], key=lambda tag: release_key(tag) or ()) == ["v2.9.0", "v2.10.0"]
    assert release_key("latest") is None
    for wrong in ("latest", "v2.1", "v2.1.0-rc1", "../v2.1.0", "v2.1.0\n"):
        with pytest.raises(UsageError):
            release_tag(wrong)


def test_a_worker_by_its_dockerfile() -> None:
    assert classify("", ["sh", "start.sh"], {}, "Dockerfile.worker") is Role.WORKER


@pytest.mark.parametrize("host", ["pg", "PG", "172.20.0.9", "fd00::9", "chap-db-1", "db.chap_default", "db.", "0a1b2c"])
def test_the_database_may_have_any_name_that_chap_knows(host: str) -> None:
    written = f"[{host}]" if ":" in host else host
    api = container("chap", "chap-core:v2.0.0", "gunicorn", {"CHAP_DATABASE_URL": URL.format(host=written)})
    database = replace(
        container("db", "postgres:17"),
        names=frozenset({"chap-db-1", "db", "db.chap_default", "0a1b2c"}),
        addresses=frozenset({"172.20.0.9", "fd00::9"}),
    )
    assert only([replace(api, links={"pg": "chap-db-1"}), database]).database.name == "db"


def test_a_name_that_leads_to_an_address_is_followed_to_its_container() -> None:
    api = container("chap", "chap-core:v2.0.0", "gunicorn", {"CHAP_DATABASE_URL": URL.format(host="data.moh")})
    database = replace(container("db", "postgres:17"), addresses=frozenset({"172.20.0.9"}))
    assert only([replace(api, links={"data.moh": "172.20.0.9"}), database]).database.name == "db"
    other = only([replace(api, links={"data.moh": "172.20.0.8"}), database])
    with pytest.raises(StackError, match="no container of that name"):
        _ = other.database


@pytest.mark.parametrize(
    ("image", "command"),
    [
        ("edoburu/pgbouncer:1.23", ""),
        ("bitnami/pgbouncer", ""),
        ("pgpool/pgpool:4", ""),
        ("debian", "/usr/sbin/pgbouncer /etc/x.ini"),
    ],
)
def test_a_pooler_is_called_by_its_name(image: str, command: str) -> None:
    api = container("chap", "chap-core:v2.0.0", "gunicorn", {"CHAP_DATABASE_URL": URL.format(host="pool")})
    result = only([api, container("pool", image, command), container("db", "postgres:17")])
    with pytest.raises(StackError, match="through 'pool'.*a connection pooler"):
        _ = result.database


@pytest.mark.parametrize(
    ("directory", "files"),
    [
        ("/srv/chap,prod", ["/srv/chap,prod/compose.yml", "/etc/site.yml"]),
        ("/srv/a,b,/c,", ["/srv/a,b,/c,/compose.yml", "/srv/a,b,/c,/x,y.yml", "/z"]),
        ("/srv/chap", ["/srv/chap/compose.yml", "/srv/chap/more.yml"]),
        ("/srv/chap", ["/else/where,x/compose.yml", "-"]),
        ("/", ["/compose.yml"]),
        ("/srv/chap", []),
    ],
)
def test_a_comma_in_a_folder_parts_no_file_in_two(directory: str, files: list[str]) -> None:
    prefix = "com.docker.compose.project."
    labels = {f"{prefix}working_dir": directory, f"{prefix}config_files": ",".join(files)}
    result = project("chap", labels | {f"{prefix}environment_file": ",".join(files)})
    assert [str(path) for path in result.files] == files == [str(path) for path in result.env_files]


def test_a_name_of_a_database_is_cut_as_postgresql_cuts_it() -> None:
    url = URL.replace("chap_core", "é" * 40)
    api = container("chap", "chap-core:v2.0.0", "gunicorn", {"CHAP_DATABASE_URL": url.format(host="db")})
    assert only([api, container("db", "postgres:17")]).access.name == "é" * 31


def test_the_default_administrator_is_that_of_the_image() -> None:
    api = container("chap", "chap-core:v2.0.0", "gunicorn", {"CHAP_DATABASE_URL": URL.format(host="db")})
    access = only([api, container("db", "postgres:17", "", {"POSTGRES_PASSWORD": "x"})]).access
    assert (access.owner, access.admin) == ("chap", "postgres")
