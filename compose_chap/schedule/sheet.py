"""The recovery sheet: what a person needs to get everything back on a bare machine, with restic and Docker alone.

It holds the password of the repository, is shown once, and is written nowhere.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from shlex import quote

from compose_chap.copies.repository import Repository
from compose_chap.model import Stack
from compose_chap.postgres import reach


@dataclass(frozen=True)
class CopiedData:
    """What the copies hold beside CHAP's database and the Compose files; `dhis2_here` says that there is a DHIS2."""

    dhis2: bool = False
    volumes: bool = False
    dhis2_here: bool = False


def text(
    stack: Stack,
    repository: Repository,
    password: str,
    keys: Collection[str],
    port: int,
    admin: str,
    contents: CopiedData,
) -> str:
    """Return the sheet of a stack, whose server named `admin` and `port`. `keys` are the names in the file of keys."""
    location = str(repository.variables()["RESTIC_REPOSITORY"])
    words = ["docker", *stack.project.compose]
    compose, database = shlex.join(words), stack.database.name
    inside = shlex.join(reach.inside(words, database, port))
    into = quote(reach.argument(stack.access.name))
    options = f"-X -q -v ON_ERROR_STOP=1 -U {quote(admin)} -d {into}"
    tags = quote(f"docker-chap,part=files,project={stack.project.name}")
    also = "".join(f"\nexport {name}=…" for name in sorted(keys))
    return f"""\
RECOVERY SHEET for CHAP ({stack.project.name})
Print it, and keep it away from the server. Whoever has it can read all copies.

Repository  {repository.location}
Password    {password}
{_keys(keys)}
{_contents(contents)}

On a new machine with Docker and restic (apt install restic), as root:

export RESTIC_REPOSITORY={quote(location)}{also}
export RESTIC_PASSWORD={quote(password)}
restic snapshots --tag {tags}

The last line is the newest copy. Put its ID, and the digits behind sql= in its tags, into these two:

FILES=…
SQL=…
restic restore $FILES --target /srv/chap-copy
mkdir -p {quote(str(stack.project.directory))}

Put the Compose files from /srv/chap-copy/files back to where they were: /srv/chap-copy/manifest.json
says where. The main one: {stack.project.files[0]}
Then start the empty database, fill it, and start everything:

{compose} up -d --wait {quote(database)} || {compose} up -d {quote(database)}
restic dump $SQL /dump.sql | {inside} psql {options}
{compose} up -d

With docker-chap there: start everything with the empty database, then `docker chap restore latest --from REPOSITORY`
fills it, and proves it.
{_others(contents)}"""


def _contents(contents: CopiedData) -> str:
    parts = [(True, "CHAP's database"), (True, "the Compose files"), (contents.dhis2, "DHIS2's database")]
    parts += [(contents.volumes, "the volumes (logs, runs and the data of model services)")]
    others = [("DHIS2's database and files", contents.dhis2_here and not contents.dhis2)]
    others += [
        ("DHIS2's files", contents.dhis2),
        ("the volumes (logs, runs, data of model services)", not contents.volumes),
    ]
    held = _joined([name for is_held, name in parts if is_held])
    absent = _joined([*(name for name, is_absent in others if is_absent), "images"])
    return f"In the copies: {held}.\nNot in them: {absent}."


def _others(contents: CopiedData) -> str:
    names = _joined([*(["DHIS2's database"] if contents.dhis2 else []), *(["the volumes"] if contents.volumes else [])])
    return f"\nHow to put {names} back: see /srv/chap-copy/RESTORE.txt\n" if names else ""


def _joined(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)


def _keys(keys: Collection[str]) -> str:
    return f"Keys        {', '.join(sorted(keys))}: write their values here by hand\n" if keys else ""
