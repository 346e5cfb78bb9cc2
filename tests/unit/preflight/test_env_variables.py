"""What a release takes from .env is found in what runs; and what its files would do to a stack is seen before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from compose_chap import check
from compose_chap.detection import detect
from compose_chap.edit import Edit
from compose_chap.errors import StateError
from compose_chap.model import Role, Service, Stack
from compose_chap.preflight import env_variables, release_notes, service_changes
from compose_chap.project import compose_files
from compose_chap.project.compose_files import Model
from compose_chap.project.variables import required
from compose_chap.reading import Value
from compose_chap.records.files import durable
from compose_chap.stack import releases
from compose_chap.transaction.run.facts import read_edits
from tests.unit.test_model import container

FOLDER = Path("/srv/chap-core")
HARD_CODED = {"CHAP_DATABASE_URL": "postgresql://root:not@postgres:5432/chap_core"}
RELEASE = """
services:
  chap:
    environment: &own
      CHAP_DATABASE_URL: postgresql://${POSTGRES_USER}:${POSTGRES_PASSWORD}@postgres:5432/${POSTGRES_DB}
      CHAP_ROOT_PATH: ${CHAP_ROOT_PATH:-/}
      GOOGLE: ${GOOGLE}
  worker: {environment: *own, networks: [chap-network], volumes: ['runs:/data/runs']}
  postgres:
    environment: {POSTGRES_USER: '${POSTGRES_USER}', POSTGRES_PASSWORD: '${POSTGRES_PASSWORD:?}'}
