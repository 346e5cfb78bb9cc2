"""Single checks that come before an upgrade."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from compose_chap.detection import detect
from compose_chap.image import nearest_releases
from compose_chap.preflight import preflight, running_files
from compose_chap.preflight.subject import Subject
from compose_chap.records import run_records
from compose_chap.stack.chap import Jobs
from tests.fakes import WORKER, FakeEngine, world


def test_the_disk_of_a_missing_backup_folder_is_that_of_its_parent(tmp_path: Path) -> None:
    subject: Any = SimpleNamespace(
        database=SimpleNamespace(size=1000),
        server=SimpleNamespace(free_space=lambda: 1 << 40),
        target="",
        built=False,
        backups=tmp_path / "usb" / "chap" / "backups",
    )
    assert preflight._room(subject).status == "ok"
    subject.database.size = 1 << 60
    subject.server.free_space = lambda: 1 << 62
    result = preflight._room(subject)
    assert result.status == "fail" and result.message.startswith(f"{tmp_path} has ") and "-o FOLDER" in result.hint


def test_where_the_files_name_another_image_than_runs_nobody_may_go_on(tmp_path: Path) -> None:
    (stack,) = detect(FakeEngine(tmp_path).containers())
    services = {service.name: SimpleNamespace(image=service.containers[0].image) for service in stack.services}
    subject: Any = SimpleNamespace(stack=stack, model=SimpleNamespace(services=services))
    assert running_files._named_images(subject).status == "ok"
    services["worker"].image = f"{WORKER}:v2"
    result = running_files._named_images(subject)
    assert result.status == "fail" and result.message.startswith(
        f"p-worker-1 runs {WORKER}:v1, the files say {WORKER}:v2."
    )
    assert f"docker compose -p p --project-directory {tmp_path} -f " in result.hint
    assert result.hint.endswith(" up -d --no-deps worker")
    assert "named_images" not in preflight.OVERRIDES
    services["worker"].image = None  # what is built has the name that Compose gives it
    assert running_files._named_images(subject).status == "ok"


def test_while_a_run_is_open_the_only_hint_is_recover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("version", "compose_version"):
        monkeypatch.setattr(FakeEngine, method, lambda engine: "28.5.2")
    engine, nothing = FakeEngine(tmp_path), SimpleNamespace(services={})
    engine.stop(next(id for id, box in engine.boxes.items() if box.service == "worker"))
    (stack,) = detect(engine.containers())
    subject = Subject(world(engine), stack, cast(Any, nothing), "", cast(Any, None), tmp_path)

    def hints() -> dict[str, str]:
        return {check.name: check.hint for check in preflight.examine(subject) if check.failed}

    assert hints() == {"stack": "docker compose -p p start worker"}
    run_records.begin_run(tmp_path, "upgrade", {}, world(engine).clock)
    assert list(hints().items()) == [("interrupted_run", "Finish or undo it first: docker chap recover"), ("stack", "")]


@pytest.mark.parametrize(
    ("wanted", "result"),
    [
        ("v9.0.0", ["v2.2.0", "v2.1.10", "v2.1.4"]),
        ("v1.4.0", ["v2.0.0", "v2.1.4", "v2.1.10"]),
        ("v2.1.33", ["v2.1.10", "v2.2.0", "v2.1.4"]),
    ],
)
def test_the_nearest_versions_are_so_by_their_order(wanted: str, result: list[str]) -> None:
    assert nearest_releases(wanted, ["v2.0.0", "v2.1.4", "v2.1.10", "v2.2.0"]) == result
    assert nearest_releases(wanted, []) == []


def test_jobs_that_chap_queued_by_itself_do_not_stand_in_the_way() -> None:
    subject: Any = SimpleNamespace(jobs=Jobs((), (), (), ("w",), ("c", "d")))
    check = preflight._jobs(subject)
    assert check.status == "ok" and "CHAP queued by itself" in check.message and check.details["own"] == ("c", "d")
    subject.jobs = Jobs(("a",), (), (), ("w",), ("c",))
    check = preflight._jobs(subject)
    assert (
        check.status == "fail"
        and check.message.startswith("Jobs: 1 running, 0 waiting.")
        and "by itself" in check.message
    )
    subject.jobs = Jobs((), (), ("z",), ("w",))
    assert preflight._jobs(subject).message == "No job is running. 1 more are listed as running but are dead."
