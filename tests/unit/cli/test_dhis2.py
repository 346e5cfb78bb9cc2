"""Where the password for DHIS2 comes from: the environment, a file, a question; never the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from compose_chap.cli.dhis2 import dhis2_credentials
from compose_chap.errors import UsageError
from compose_chap.stack.chap import basic_credentials


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing of DHIS2."""
    for name in ("USERNAME", "PASSWORD", "TOKEN", "PASSWORD_FILE", "TOKEN_FILE"):
        monkeypatch.delenv(f"DHIS2_{name}", raising=False)


def test_a_password_or_a_token_may_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text(" dis:trict\r\n")
    assert dhis2_credentials("") == {}
    monkeypatch.setenv("DHIS2_PASSWORD_FILE", str(file))
    assert dhis2_credentials("") == {}
    assert dhis2_credentials("admin") == basic_credentials("admin", " dis:trict")
    monkeypatch.setenv("DHIS2_PASSWORD", "other")
    assert dhis2_credentials("admin") == basic_credentials("admin", "other")
    file.write_text("d2pat_1\n")
    monkeypatch.setenv("DHIS2_TOKEN_FILE", str(file))
    assert dhis2_credentials("admin") == {"Authorization": "ApiToken d2pat_1"}


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    if content:
        file.write_bytes(content)
    monkeypatch.setenv("DHIS2_PASSWORD_FILE", str(file))
    with pytest.raises(UsageError, match=f"Cannot read {file}, which DHIS2_PASSWORD_FILE names"):
        dhis2_credentials("admin")
