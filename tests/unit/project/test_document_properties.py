"""What holds for every Compose project: only tags change, and what is done can be undone."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compose_chap.errors import ComposeFileError
from compose_chap.image import Reference
from compose_chap.project import compose_files, pin
from compose_chap.project.compose_files import Model
from tests.unit.project.composefiles.projects import Project
from tests.unit.project.composefiles.projects import project as random_project

ROOT = Path("/p")
projects = st.randoms(use_true_random=False).map(random_project)
tags = st.sampled_from(["v2.1.0", "v3", "v10.0.0-rc.1"])
digests = st.sampled_from(["", "sha256:" + "f" * 64])

few = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def load(case: Project, files: dict[Path, bytes]) -> Model:
    def read(path: Path) -> bytes:
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    layout = compose_files.discover(
        ROOT / case.directory,
        case.environ,
        files.__contains__,
        read,
        files=[ROOT / name for name in case.compose_files],
        env_files=[ROOT / name for name in case.env_files],
    )
    return compose_files.load(layout.files, layout.project_directory, layout.env_files, case.environ, read)


def contents(case: Project) -> dict[Path, bytes]:
    return {ROOT / name: content for name, content in case.files.items()}


def pinned(case: Project, files: dict[Path, bytes], references: dict[str, pin.NewTag]) -> dict[Path, bytes]:
    return files | {edit.path: edit.after or b"" for edit in pin.edits(load(case, files), references)}


def references(case: Project, tag: str, digest: str) -> dict[str, pin.NewTag]:
    return dict.fromkeys(case.wanted, pin.NewTag(tag, digest))


@few
@given(projects, tags, digests)
def test_only_the_tags_change(case: Project, tag: str, digest: str) -> None:
    files = contents(case)
    try:
        after = pinned(case, files, references(case, tag, digest))
    except ComposeFileError:
        return
    for path, content in files.items():
        old, new = (re.split(rb"([\w.@:-]+)", text) for text in (content, after[path]))
        changed = [second for first, second in zip(old, new, strict=True) if first != second]
        assert len(changed) <= len(case.wanted)
        assert all(tag.lstrip("v").encode() in word for word in changed)


@few
@given(projects, tags, digests)
def test_only_the_images_of_the_wanted_services_differ(case: Project, tag: str, digest: str) -> None:
    files = contents(case)
    before = load(case, files)
    try:
        after = load(case, pinned(case, files, references(case, tag, digest)))
    except ComposeFileError:
        return
    assert list(before.services) == list(after.services)
    for name, service in before.services.items():
        if name in case.wanted:
            image = Reference.parse(after.services[name].image or "")
            assert (image.tag, image.digest) == (tag, digest)
            assert image.repository == Reference.parse(service.image or "").repository
        else:
            assert after.services[name].image == service.image
        assert after.services[name].environment == service.environment


@few
@given(projects, tags, digests)
def test_a_second_pin_is_a_no_op(case: Project, tag: str, digest: str) -> None:
    wanted = references(case, tag, digest)
    try:
        after = pinned(case, contents(case), wanted)
    except ComposeFileError:
        return
    assert pin.edits(load(case, after), wanted) == ()


@few
@given(projects, tags)
def test_a_round_trip_is_the_identity(case: Project, tag: str) -> None:
    files = contents(case)
    images = {name: Reference.parse(load(case, files).services[name].image or "") for name in case.wanted}
    if not all(image.tag for image in images.values()):
        return  # a tag that was not there cannot come back
    back = {name: pin.NewTag(image.tag, image.digest) for name, image in images.items()}
    forth = {name: pin.NewTag(tag, image.digest and "sha256:" + "f" * 64) for name, image in images.items()}
    try:
        after = pinned(case, files, forth)
    except ComposeFileError:
        return
    assert pinned(case, after, back) == files


@few
@given(projects, st.data())
def test_a_damaged_project_raises_nothing_but_our_own_error(case: Project, data: st.DataObject) -> None:
    files = contents(case)
    path = data.draw(st.sampled_from(sorted(files)))
    start = data.draw(st.integers(0, len(files[path])))
    end = data.draw(st.integers(start, min(start + 20, len(files[path]))))
    files[path] = files[path][:start] + data.draw(st.binary(max_size=10)) + files[path][end:]
    try:
        pinned(case, files, references(case, "v2.1.0", ""))
    except ComposeFileError:
        pass


@pytest.mark.parametrize("name", ["compose.yml", ".env"])
@few
@given(st.binary(max_size=200) | st.text("services: {}[]&*!|>-?'\"\\$%@`#,\n\t\r~<a\x00\x85\u2028").map(str.encode))
def test_random_bytes_raise_nothing_but_our_own_error(name: str, content: bytes) -> None:
    compose = b"services: {chap: {image: 'chap:$V'}, worker: {image: 'w:v1'}}"
    case = Project(files={"compose.yml": compose, name: content})
    try:
        pinned(case, contents(case), references(case, "v2.1.0", ""))
    except ComposeFileError:
        pass


def test_the_random_projects_are_mostly_edited() -> None:
    """The properties above would hold for a tool that refuses everything."""
    edited = 0
    for seed in range(200):
        case = random_project(Random(seed))
        try:
            edited += bool(pin.edits(load(case, contents(case)), references(case, "v2.1.0", "sha256:" + "f" * 64)))
        except ComposeFileError:
            pass
    assert edited >= 160
