"""What a failure of restic means, from its own words: only newer versions tell it by the exit status."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress

from compose_chap.copies.repository import Named, unnamed
from compose_chap.errors import CopyError
from compose_chap.ownership import as_root
from compose_chap.redact import redact


class NoRepository(CopyError):
    """There is no repository at this location."""


class Denied(CopyError):
    """The server does not let this machine do it."""


class AppendOnly(CopyError):
    """This machine may add copies, and remove none."""


class Unreachable(CopyError):
    """The link is down, or the server is."""


class InUse(CopyError):
    """Another run of restic has locked the repository."""


class NoRoom(CopyError):
    """There is no room left where it was to be written."""


# The first that fits is meant. restic asks "Is there a repository" also when no server answers at all.
_MEANINGS: tuple[tuple[str, type[CopyError], str, str], ...] = (
    (
        r"wrong password|no key found",
        CopyError,
        "The password of the repository is wrong.",
        "Check --password-file, or RESTIC_PASSWORD_FILE in the environment.",
    ),
    (
        r"resolving password failed|empty password|unable to read password",
        CopyError,
        "The password of the repository cannot be read.",
        "Check --password-file, or what RESTIC_PASSWORD_FILE or RESTIC_PASSWORD_COMMAND in the environment name.",
    ),
    (
        r"already locked",
        InUse,
        "The repository is locked by another run of restic.",
        "Wait until it has ended, or let the command wait: --wait-lock SECONDS"
        "\nThe lock of a run that is gone counts for half an hour.",
    ),
    (
        r"read-only file system",
        CopyError,
        "The repository is on a disk that is mounted read-only.",
        "Mount it so that it can be written, then run the command again: {sudo}mount -o remount,rw FOLDER",
    ),
    (
        r"RequestTimeTooSkewed|certificate has expired or is not yet valid",
        CopyError,
        "The server and this machine do not agree on the time.",
        "Set this machine's clock: {sudo}timedatectl set-ntp true",
    ),
    (
        r"permission denied \(|host key verification failed|\b40[13]\b|access ?denied|unauthorized|forbidden"
        r"|InvalidAccessKeyId|SignatureDoesNotMatch",
        Denied,
        "The server does not let this machine in.",
        "Check its keys and login: those of S3 belong in --keys FILE, and for sftp `ssh USER@HOST` has to work"
        " without a question.",
    ),
    (
        r"permission denied",
        Denied,
        "This user may not read or write in the repository.",
        "Run it as its owner, or as root.",
    ),
    (
        r"connection (refused|reset|timed out|lost)|no such host|network is unreachable|broken pipe|i/o timeout"
        r"|unexpected EOF|: EOF|no route to host|unable to start the sftp session|subprocess ssh exited|TLS handshake"
        r"|server misbehaving|no answer within|use of closed network connection|50[0234] ",
        Unreachable,
        "The repository cannot be reached.",
        "Run the command again when the link is back. What was sent already stays.",
    ),
    (
        r"no space left on device|quota|insufficient storage|\b507\b|disk full",
        NoRoom,
        "The repository has no room left.",
        "Make room, or remove old copies: docker chap prune {from_it}",
    ),
    (
        r"verification failed|hash mismatch|wrong data returned|does not match|contains errors|incomplete pack"
        r"|ciphertext|not found in (index|repository)|invalid data|load.*: invalid",
        CopyError,
        "The repository is damaged.",
        "Do not rely on its copies until they are proven: docker chap verify latest {from_it}"
        "\nWhat restic can repair: https://restic.readthedocs.io/en/stable/077_troubleshooting.html"
        "\nOr begin another repository: docker chap copy --to OTHER-REPOSITORY --init",
    ),
    (
        r"does not exist|no such file|\b404\b|is there a repository at",
        NoRepository,
        "There is no repository at this location.",
        "Check the location. To make a new repository there: docker chap copy {to_it} --init",
    ),
)


def meaning(text: str, location: str, real: str = "", named: Named = unnamed) -> CopyError:
    """Return the error that restic's words are about, with the last of these words.

    `real` is the location that restic got, where that is not the `location` that people named. `named` returns the
    options that name the repository in a command.
    """
    # A folder may be called `quota`, and a bucket 403.
    names = list(filter(None, (where.rpartition(":")[2].strip("/") for where in (location, real))))
    lines = [_plain(line) for line in redact(text).strip().splitlines() if line.strip() and not line.startswith("\t")]
    for part in (_last_words(lines), lines):
        for pattern, kind, message, hint in _MEANINGS:
            if re.search(pattern, _without(names, "\n".join(part)), re.IGNORECASE):
                hint = hint.format(sudo=as_root(""), from_it=named("--from"), to_it=named("--to"))
                return kind(f"{message} ({location})\n{_telling(part)}", hint=hint)
    return CopyError(f"restic failed on {location}: {_telling(lines)}")


def killed(number: int) -> CopyError:
    """Return the error for a restic that a signal has ended."""
    return CopyError(
        f"restic was ended by signal {number}.",
        hint="Run the command again: what was sent already stays. Is there enough memory? See: dmesg | tail",
    )


def append_only(error: Denied, location: str) -> AppendOnly:
    """Return the error for a repository in which this machine may add, and remove nothing."""
    return AppendOnly(
        f"Nothing may be removed from {location} by this machine: it is append-only.\n{error.message.splitlines()[-1]}",
        state="Nothing was removed.",
        hint="That keeps an intruder from removing copies. Remove old ones on the server itself, with restic forget.",
    )


def _last_words(lines: Sequence[str]) -> list[str]:
    """Return what it ended with, and what ssh wrote. Before that stand failures that it tried again, with success."""
    fatal = [at for at, line in enumerate(lines) if line.startswith("Fatal:")]
    last = lines[fatal[-1] :] if fatal else lines
    return [*(line for line in lines if line.startswith("subprocess ssh:") and line not in last), *last]


def _without(names: Sequence[str], text: str) -> str:
    for name in names:
        text = text.replace(name, "…")
    return text


def _telling(lines: Sequence[str]) -> str:
    # What ssh says is the reason of what restic says.
    by_ssh = [line.removeprefix("subprocess ssh: ") for line in lines if line.startswith("subprocess ssh: ")]
    named = by_ssh[-1:] or [line for line in lines if line.startswith("Fatal:") or "locked" in line] or lines[-1:]
    return named[0].removeprefix("Fatal: ") if named else "It gave no reason."


def _plain(line: str) -> str:
    """Return a line as words; newer versions write JSON."""
    with suppress(ValueError, AttributeError):
        return str(json.loads(line).get("message", line))
    return line.strip()
