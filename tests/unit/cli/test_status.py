"""Which newer version `status` and the table of all servers know of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compose_chap.cli import app
from compose_chap.cli.call import Call
from compose_chap.cli.commands import status as status_command
from compose_chap.detection import detect
from compose_chap.project import checkout
from compose_chap.stack import observe
from tests.fakes import FakeEngine, world


@pytest.mark.parametrize(("problem", "update"), [("", "v2.1.0"), ("The remote does not answer.", None)])
def test_what_the_remote_of_a_checkout_has_is_remembered_for_a_week(
    problem: str, update: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine(tmp_path)
    (stack,) = detect(engine.containers())
    here: Any = SimpleNamespace(**vars(world(engine)) | {"environment": {"XDG_CACHE_HOME": str(tmp_path)}})
    source = SimpleNamespace(head=checkout.Head("0" * 40))
    monkeypatch.setattr(Call, "world", lambda call: here)
    monkeypatch.setattr(Call, "subject", lambda *args: SimpleNamespace(checkout=source, release="2.0.0"))
    monkeypatch.setattr(observe, "find_stack", lambda *args: stack)
    monkeypatch.setattr(checkout, "releases", lambda source: (["v2.0.0", "v2.1.0"], problem))
    assert app.main(["versions"]) == 0
    seen: Any = SimpleNamespace(stack=stack, versions={"chap": "2.0.0"})
    assert status_command._update(seen, here) == update
