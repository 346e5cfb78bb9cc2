"""What stands in the way of a way back: settings that differ by name, and nothing else."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from compose_chap.compose_labels import CONFIG_HASH
from compose_chap.errors import StateError
from compose_chap.model import Container, Project
from compose_chap.processes.process import Finished
from compose_chap.stack import would_differ
from tests.unit.stack.test_drift import CONFIG, CONTAINER, IMAGE, SERVICE

PROJECT = Project("p", Path("/srv"), (Path("/srv/compose.yml"),))
RUNNING = cast(Container, SimpleNamespace(id="1", name="p-chap-1", labels={CONFIG_HASH: "recorded"}))


@dataclass
class Compose:
    """An engine with a Compose that gives a service this hash, or fails."""

    service: dict[str, Any]
    hash: str = "another"
    fails: bool = False
    would: str = "Recreate"

    def compose(self, project: Project, *words: str) -> Finished:
        if words[0] == "--dry-run":
            return Finished(0, "", f" DRY-RUN MODE -  Container p-chap-1  {self.would}\n")
        return Finished(1, "", "broken") if self.fails else Finished(0, f"chap {self.hash}\n", "")

    def compose_config(self, project: Project) -> dict[str, Any]:
        return {**CONFIG, "services": {"chap": self.service}}

    def creation(self, identity: str) -> tuple[dict[str, Any], dict[str, Any]]:
        return CONTAINER, IMAGE

    def refuse(self, *, variables_only: bool = False) -> str:
        containers = {"chap": [RUNNING]}
        return would_differ.refuse(cast(Any, self), PROJECT, containers, variables_only=variables_only)


def changed(**properties: Any) -> dict[str, Any]:
    service = copy.deepcopy(SERVICE)
    service.update(properties)
    return service


def test_the_variables_of_another_shell_are_named_without_values() -> None:
    service = changed(environment={**SERVICE["environment"], "CHAP_TOKEN": "an0ther"})
    for variables_only in (False, True):
        with pytest.raises(StateError, match=r"chap: variables CHAP_TOKEN\.") as raised:
            Compose(service).refuse(variables_only=variables_only)
        assert "an0ther" not in str(raised.value) and "s3cret" not in str(raised.value)
        assert "--allow-drift" in raised.value.hint


def test_what_is_no_variable_does_not_keep_a_run_open() -> None:
    compose = Compose(changed(restart="always"))
    assert compose.refuse(variables_only=True) == ""
    with pytest.raises(StateError, match="restart"):
        compose.refuse()


@pytest.mark.parametrize(
    "compose",
    [
        pytest.param(Compose(SERVICE, hash="recorded"), id="the same"),
        pytest.param(Compose(changed(restart="always"), would="Running"), id="Compose would leave it"),
        pytest.param(Compose(SERVICE), id="made by another version of Compose, which hashes otherwise"),
    ],
)
def test_a_way_back_goes_through(compose: Compose) -> None:
    assert compose.refuse() == compose.refuse(variables_only=True) == ""


def test_files_that_compose_cannot_read_are_named_and_do_not_stand_in_the_way() -> None:
    note = replace(Compose(SERVICE), fails=True).refuse()
    assert note.startswith(would_differ.NOT_COMPARED) and "broken" in note
