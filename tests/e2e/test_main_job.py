"""The main job on a stack of docker-dhis2-core's shape: look, back up, upgrade, fail, restore."""

from __future__ import annotations

import subprocess

import pytest

from tests.e2e.calls import chap
from tests.sample.stack import SampleStack, environment


def others(stack: SampleStack) -> dict[str, str]:
    return {
        name: container["id"] for name, container in stack.containers().items() if name not in ("chap", "chap-worker")
    }


# CHAP adds to these at its start, what the new version brings.
SEEDED = ("modeltemplatedb", "configuredmodeldb")


def data(stack: SampleStack, columns: dict[str, list[str]] | None = None) -> dict[str, tuple[int, str]]:
    """Return rows and checksum of every table that only people write to."""
    return {name: seen for name, seen in stack.checksum(columns=columns).items() if name not in SEEDED}


def files(stack: SampleStack) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [*stack.folder.glob("*.yml"), stack.folder / ".env"]}


def test_status_finds_every_role_whatever_its_name(bundled: SampleStack) -> None:
    seen = chap(bundled, "status")
    roles = {service["name"]: service["role"] for service in seen["services"]}
    assert roles["chap"] == "api" and roles["chap-worker"] == "worker" and roles["chap-postgres"] == "database"
    assert roles["chap-redis"] == "broker" and roles["chap-ewars"] == "model"
    assert roles["dhis2-web"] == "dhis2" and roles["dhis2-db"] == "dhis2-database"
    assert seen["health"]["level"] == "ready" and seen["schema"]["verdict"] == "complete, Alembic behind"
    assert {service["version"] for service in seen["services"] if service["role"] in ("api", "worker")} == {"2.0.0"}


def test_the_whole_job(bundled: SampleStack) -> None:
    untouched, at_first, written = others(bundled), data(bundled), files(bundled)
    login = {"DHIS2_USERNAME": "admin", "DHIS2_PASSWORD": "district"}

    # A backup holds the dump and every file of the stack, those that are included too.
    made = chap(bundled, "backup")["backup"]
    assert made["tables"] == {f"public.{name}": rows for name, rows in bundled.counts().items()}
    assert {entry["path"].rpartition("/")[2] for entry in made["files"]} == set(written)

    # A dry run changes nothing and shows two lines.
    plan = chap(bundled, "upgrade", "v2.1.0", "--dry-run")["plan"]
    assert [line for line in plan["diff"].splitlines() if line.startswith("+ ")] and files(bundled) == written

    # The upgrade changes two tags, recreates two services, and leaves the rest alone.
    done = chap(bundled, "upgrade", "2.1.0", "--yes", expect=0, **login)
    assert bundled.version() == "2.1.0" and others(bundled) == untouched
    assert {check["name"]: check["status"] for check in done["checks"]}["dhis2_chap_ping"] == "ok"
    changed = {name for name, content in files(bundled).items() if content != written[name]}
    assert changed == {"compose.chap.yml"}
    assert files(bundled)["compose.chap.yml"].replace(b"v2.1.0", b"v2.0.0") == written["compose.chap.yml"].replace(
        b"v2.1.0", b"v2.0.0"
    )
    columns = bundled.columns(done["kept_database"])
    assert data(bundled, columns) == at_first

    # A sick version comes back by itself, with the data.
    upgraded, before = files(bundled), bundled.checksum()
    failure = chap(bundled, "upgrade", "v2.1.5", "--yes", expect=3, **login)
    assert failure["error"]["code"] == "rolled-back" and "observation" in failure["error"]["message"]
    assert bundled.version() == "2.1.0" and files(bundled) == upgraded and bundled.checksum() == before
    assert others(bundled) == untouched

    # A restore brings the rows of the backup back; the newer ones stay aside.
    bundled.sql("DELETE FROM observation")
    restored = chap(bundled, "restore", made["id"], "--yes", expect=0, **login)
    assert data(bundled, columns) == at_first and others(bundled) == untouched
    assert bundled.counts(restored["kept_database"])["observation"] == 0
    assert [run["result"] for run in chap(bundled, "history")["runs"]] == ["done", "rolled back", "done"]


@pytest.mark.torture
def test_a_dump_made_by_hand_is_restored(bundled: SampleStack) -> None:
    dump = bundled.folder / "chap_core_pre-upgrade.dump"
    words = ["docker", "compose", "-f", "compose.chapkit.yml", "exec", "-T", "chap-postgres"]
    with dump.open("wb") as file:
        tool = ["pg_dump", "-U", "chap", "-Fc", "chap_core"]
        subprocess.run([*words, *tool], cwd=bundled.folder, env=environment(), stdout=file, check=True)
    before = bundled.checksum()
    bundled.sql("DELETE FROM predictionsamplesentry")
    chap(bundled, "restore", dump.name, "--yes")
    assert bundled.checksum() == before
