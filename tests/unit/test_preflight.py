"""Single checks that come before an upgrade."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from compose_chap import preflight, preflight_drift
from compose_chap.stack import detect
from tests.fakes import WORKER, FakeEngine


def test_the_disk_of_a_folder_that_a_backup_will_make_is_the_one_above_it(tmp_path: Path) -> None:
    subject: Any = SimpleNamespace(
        database=SimpleNamespace(size=1000), server=SimpleNamespace(free_space=lambda: 1 << 40), target="",
        built=False, backups=tmp_path / "usb" / "chap" / "backups",
    )
    assert preflight._room(subject).status == "ok"


def test_where_the_files_name_another_image_than_runs_nobody_may_go_on(tmp_path: Path) -> None:
    (stack,) = detect(FakeEngine(tmp_path).containers())
    services = {one.name: SimpleNamespace(image=one.containers[0].image) for one in stack.services}
    subject: Any = SimpleNamespace(stack=stack, model=SimpleNamespace(services=services))
    assert preflight_drift._named_images(subject).status == "ok"
    services["worker"].image = f"{WORKER}:v2"
    found = preflight_drift._named_images(subject)
    assert found.failed and found.message.startswith(f"p-worker-1 runs {WORKER}:v1, the files say {WORKER}:v2.")
    assert found.hint.endswith("docker compose up -d --no-deps worker")
    assert "named_images" not in preflight.OVERRIDES
    services["worker"].image = None  # what is built has the name that Compose gives it
    assert preflight_drift._named_images(subject).status == "ok"
