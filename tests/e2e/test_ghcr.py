"""Prebuilt images in a checkout: `latest` on both services becomes a release, and comes back as the very image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.calls import chap
from tests.e2e.conftest import running
from tests.e2e.faults import SEEDED
from tests.sample.stack import SampleStack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """A stack of compose.ghcr.yml; `latest` is v2.1.0 in the sample's registry."""
    stack = SampleStack.create(tmp_path_factory.mktemp("ghcr"), kind="ghcr")
    yield from running(stack)


def seen(stack: SampleStack) -> dict[str, Any]:
    """Return all that has to be as it was; of the images both name and id, and what the name stands for."""
    stack.wait_ready()
    images = {name: (container["image"], container["image_id"]) for name, container in stack.containers().items()}
    names = {name: stack.docker("image", "inspect", "-f", "{{.Id}}", of[0]).stdout for name, of in images.items()}
    rows = {table: mark for table, mark in stack.checksum().items() if table not in SEEDED}
    return {"file": stack.files[0].read_bytes(), "images": images, "names": names, "rows": rows}


@pytest.mark.torture
def test_a_sick_release_brings_the_word_and_the_image_back(stack: SampleStack) -> None:
    before = seen(stack)
    failure = chap(stack, "upgrade", "v2.1.3", "--yes", expect=3)["error"]
    assert "prediction.calibration" in failure["message"]
    assert seen(stack) == before and stack.files[0].read_text().count(":latest") == 2


def test_latest_is_pinned_and_a_rollback_undoes_it(stack: SampleStack) -> None:
    before = seen(stack)
    chap(stack, "upgrade", "v2.2.0", "--yes")
    text = stack.files[0].read_text()
    assert text.count(":v2.2.0") == 2 and ":latest" not in text and stack.version() == "2.2.0"

    # Somebody pulls: `latest` is another image now.
    for name in ("chap-core", "chap-worker"):
        image = next(
            container["image"] for container in stack.containers().values() if f"/{name}:" in container["image"]
        )
        stack.docker("tag", image, f"{image.rpartition(':')[0]}:latest")
    stack.wait_job(stack.start_job(600), "STARTED")
    back = chap(stack, "rollback", "--yes")
    assert back["notes"] == ["Jobs: 1 running, which are lost when CHAP stops; 0 waiting, which may be lost."]
    assert seen(stack) == before and stack.version() == "2.1.0"


@pytest.mark.torture
def test_backup_and_restore_with_the_version(stack: SampleStack) -> None:
    before, made = seen(stack), chap(stack, "backup")["backup"]["id"]
    chap(stack, "upgrade", "v2.2.0", "--yes")
    chap(stack, "restore", made, "--with-version", "--yes")
    assert stack.version() == "2.1.0" and stack.containers()["chap"]["image_id"] == before["images"]["chap"][1]
