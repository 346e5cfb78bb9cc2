"""How to restore a backup by hand: the text that each backup has with it."""

from __future__ import annotations

import shlex
from typing import Any

from compose_chap.engine.engine import compose_command
from compose_chap.model import Role, Stack
from compose_chap.postgres.server import identifier


def text(stack: Stack, manifest: dict[str, Any]) -> str:
    """Return the text of RESTORE.txt: the very commands for this stack."""
    compose = shlex.join(["docker", *compose_command(stack.project)])
    writers = " ".join(service.name for service in stack.writers)
    name, owner, admin = map(shlex.quote, (stack.access.name, stack.access.owner, stack.access.admin))
    old = shlex.quote(f"{stack.access.name}_old")
    inside = f"{compose} exec -T {stack.database.name}"
    rename = _renaming(stack.access.name)
    versions = "\n".join(f"   {one['service']}: {one['image']}  {one['id']}" for one in manifest["images"])
    compare, files = "with those in files/", ", ".join(map(str, stack.project.absent))
    if files:
        compare = "with your own copy of them"
        files = f"\nThe Compose files are NOT in this backup. They are on the server: {files}\nGo there for this.\n"
    told = f"""\
This folder is a backup of CHAP {manifest["chap"]["version"]}, made {manifest["created_at"]}.
The easy way to restore it:

    docker chap restore {manifest["id"]}
{files}
By hand, without that tool, in this folder. The old database is kept under another name.

1. Stop what writes to the database:
   {compose} stop {writers}
2. Keep the old database, and make a new one:
   {inside} psql -U {admin} -d postgres -c {rename}
   {inside} createdb -U {admin} -O {owner} {name}
3. Put the dump into it. It must end without an error:
   {inside} pg_restore -U {admin} -d {name} --exit-on-error < {manifest["dump"]["file"]}
4. If the Compose files were changed since, compare them {compare}. The images were:
{versions}
5. Start CHAP again:
   {compose} up -d --no-deps {writers}

When CHAP works again, the old database can go:
   {inside} dropdb -U {admin} {old}
"""
    if dhis2 := manifest["dhis2"]:
        name, owner, admin = map(shlex.quote, (dhis2["database"]["name"], dhis2["database"]["owner"], dhis2["admin"]))
        inside = f"{compose} exec -T {dhis2['service']}"
        rename = _renaming(dhis2["database"]["name"])
        # A command without the name of a service would stop everything.
        others = " ".join(one.name for one in stack.of(Role.DHIS2)) or "DHIS2-SERVICE"
        told += f"""
DHIS2's database. Stop DHIS2, keep the old one, restore, start:
   {compose} stop {others}
   {inside} psql -U {admin} -d postgres -c {rename}
   {inside} createdb -U {admin} -O {owner} {name}
   {inside} pg_restore -U {admin} -d {name} --exit-on-error < {dhis2["dump"]["file"]}
   {compose} start {others}
"""
    for one in manifest["volumes"]:
        source = f"gunzip -c {one['file']} | {compose} cp - {one['service']}:{one['path']}"
        if not one["volume"]:
            source = f"{compose} cp {one['file']} {one['service']}:{one['path']}"
        told += f"\n{one['volume'] or 'Data of ' + one['service']}:\n   {source}\n"
    return told


def _renaming(name: str) -> str:
    return shlex.quote(f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(f'{name}_old')}")
