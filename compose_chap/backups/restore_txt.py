"""RESTORE.txt: how to restore a backup by hand.

Its commands are copied into a shell, so every word in them that is not our own is quoted.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from shlex import quote

from compose_chap.backups.manifest import Manifest
from compose_chap.model import LONGEST_NAME, Role, Stack
from compose_chap.postgres import reach
from compose_chap.postgres.server import identifier
from compose_chap.units import clipped


def text(stack: Stack, manifest: Manifest, admin: str, port: int) -> str:
    """Return the text of RESTORE.txt with the commands for this stack, whose server named `admin` and `port`."""
    words = ["docker", *stack.project.compose]
    compose, inside = shlex.join(words), shlex.join(reach.inside(words, stack.database.name, port))
    writers = shlex.join(service.name for service in stack.writers)
    live, owner, admin = stack.access.name, quote(stack.access.owner), quote(admin)
    name, into, old = quote(live), quote(reach.argument(live)), quote(_old_name(live))
    images = "\n".join(
        f"   {quote(_shown(f'{image.service}: {image.image}'))}  {quote(_shown(image.id))}" for image in manifest.images
    )
    compare, files = "with those in files/", ", ".join(_shown(str(file)) for file in stack.project.absent)
    if files:
        compare = "with your own copy of them"
        files = f"\nThe Compose files are NOT in this backup. They are on the server: {files}\nDo these steps there.\n"
    chap = f"""\
This folder is a backup of CHAP {_shown(manifest.chap.version)}, made {manifest.created_at.isoformat()}.
The easy way to restore it:

    docker chap restore {quote(manifest.id)}
{files}
By hand, without that tool, in this folder. The old database is kept under another name.

1. Stop what writes to the database:
   {compose} stop {writers}
2. Keep the old database, and make a new one:
   {inside} psql -U {admin} -d {reach.home_beside(live)} -c {_renaming(live)}
   {inside} createdb -U {admin} -O {owner} {name}
3. Put the dump into it. It must end without an error:
   {inside} pg_restore -U {admin} -d {into} --exit-on-error < {quote(manifest.dump.file)}
4. If the Compose files were changed since, compare them {compare}. The images were:
{images}
5. Start CHAP again:
   {compose} up -d --no-deps {writers}

When CHAP works again, the old database can go:
   {inside} dropdb -U {admin} {old}
"""
    return "".join([chap, *_dhis2(stack, manifest, compose), *_volumes(manifest, compose)])


def _dhis2(stack: Stack, manifest: Manifest, compose: str) -> Iterator[str]:
    if not (dhis2 := manifest.dhis2):
        return
    live = dhis2.database.name
    name, into, owner, admin = map(quote, (live, reach.argument(live), dhis2.database.owner, dhis2.admin))
    inside = f"{compose} exec -T {quote(dhis2.service)}"
    # Without the name of a service, the command would stop everything.
    others = shlex.join(value.name for value in stack.of(Role.DHIS2)) or "DHIS2-SERVICE"
    yield f"""
DHIS2's database. Stop DHIS2, keep the old one, restore, start:
   {compose} stop {others}
   {inside} psql -U {admin} -d {reach.home_beside(live)} -c {_renaming(live)}
   {inside} createdb -U {admin} -O {owner} {name}
   {inside} pg_restore -U {admin} -d {into} --exit-on-error < {quote(dhis2.dump.file)}
   {compose} start {others}
"""


def _volumes(manifest: Manifest, compose: str) -> Iterator[str]:
    for volume in manifest.volumes:
        file, target = quote(volume.file), quote(f"{volume.service}:{volume.path}")
        command = f"gunzip -c {file} | {compose} cp - {target}" if volume.volume else f"{compose} cp {file} {target}"
        yield f"\n{_shown(volume.volume or 'Data of ' + volume.service)}:\n   {command}\n"


def _shown(text: str) -> str:
    """Return a text that is safe between the commands: on a single line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _renaming(name: str) -> str:
    return quote(f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(_old_name(name))}")


def _old_name(live: str) -> str:
    # PostgreSQL would cut a longer one, maybe to the name that the database has.
    return clipped(live, LONGEST_NAME - len("_old")) + "_old"
