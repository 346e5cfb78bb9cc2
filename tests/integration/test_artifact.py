"""The built file, its checksum and its bill of materials: what is inside, and that it comes out the same again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from build import check, recipe
from compose_chap import __version__

PINNED = re.compile(r"^([a-z0-9-]+)==([^ ]+)( ; sys_platform == 'win32')?", re.MULTILINE)


def test_docker_is_answered_by_the_shell_alone() -> None:
    check.check_metadata(recipe.PLUGIN)


def test_it_holds_nothing_for_a_single_platform() -> None:
    check.check_archive(recipe.PLUGIN)


@pytest.mark.parametrize("python", [name for name in ("python3", *check.PYTHONS) if check.is_there(name)])
def test_it_starts_on_every_python_of_this_machine(python: str) -> None:
    check.check_start(recipe.PLUGIN, python)


def test_a_second_build_elsewhere_is_the_same_to_the_byte(monkeypatch: pytest.MonkeyPatch, strict_umask: None) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    again = recipe.assemble(recipe.pack([*recipe.download_requirements(), recipe.build_wheel()]))
    assert again == recipe.PLUGIN.read_bytes()


def test_shiv_made_it_and_nothing_else_starts_it() -> None:
    """See that the entries are those of shiv's archive, named by shiv, and the start is that of the recipe."""
    with zipfile.ZipFile(recipe.PLUGIN) as archive:
        entries = {name for name in archive.namelist() if not name.startswith("site-packages/")}
        assert {"__main__.py", "environment.json", "_bootstrap/__init__.py"} <= entries
        about = json.loads(archive.read("environment.json"))
        start = archive.read("__main__.py").decode()
    assert about["entry_point"] == recipe.ENTRY_POINT
    assert about["reproducible"] and about["shiv_version"] == dict(pinned("requirements-build.txt"))["shiv"]
    assert start == (recipe.RECIPE / "start.py").read_text().replace("@BUILD@", about["build_id"])


def test_nothing_of_this_machine_is_inside() -> None:
    here = [os.fsencode(recipe.RECIPE.parent), os.fsencode(sys.prefix), os.fsencode(Path.home()) + b"/"]
    traces = [*here, b"direct_url.json", b"/RECORD", b"site-packages/bin/"]
    with zipfile.ZipFile(recipe.PLUGIN) as archive:
        for entry in archive.infolist():
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            result = archive.read(entry) + entry.filename.encode()
            assert not [trace for trace in traces if trace in result], entry.filename


def test_the_checksum_is_of_this_file() -> None:
    checksum = hashlib.sha256(recipe.PLUGIN.read_bytes()).hexdigest()
    assert (recipe.OUT / "docker-chap.sha256").read_text() == f"{checksum}  docker-chap\n"


def test_the_bill_of_materials_names_what_is_pinned() -> None:
    bill = json.loads((recipe.OUT / "docker-chap.cdx.json").read_text())
    assert bill["metadata"]["component"] == {"type": "application", "name": "docker-chap", "version": __version__}
    listed = {component["name"].replace(".", "-"): component["version"] for component in bill["components"]}
    assert listed == dict(pinned("requirements.txt"))
    assert all(component["licenses"][0]["license"]["name"] for component in bill["components"])


def test_the_tests_build_with_what_the_recipe_builds_with() -> None:
    test, build = dict(pinned("requirements-dev.txt")), dict(pinned("requirements-build.txt"))
    assert build.items() <= test.items()


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-build.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_with_hashes(name: str) -> None:
    text = (recipe.RECIPE / name).read_text()
    entries = [entry for entry in re.split(r"\n(?=[a-z])", text) if not entry.startswith("#")]
    assert entries and all("==" in entry and "--hash=sha256:" in entry for entry in entries)
    assert "://" not in text and "index-url" not in text  # where a file comes from is everyone's own choice


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def pinned(name: str) -> Iterator[tuple[str, str]]:
    """Yield the name and version of each requirement that is not for Windows alone."""
    for match in PINNED.finditer((recipe.RECIPE / name).read_text()):
        if not match[3]:
            yield match[1], match[2]
