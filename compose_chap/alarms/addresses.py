"""The addresses that alarms go to, as Apprise writes them. They hold tokens and passwords: only their kind is shown."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from compose_chap import reading
from compose_chap.errors import UsageError
from compose_chap.records.files import own_folder
from compose_chap.records.run_records import FOLDER

FILE = "alarms.addresses"
_LONGEST = 1 << 16  # bytes
_MOST = 50
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,30})://", re.IGNORECASE)
_SEPARATORS = re.compile(r"[/?&=@:#,;]+")
# Of these the host is that of a server. Of all others it may be a token, or a topic that only its readers should know.
_WITH_SERVER = frozenset(
    "mailto mailtos smtp smtps http https json jsons xml xmls form forms ntfy ntfys gotify gotifys mmost mmosts matrix"
    " matrixs rocket rockets nctalk nctalks workflow workflows apprise apprises zulip signal signals".split()
)
_HOST = re.compile(r"(?:localhost|\[[0-9a-f:.]+\]|[a-z0-9-]+(?:\.[a-z0-9-]+)+)", re.IGNORECASE)


def write(directory: Path, addresses: tuple[str, ...]) -> None:
    """Write the addresses of a stack, whose main folder is `directory`; with none the file goes. Raise StateError."""
    if addresses:
        own_folder.make(directory / FOLDER)
        own_folder.write(own_file(directory), "".join(f"{address}\n" for address in addresses).encode())
    else:
        own_folder.remove(own_file(directory))


def own(directory: Path) -> tuple[str, ...]:
    """Return the addresses that were written for a stack, none where that file is missing or cannot be used."""
    with suppress(UsageError):
        return read(own_file(directory))
    return ()


def own_file(directory: Path) -> Path:
    """Return the file of our own for the stack whose main folder is `directory`."""
    return directory / FOLDER / FILE


def read(path: Path) -> tuple[str, ...]:
    """Return the addresses in a file, one a line; lines that begin with # do not count.

    Raise UsageError when there is none, when the file cannot be read, or when others may read it.
    """
    text = reading.read_private(path, _LONGEST, "the addresses", "--alarm-file", "the addresses of alarms")
    lines = (line.strip() for line in text.splitlines())
    addresses = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not addresses:
        raise UsageError(f"There is no address in {path}.", hint="Write one into each line, such as mailtos://…")
    return checked(addresses)


def checked(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Return the addresses. Raise UsageError for what has not the form of one, without what it holds."""
    if len(addresses) > _MOST:
        raise UsageError(f"{len(addresses)} addresses are too many: at most {_MOST} are used.")
    for address in addresses:
        if not _SCHEME.match(address) or re.search(r"[\s\x00-\x1f]", address):
            raise UsageError(
                "The address of an alarm has to begin with its kind, such as mailtos://, and must not hold a space.",
                hint="How to write it for each service: https://appriseit.com/services",
            )
    return addresses


def shown(address: str) -> str:
    """Return what may be shown of an address: its kind and, where that is no secret, its server."""
    kind = kind_of(address)
    authority = re.split(r"[/?#]", address.partition("://")[2], maxsplit=1)[0]
    host = re.sub(r":\d*$", "", authority.rpartition("@")[2])
    return f"{kind}://{host}" if kind in _WITH_SERVER and _HOST.fullmatch(host) else f"{kind}://…"


def kind_of(address: str) -> str:
    """Return what stands in front of `://`, in small letters."""
    return address.partition("://")[0].lower()


def identity(address: str) -> str:
    """Return what stands for an address in our own records."""
    return hashlib.sha256(address.encode(errors="surrogateescape")).hexdigest()[:16]


def secrets(address: str) -> list[str]:
    """Return the parts of an address that must stay secret, the longest first."""
    return sorted(set(_pieces(address)), key=len, reverse=True)


def _pieces(address: str) -> Iterator[str]:
    rest = address.partition("://")[2]
    host = shown(address).partition("://")[2]
    yield rest
    whole = [unquote(rest), *re.split(r"[/?&]+", rest), *_SEPARATORS.split(rest)]
    pieces = [*whole, *map(unquote, whole), *_SEPARATORS.split(unquote(rest))]
    # Shorter ones stand in every sentence.
    yield from (piece for piece in pieces if len(piece) > 3 and piece not in host)
