"""What a failure of restic means, from words that real ones wrote."""

from __future__ import annotations

import pytest

from compose_chap.copies import failures
from compose_chap.copies.failures import Denied, InUse, NoRepository, NoRoom, Unreachable
from compose_chap.errors import CopyError

ASKS = "\nIs there a repository at the following location?\nREPO\n"
RETRY = "Save(<data/72>) returned error, retrying after 552ms: dial tcp 10.0.0.1:22: connection reset by peer\n"

WORDS = (
    ("Fatal: wrong password or no key found", CopyError, "password"),
    ('{"message_type":"exit_error","code":12,"message":"Fatal: wrong password or no key found"}',
     CopyError, "password"),
    ("Fatal: unable to open config file: stat /c/config: no such file or directory" + ASKS, NoRepository, "no repo"),
    ("Fatal: unable to open config file: Lstat: file does not exist" + ASKS, NoRepository, "no repo"),
    ("Fatal: unable to open config file: Stat: The specified bucket does not exist" + ASKS, NoRepository, "no repo"),
    ("Fatal: unable to open config file: Stat: The specified key does not exist." + ASKS, NoRepository, "no repo"),
    ('Fatal: unable to open config file: client.Head: Head "http://h/config": dial tcp: connect: connection refused'
     + ASKS, Unreachable, "reached"),
    ("Fatal: unable to open repository at sftp:h:/x: unable to start the sftp session, error: read |0: file already"
     " closed", Unreachable, "reached"),
    ("subprocess ssh: root@h: Permission denied (publickey).\nFatal: unable to start the sftp session, error: EOF",
     Denied, "let this machine in"),
    ("Fatal: unable to open config file: stat /c/config: permission denied" + ASKS, Denied, "may not read or write"),
    ("Fatal: unable to open config file: Stat: Access Denied." + ASKS, Denied, "let this machine in"),
    ("unable to remove <snapshot/62> from the repository\nblob not removed, server response: 403 Forbidden (403)",
     Denied, "let this machine in"),
    ("Fatal: unable to save snapshot: write /c/data/72: no space left on device", NoRoom, "no room"),
    (f"{RETRY}Fatal: unable to save snapshot: server response: 507 Insufficient Storage", NoRoom, "no room"),
    ("unable to create lock in backend: repository is already locked by PID 7 on north by root (UID 0, GID 0)\n"
     "lock was created at 2026-11-28 09:48:03 (3s ago)\nstorage ID 1234", InUse, "locked"),
    ("Save(<lock/8b>) returned error, retrying after 1s: open /c/locks/8b: read-only file system\n"
     "unable to create lock in backend", CopyError, "read-only"),
    ("Resolving password failed: Fatal: /none does not exist", CopyError, "password of the repository cannot be read"),
    ("Resolving password failed: exit status 1", CopyError, "password of the repository cannot be read"),
    ("Resolving password failed: Readfile: read /tmp: is a directory", CopyError, "cannot be read"),
    ("Fatal: an empty password is not a password", CopyError, "cannot be read"),
    ("Fatal: unable to open config file: Stat: RequestTimeTooSkewed: The difference is too large", CopyError, "time"),
    ("Fatal: ciphertext verification failed", CopyError, "damaged"),
    ("Fatal: repository contains errors", CopyError, "damaged"),
)  # fmt: skip


@pytest.mark.parametrize(("words", "kind", "message"), WORDS)
def test_every_failure_has_its_meaning(words: str, kind: type[CopyError], message: str) -> None:
    error = failures.meaning(words, "REPO")
    assert type(error) is kind and message in error.message and error.hint
    assert not error.message.rstrip().endswith("}")


@pytest.mark.parametrize(
    ("location", "real"),
    [
        ("/srv/quota", ""),
        ("disk:USB/404", "/media/USB/404"),
        ("rest:http://h:8000/403/", ""),
        ("s3:https://h/access denied", ""),
    ],
)
def test_the_name_of_a_repository_means_nothing(location: str, real: str) -> None:
    where = (real or location).partition(":")[2] or real or location
    error = failures.meaning(f"Fatal: odd thing at {where}/config", location, real)
    assert type(error) is CopyError and error.message.startswith("restic failed")


def test_who_holds_the_lock_is_named() -> None:
    words = "repository is already locked by PID 7 on north by root (UID 0, GID 0)\nlock was created at 2026\n"
    assert "north" in failures.meaning(words, "REPO").message


def test_what_ssh_says_is_the_reason() -> None:
    words = (
        "subprocess ssh: Warning: Permanently added.\nsubprocess ssh: ssh: connect to host h port 22: No route to host"
        "\nFatal: unable to open repository at sftp:h:/x: unable to start the sftp session, error: EOF"
    )
    assert failures.meaning(words, "sftp:h:/x").message.endswith("\nssh: connect to host h port 22: No route to host")


def test_what_nobody_knows_is_passed_on_without_passwords() -> None:
    error = failures.meaning("Fatal: odd thing at rest:http://me:hunter2@host/x\n", "REPO")
    assert error.message == "restic failed on REPO: odd thing at rest:http://me:***@host/x"
    assert "gave no reason" in failures.meaning("", "REPO").message


def test_a_server_that_removes_nothing_is_append_only() -> None:
    denied = failures.meaning("blob not removed, server response: 403 Forbidden (403)", "REPO")
    assert isinstance(denied, Denied)
    assert "append-only" in failures.append_only(denied, "REPO").message


def test_the_next_command_names_the_repository_as_it_was_named() -> None:
    words = "Fatal: unable to open config file: stat /mnt/usb/config: no such file or directory"
    error = failures.meaning(words, "/mnt/usb", named="{} /mnt/usb --password-file /root/p".format)
    assert error.hint.endswith("docker chap copy --to /mnt/usb --password-file /root/p --init")
