"""Which repository is meant: its location, password and keys, and the disk that it may be on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from compose_chap.copies.repository import mount_point, read_password, repository, shares_disk
from compose_chap.errors import CopyError, UsageError

ENVIRONMENT = {"RESTIC_PASSWORD": "secret", "RESTIC_REPOSITORY": "/of/the/environment"}


@pytest.fixture
def password(tmp_path: Path) -> str:
    (tmp_path / "password").write_text("of the file\n")
    return str(tmp_path / "password")


def keys(tmp_path: Path, text: str, mode: int = 0o600) -> str:
    (tmp_path / "keys").write_text(text)
    (tmp_path / "keys").chmod(mode)
    return str(tmp_path / "keys")


def test_options_come_before_the_file_and_the_file_before_the_environment(tmp_path: Path, password: str) -> None:
    file = keys(tmp_path, "# mine\n\nexport RESTIC_REPOSITORY='/of/the keys'\nAWS_ACCESS_KEY_ID = x=y\n")
    variables = repository("", "", file, ENVIRONMENT).variables()
    assert variables["RESTIC_REPOSITORY"] == "/of/the keys" and variables["AWS_ACCESS_KEY_ID"] == "x=y"
    variables = repository("/named", password, file, ENVIRONMENT).variables()
    assert variables["RESTIC_REPOSITORY"] == "/named" and variables["RESTIC_PASSWORD_FILE"] == password
    assert "RESTIC_PASSWORD" not in variables, "restic would take it before the file"
    variables = repository("rel/ative", password, "", {}).variables()
    assert variables == {"RESTIC_REPOSITORY": os.path.abspath("rel/ative"), "RESTIC_PASSWORD_FILE": password}


def test_no_password_is_shown() -> None:
    assert "secret" not in repr(repository("/named", "", "", ENVIRONMENT))


@pytest.mark.parametrize(
    ("location", "password_file", "environment", "message"),
    [
        ("", "", {"RESTIC_PASSWORD": "x"}, "No repository"),
        ("/named", "", {}, "password of the repository is not given"),
        ("/named", "/not/there", {}, "cannot be read: /not/there"),
        ("rest:https://me:hunter2@host/", "", ENVIRONMENT, r"me:\*\*\*@host"),
        ("rclone::ftp,host=h,password=hunter2:x", "", ENVIRONMENT, r"password=\*\*\*"),
    ],
)
def test_what_is_missing_is_named(location: str, password_file: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        repository(location, password_file, "", environment)


@pytest.mark.parametrize(
    "location",
    [
        "sftp://me@host:2222//path",
        "sftp:me@host:/srv/a@b:c",
        "sftp://me@[::1]:2222//srv/x",
        "s3:https://host:9000/bucket/a@b",
        "rclone:remote:chap",
    ],
)
def test_a_user_without_a_password_may_stand_in_a_location(location: str) -> None:
    assert repository(location, "", "", ENVIRONMENT).location == location


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [("A=b\n", 0o640, "Other users"), ("A=b\nno\n", 0o600, "Line 2"), ("A B=c\n", 0o600, "Line 1")],
)
def test_a_file_of_keys_that_cannot_be_used(tmp_path: Path, text: str, mode: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        repository("/named", "", keys(tmp_path, text, mode), ENVIRONMENT)
    with pytest.raises(UsageError, match="no file"):
        repository("/named", "", str(tmp_path / "none"), ENVIRONMENT)


@pytest.mark.parametrize(
    ("content", "password"),
    [(b"a b'\n", "a b'"), (b"\n\n x\r\n", "x"), (b"two\nlines\n", "two\nlines"), (b"\xef\xbb\xbfmarked", "marked")],
)
def test_a_password_is_read_as_restic_reads_it(tmp_path: Path, content: bytes, password: str) -> None:
    (tmp_path / "password").write_bytes(content)
    assert read_password(tmp_path / "password") == password


def test_a_disk_goes_by_its_label_wherever_it_is_mounted(tmp_path: Path) -> None:
    labels, mounts = tmp_path / "labels", tmp_path / "mounts"
    labels.mkdir()
    (tmp_path / "sdb1").touch()
    (labels / r"MY\x20DISK").symlink_to(tmp_path / "sdb1")
    proc = "22 28 0:21 / /proc rw shared:12 - proc proc rw\n"
    bound = f"90 28 8:17 /sub/folder /srv/part rw - ext4 {tmp_path}/sdb1 rw\n"
    whole = f"91 28 8:17 / /media/MY\\040DISK rw,relatime shared:1 - ext4 {tmp_path}/sdb1 rw,errors=remount-ro\n"
    for text in (proc + whole, proc + bound + whole, whole + bound, whole.replace("MY", "OLD") + whole):
        mounts.write_text(text)
        assert mount_point("MY DISK", labels, mounts) == Path("/media/MY DISK")
    mounts.write_text(proc)
    with pytest.raises(CopyError, match="not mounted") as caught:
        mount_point("MY DISK", labels, mounts)
    assert "mount 'LABEL=MY DISK' /mnt" in caught.value.hint
    with pytest.raises(CopyError, match="not connected"):
        mount_point("OTHER", labels, mounts)


@pytest.mark.parametrize("location", ["disk:", "disk:/x", "disk:A/../../etc"])
def test_a_disk_has_a_label_and_a_folder_on_it(location: str) -> None:
    with pytest.raises(UsageError, match="label and a folder"):
        repository(location, "", "", ENVIRONMENT).variables()


def test_a_folder_on_the_disk_of_the_backups_is_known(tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    assert shares_disk(str(tmp_path / "copies"), tmp_path)
    assert not shares_disk("/proc", tmp_path), "a disk of its own"
    assert not shares_disk(f"sftp:backup:{tmp_path}", tmp_path)
    assert not shares_disk(str(tmp_path / "not there"), tmp_path)


def test_a_command_names_the_repository_and_never_its_password(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("RESTIC_PASSWORD=x\nRESTIC_REPOSITORY=rest:https://me:hunter2@host/\n")
    (tmp_path / "keys").chmod(0o600)
    (tmp_path / "pass word").write_text("x")
    given = repository("/mnt/usb", str(tmp_path / "pass word"), "", {})
    assert given.named("--from") == f"--from /mnt/usb --password-file '{tmp_path}/pass word'"
    assert repository("", "", str(tmp_path / "keys"), {}).named("--to") == f"--to REPOSITORY --keys {tmp_path}/keys"
    by_environment = {"RESTIC_PASSWORD": "x", "RESTIC_REPOSITORY": "rest:https://me:hunter2@host/"}
    assert repository("", "", "", by_environment).named("--from") == "--from REPOSITORY"