"""


def model(text: str, files: Mapping[str, str] | None = None, variables: Mapping[str, str] | None = None) -> Model:
    contents = {FOLDER / "compose.yml": text, **{FOLDER / name: file for name, file in (files or {}).items()}}

    def read(path: Path) -> bytes:
        if path not in contents:
            raise FileNotFoundError(path)
        return contents[path].encode()

    env_files = [path for path in contents if path.name == ".env"]
    return compose_files.load([FOLDER / "compose.yml"], FOLDER, env_files, variables or {}, read)


def running(url: str = HARD_CODED["CHAP_DATABASE_URL"], **database: str) -> list[Service]:
    """Return API and database as they run."""
    environment = {"POSTGRES_USER": "root", "POSTGRES_PASSWORD": "not", "POSTGRES_DB": "chap_core", **database}
    return [
        Service("chap", Role.API, (container("chap", "own-chap", "gunicorn", {"CHAP_DATABASE_URL": url}),)),
        Service("postgres", Role.DATABASE, (container("postgres", "postgres", "postgres", environment),)),
    ]


def resolved(wanted: list[Service], text: str = RELEASE, env: str = "") -> dict[str, tuple[str, str]]:
    files = {".env": env} if env else {}
    variables = env_variables.find(lambda more: model(text, files, more), wanted)
    return {variable.name: (variable.service, variable.value) for variable in variables}


def test_what_runs_tells_every_variable_that_nobody_set() -> None:
    assert resolved(running()) == {
        "POSTGRES_USER": ("chap", "root"),
        "POSTGRES_PASSWORD": ("chap", "not"),
        "POSTGRES_DB": ("chap", "chap_core"),
    }
    # The way in which CHAP writes it counts: the files put it into an address unchanged.
    assert resolved(running(url="postgresql://root:p%40ss@postgres:5432/c"))["POSTGRES_PASSWORD"] == ("chap", "p%40ss")
    assert resolved(running(url="else"))["POSTGRES_PASSWORD"] == ("postgres", "not")
    assert "POSTGRES_DB" not in resolved(running(url="else"))


def test_what_is_set_is_left_alone() -> None:
    assert resolved(running(), env="POSTGRES_USER=a\nPOSTGRES_PASSWORD=b\nPOSTGRES_DB=c\n") == {}
    # A part that is set otherwise does not fit what runs: the address tells nothing, the database does.
    assert resolved(running(), env="POSTGRES_DB=c\n") == {
        "POSTGRES_USER": ("postgres", "root"),
        "POSTGRES_PASSWORD": ("postgres", "not"),
    }
    assert set(resolved(running(), env="POSTGRES_USER=\nPOSTGRES_DB=chap_core\n")) == {
        "POSTGRES_USER",
        "POSTGRES_PASSWORD",
    }


@pytest.mark.parametrize("value", ["plain", "it's", 'a $b #c "d"', "a b", "\\t", "=", "æ", "$$", "x #"])
def test_what_is_written_is_what_compose_reads(value: str) -> None:
    edit = env_variables.edit(
        FOLDER / ".env", b"A=1", [env_variables.Variable("POSTGRES_USER", "chap", value)], "v1.1.5"
    )
    assert edit.after and edit.after.startswith(b"A=1\n#")
    read = model("services: {a: {image: '$A', environment: {U: '$POSTGRES_USER'}}}", {".env": edit.after.decode()})
    assert read.services["a"].image == "1" and read.services["a"].environment["U"] == value


def test_no_value_is_shown() -> None:
    variables = env_variables.find(
        lambda more: model(RELEASE, None, more), running("postgresql://root:hidden-1@postgres:5432/c")
    )
    edit = env_variables.edit(FOLDER / ".env", None, variables, "v1.1.5")
    shown = env_variables.diff(edit, variables) + repr(variables)
    assert "--- /dev/null" in shown and "+POSTGRES_PASSWORD=*** (as chap has it now)" in shown
    assert edit.after and b"hidden-1" in edit.after and "hidden-1" not in shown


def test_another_way_to_the_database_is_seen() -> None:
    api = running()[0]
    assert (
        env_variables.other_access(
            model(RELEASE, {".env": "POSTGRES_USER=root\nPOSTGRES_PASSWORD=not\nPOSTGRES_DB=chap_core\n"}), api
        )
        == []
    )
    example = model(RELEASE, {".env": "POSTGRES_USER=chap\nPOSTGRES_PASSWORD=chap\nPOSTGRES_DB=chap_core\n"})
    assert env_variables.other_access(example, api) == ["user", "password"]
    assert list(env_variables.url_variables(example, "chap")) == ["POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"]
    assert env_variables.other_access(model(RELEASE.replace("@postgres", "@db")), api)[-1] == "address"
    odd = {env_variables.URL: "postgresql://root:a[b@postgres:5432/chap_core"}
    service = replace(api, containers=(replace(api.containers[0], environment=odd),))
    assert env_variables.other_access(example, service) == ["user", "password"]


def test_variables_without_a_default() -> None:
    template = "$A ${B} ${C:-$D} ${E:?needed}${F} $$G ${H-} ${I?} ${J:+x}"
    assert list(required(template)) == ["A", "B", "E", "F", "I"]


def test_a_file_that_is_made_goes_again(tmp_path: Path) -> None:
    edit = Edit(tmp_path / ".env", None, b"A=1\n")
    packed = json.loads(json.dumps({"edits": durable.pack_edits([edit])}))
    assert read_edits(Value(packed, "journal.json", StateError)) == (edit,)
    durable.apply_edits([edit])
    assert (tmp_path / ".env").read_bytes() == b"A=1\n" and (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    with pytest.raises(StateError, match="changed by someone else"):
        durable.apply_edits([edit])
    assert durable.revert_edits([edit]) == [] and not (tmp_path / ".env").exists()
    assert durable.revert_edits([edit]) == []
    (tmp_path / ".env").write_bytes(b"B=2\n")
    assert durable.revert_edits([edit]) == [tmp_path / ".env"]
    back = Edit(tmp_path / ".env", b"B=2\n", None)
    durable.apply_edits([back])
    assert not (tmp_path / ".env").exists()


def test_a_network_that_the_release_no_longer_has() -> None:
    assert list(service_changes.lost_networks(model(RELEASE))) == ["network chap-network of worker"]
    defined = RELEASE + "networks: {chap-network: {}}\n"
    assert list(service_changes.lost_networks(model(defined))) == []
    mapping = "services: {a: {image: x, networks: {default: {}, away: {}}}}"
    assert list(service_changes.lost_networks(model(mapping))) == ["network away of a"]


def test_run_folders_that_nobody_copies() -> None:
    old = model("services: {worker: {volumes: [{type: bind, source: runs, target: /app/runs}]}}")
    new = model("services: {worker: {volumes: ['runs:/data/runs']}}\nvolumes: {runs: {}}")
    assert service_changes.moved(old, new, "worker") == [
        "worker: /srv/chap-core/runs at /app/runs becomes runs at /data/runs"
    ]
    assert list(service_changes.copies(old, new, "worker")) == [("/srv/chap-core/runs", "/data/runs")]
    assert list(service_changes.copies(new, old, "worker")) == []
    assert service_changes.folders(old, ["worker"]) == ["/srv/chap-core/runs"]
    assert service_changes.folders(new, ["worker"]) == []


def stack() -> Stack:
    (only,) = detect(
        [
            container("chap", "own-chap", "gunicorn", HARD_CODED),
            container("worker", "own-worker", "celery -A chap_core", HARD_CODED),
            container("postgres", "postgres", "postgres", {"POSTGRES_USER": "root"}),
        ]
    )
    return only


def notes_by_name(now: str, target: str) -> dict[str, check.Check]:
    return {note.name: note for note in release_notes.between(stack(), now, target)}


def test_releases_that_say_they_are_another() -> None:
    assert (
        releases.reported_version("v1.1.2") == releases.reported_version("v1.1.3") == "1.1.1"
        and releases.reported_version("v1.1.4") == "1.1.4"
    )
    assert "reports version 1.1.1" in notes_by_name("1.1.0", "v1.1.3")["note_number"].message
    assert "note_number" not in notes_by_name("1.1.3", "v1.1.4")
