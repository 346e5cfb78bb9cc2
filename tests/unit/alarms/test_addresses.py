"""The addresses of alarms: what is shown of them, and the file that holds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from compose_chap.alarms import addresses
from compose_chap.errors import ChapError, UsageError


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("mailtos://user:pa@ss@smtp.moh.example:465?to=a@b.example", "mailtos://smtp.moh.example"),
        ("mailto://user:p/q@smtp.moh.example", "mailto://…"),
        ("MAILTO://u:p@Example.org", "mailto://Example.org"),
        ("ntfys://ntfy.moh.example/secret-topic", "ntfys://ntfy.moh.example"),
        ("ntfy://secret-topic", "ntfy://…"),
        ("ntfy://user:pw@10.1.2.3:8080/t", "ntfy://10.1.2.3"),
        ("json://localhost/hook", "json://localhost"),
        ("jsons://[fd00::1]:443/hook", "jsons://[fd00::1]"),
        ("tgram://123456789:token/1", "tgram://…"),
        ("slack://T1/A1/x.y", "slack://…"),
        ("pbul://o.secret.token", "pbul://…"),
        ("https://hooks.slack.com/services/T/A/x", "https://hooks.slack.com"),
    ],
)
def test_only_kind_and_server_are_shown(address: str, shown: str) -> None:
    assert addresses.shown(address) == shown


def test_every_piece_of_an_address_is_a_secret_but_its_server() -> None:
    pieces = addresses.secrets("ntfy://user%40x:pass%2Fword@ntfy.example.org/topic-1?auth=token2")
    assert {"user@x", "pass/word", "word", "topic-1", "token2"} <= set(pieces)
    assert not {"ntfy.example.org", "example.org"} & set(pieces)


def test_addresses_are_written_for_this_user_alone_and_read_back(tmp_path: Path) -> None:
    assert addresses.own(tmp_path) == ()
    addresses.write(tmp_path, ("json://a.example/x", "tgram://1:a/2"))
    file = addresses.own_file(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    assert addresses.own(tmp_path) == ("json://a.example/x", "tgram://1:a/2")
    addresses.write(tmp_path, ())
    addresses.write(tmp_path, ())
    assert not file.exists()


def test_comments_and_repetitions_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "addresses"
    file.write_text("# Operators\n\n  json://a.example/x  \njson://a.example/x\n")
    file.chmod(0o600)
    assert addresses.read(file) == ("json://a.example/x",)


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("json://a.example/secret", 0o640, "Other users"),
        ("# nothing\n", 0o600, "no address"),
        ("a.example/secret\n", 0o600, "begin with its kind"),
        ("json://a.example/secret secret\n", 0o600, "not hold a space"),
        (
            "json://a.example/secret\n" + "".join(f"json://h{number}.example/x\n" for number in range(60)),
            0o600,
            "too many",
        ),
        ("x" * 70_000, 0o600, "larger"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: str, mode: int, message: str) -> None:
    file = tmp_path / "addresses"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(UsageError, match=message) as refused:
        addresses.read(file)
    assert "secret" not in refused.value.message


def test_a_file_that_is_none(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ChapError, match=str(path)):
            addresses.read(path)
