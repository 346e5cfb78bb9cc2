"""What a shell is offered behind `docker chap`, and that nothing of it is ever slow or noisy."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
import pytest

from compose_chap.cli import app, complete
from compose_chap.engine.registries.registry import Registry
from compose_chap.errors import RegistryError
from compose_chap.image import Reference
from compose_chap.stack import releases

NOW = datetime(2026, 11, 23, tzinfo=timezone.utc)
IMAGES = {"chap": Reference("reg.test/chap-core", "v2.0.0"), "worker": Reference("reg.test/chap-worker", "v2.0.0")}
NO_DOCKER = ("/nonexistent/docker",)

Ask = Callable[..., list[str]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    def ask(*words: str) -> list[str]:
        assert app.complete(words, NO_DOCKER) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out.splitlines()

    return ask


def test_commands_are_offered_with_what_they_do(ask: Ask) -> None:
    *offers, directive = ask("")
    assert [line.split("\t")[0] for line in offers] == app.chap.list_commands(None)  # type: ignore[arg-type]
    assert all(line.split("\t")[1] for line in offers) and directive == ":4"
    assert [line.split("\t")[0] for line in ask("-p", "x", "rest")] == ["restore", ":4"]


def test_options_are_those_of_the_command(ask: Ask) -> None:
    offered = [line.split("\t")[0] for line in ask("upgrade", "--")]
    assert {"--dry-run", "--yes", "--json", "--project-name"} <= set(offered) and "--trust" not in offered
    assert "--dry-run" not in [line.split("\t")[0] for line in ask("--")]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--progress", ""], ["auto", "plain", "quiet", "json", ":4"]),
        (["status", "--progress=q"], ["quiet", ":4"]),
        (["status", "-f", "comp"], [":0"]),
        (["backup", "--output", ""], [":0"]),
        (["upgrade", "--wait", ""], [":4"]),
        (["status", ""], [":4"]),
        (["upgrade", "v2.1.0", ""], [":4"]),
    ],
)
def test_values_are_offered_where_they_are_known(ask: Ask, words: list[str], answer: list[str]) -> None:
    assert ask(*words) == answer


@pytest.mark.parametrize("words", [["-p", ""], ["upgrade", ""], ["pin", "v"], ["restore", ""], ["nosuch", ""]])
def test_nothing_is_offered_without_an_answer(ask: Ask, words: list[str]) -> None:
    assert ask(*words)[-1][:1] == ":"


def test_nobody_waits_longer_than_the_limit(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complete, "LIMIT", 0.2)
    monkeypatch.setattr(complete, "_projects", lambda call: time.sleep(30))
    assert ask("-p", "") == [":4"]


def test_versions_are_asked_for_once_an_hour(tmp_path: Path) -> None:
    environment, requests = {"XDG_CACHE_HOME": str(tmp_path)}, []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request.url.path)
        return httpx.Response(200, json={"tags": ["v2.1.0", "v2.0.0", "latest", "v2.10.0"]})

    registry = Registry(transport=httpx.MockTransport(answer))
    for minutes in (0, 59):
        result = releases.find(registry, IMAGES, environment, NOW + timedelta(minutes=minutes))
        assert result == ["v2.0.0", "v2.1.0", "v2.10.0"] and len(requests) == 2
    releases.find(registry, IMAGES, environment, NOW + timedelta(minutes=61))
    assert len(requests) == 4
    repositories = {image.repository for image in IMAGES.values()}
    assert releases.remembered(repositories, environment, NOW + timedelta(days=6), releases.A_WEEK) == result
    assert releases.remembered({"other"}, environment, NOW, releases.A_WEEK) is None


def test_a_registry_that_does_not_answer_is_left_alone_for_a_minute(tmp_path: Path) -> None:
    environment, requests = {"XDG_CACHE_HOME": str(tmp_path)}, []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request.url.path)
        raise httpx.ConnectError("no route")

    registry = Registry(transport=httpx.MockTransport(answer))
    with pytest.raises(RegistryError):
        releases.find(registry, IMAGES, environment, NOW)
    assert releases.find(registry, IMAGES, environment, NOW + timedelta(seconds=59)) == [] and len(requests) == 1
    with pytest.raises(RegistryError):
        releases.find(registry, IMAGES, environment, NOW + timedelta(seconds=61))


def test_versions_are_listed_without_a_cache() -> None:
    registry = Registry(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={"tags": ["v2.0.0"]})))
    assert releases.find(registry, IMAGES, {"HOME": "/proc/none"}, NOW) == ["v2.0.0"]


@pytest.mark.parametrize(
    ("version", "newest"), [("2.0.0", "v2.10.0"), ("v2.9.9", "v2.10.0"), ("2.10.0", ""), ("", ""), ("latest", "")]
)
def test_an_update_is_a_newer_release(version: str, newest: str) -> None:
    assert releases.newer(version, ["v2.0.0", "v2.1.0", "v2.10.0"]) == newest
