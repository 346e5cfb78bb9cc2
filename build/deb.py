"""Make build/out/docker-chap_VERSION_all.deb of the files that the recipe made: one package for every CPU.

A .deb is an `ar` archive of two tar archives, which Python can write on any machine, with or without dpkg. The same
files give the same bytes: owner, order and modes are fixed, and every time is SOURCE_DATE_EPOCH, as reproducible
builds have it (1980 where it is not set).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from build.recipe import OUT, PLUGIN, RECIPE
from compose_chap import __version__, plugin

# Where the packages of Docker and of Debian put theirs: /usr/libexec since Compose v2.
PLUGINS = "usr/libexec/docker/cli-plugins"
NAME = "docker-chap"

_1980 = 315532800
_DOCUMENTS = f"usr/share/doc/{NAME}"


@dataclass(frozen=True)
class File:
    """A file of the package: its bytes and its mode."""

    content: bytes
    mode: int = 0o644


def main() -> None:
    """Make the package, and beside it its checksum."""
    moment = int(os.environ.get("SOURCE_DATE_EPOCH") or _1980)
    content = package(files(), moment)
    path = OUT / f"{NAME}_{debian_version(__version__)}_all.deb"
    unfinished = path.with_suffix(".tmp")
    unfinished.write_bytes(content)
    unfinished.replace(path)
    checksum = hashlib.sha256(content).hexdigest()
    path.with_suffix(".deb.sha256").write_text(f"{checksum}  {path.name}\n")
    print(f"build/out/{path.name}: {len(content) / 2**20:.1f} MiB, sha256 {checksum}")


def debian_version(version: str) -> str:
    """Return a version as dpkg sorts it: 0.2.0rc1 comes before 0.2.0, so it is 0.2.0~rc1."""
    return re.sub(r"\.?(a|b|rc|dev)(?=\d+$)", r"~\1", version)


def files() -> dict[str, File]:
    """Return what the package puts on a server, by path."""
    bill = (OUT / "docker-chap.cdx.json").read_bytes()
    changes = (RECIPE.parent / "docs/CHANGELOG.md").read_bytes()
    return {
        f"{PLUGINS}/{NAME}": File(PLUGIN.read_bytes(), 0o755),
        f"usr/share/man/man1/{NAME}.1.gz": File(_packed((OUT / f"{NAME}.1").read_bytes())),
        f"{_DOCUMENTS}/changelog.gz": File(_packed(changes)),
        f"{_DOCUMENTS}/copyright": File(_copyright(bill).encode()),
        f"{_DOCUMENTS}/{NAME}.cdx.json": File(bill),
    }


def package(contents: Mapping[str, File], moment: int) -> bytes:
    """Return the bytes of a package with these files, every time in it `moment` (seconds since 1970)."""
    sums = "".join(f"{hashlib.md5(file.content).hexdigest()}  {path}\n" for path, file in sorted(contents.items()))
    about = {"control": File(_control(contents).encode()), "md5sums": File(sums.encode())}
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": lzma.compress(_tar(about, moment)),
        "data.tar.xz": lzma.compress(_tar(contents, moment)),
    }
    return b"!<arch>\n" + b"".join(_member(name, content, moment) for name, content in members.items())


def _member(name: str, content: bytes, moment: int) -> bytes:
    head = f"{name:<16}{moment:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
    return head + content + b"\n" * (len(content) % 2)


def _tar(contents: Mapping[str, File], moment: int) -> bytes:
    folders = {str(folder) for path in contents for folder in PurePosixPath(path).parents}
    entries = {**dict.fromkeys(folders), **contents}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, file in sorted(entries.items()):
            entry = tarfile.TarInfo("./" if path == "." else f"./{path}")
            entry.mtime, entry.uname, entry.gname = moment, "root", "root"
            if file is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            else:
                entry.mode, entry.size = file.mode, len(file.content)
                tar.addfile(entry, io.BytesIO(file.content))
    return archive.getvalue()


def _control(contents: Mapping[str, File]) -> str:
    # In KiB; dpkg counts one for each file and folder besides.
    size = sum(len(file.content) // 1024 + 1 for file in contents.values())
    return f"""Package: {NAME}
Version: {debian_version(__version__)}
Architecture: all
Maintainer: {plugin.METADATA["Vendor"]} <{NAME}@localhost>
Installed-Size: {size}
Depends: python3 (>= 3.10)
Recommends: docker-ce-cli | docker-cli | docker.io, docker-compose-plugin | docker-compose-v2 | docker-compose (>= 2.20)
Section: admin
Priority: optional
Description: {plugin.METADATA["ShortDescription"]}
 A plugin of the docker command for servers that run CHAP, the climate and
 health platform of DHIS2, with Docker Compose. Each of these is one command:
 a proven backup, a whole upgrade that ends all new or all old, a restore.
 .
 All Python packages that it needs are inside.
"""


def _copyright(bill: bytes) -> str:
    """Return the licence of this package, and of each package inside it as the bill of materials has it."""
    inside = "".join(
        f"  {part['name']} {part['version']}: {part['licenses'][0]['license']['name']}\n"
        for part in json.loads(bill)["components"]
    )
    return f"""docker-chap is of {plugin.METADATA["Vendor"]}, under the licence Apache-2.0.
On Debian systems, its text is in /usr/share/common-licenses/Apache-2.0.

/{PLUGINS}/docker-chap is a zip archive with these packages inside,
each with the text of its own licence, in the folder NAME-VERSION.dist-info:

{inside}"""


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, 9, mtime=0)


if __name__ == "__main__":
    main()
