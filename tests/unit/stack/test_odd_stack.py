"""One odd stack on the engine never hides the others, nor breaks a look at all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from compose_chap.cli.screen.status import status_document, status_text
from compose_chap.detection import detect
from compose_chap.model import Stack
from compose_chap.operations import status
from compose_chap.stack import observe
from compose_chap.stack.location import Where
from tests.fakes import FakeEngine, world

PROJECT = "com.docker.compose.project."
LABELS: tuple[dict[str, str], ...] = (
    {},
    {PROJECT + "working_dir": "relative", PROJECT + "config_files": ",,", "com.docker.compose.container-number": "x"},
    {PROJECT + "working_dir": "/a,b", PROJECT + "config_files": "\0,\u202e/x,-"},
    {PROJECT + "working_dir": ""},
    {PROJECT + "config_files": "-", PROJECT + "environment_file": ",x"},
)
URLS = (
    *("", "://:@:/", "postgresql://u:p@[::1/%zz?x=\n", "postgresql://u:p@nowhere:99999/x"),
    *("postgresql://u:p@chap/%ff", "sqlite:///x"),
)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("url", URLS)
def test_an_odd_stack_hides_no_other(labels: dict[str, str], url: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yml").touch()
    engine = FakeEngine(tmp_path)
    api, *others = engine.containers()
    odd = replace(api, id="odd", project="odd", labels=labels, environment={"CHAP_DATABASE_URL": url})
    stacks = detect([api, *others, odd])
    assert [stack.project.name for stack in stacks] == ["odd", "p"]
    here = world(engine)
    for stack in stacks:
        seen = status.look(here, stack)
        assert seen.problems or stack.project.name == "p"
        assert status_document(seen, here.clock())["project"]["name"] == stack.project.name
        assert stack.project.name in status_text(seen, here.clock())
    # It is in no folder, so whoever stands in the other's means that one.
    assert select([*stacks], tmp_path) == select([*reversed(stacks)], tmp_path / "below") == "p"


def select(stacks: list[Stack], folder: Path) -> str:
    """Return the project that is meant by somebody who stands in a folder."""
    folder.mkdir(exist_ok=True)
    return observe._select(stacks, Where((), "", None, (), folder, {})).project.name
