"""Checks of what the target's files would change in a stack, before they are checked out.

From source, a release brings its own Compose files. With images, only tags in the files change.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from compose_chap.check import Finding, fail, ok, skipped, warn
from compose_chap.image import Reference
from compose_chap.ownership import as_root
from compose_chap.preflight import env_variables, service_changes
from compose_chap.preflight.subject import Subject
from compose_chap.project import checkout_move


def _only_when_built(look: Callable[[Subject], Finding]) -> Callable[[Subject], Finding]:
    """Make a check skip itself unless CHAP is built from source."""

    @functools.wraps(look)
    def looked(subject: Subject) -> Finding:
        return look(subject) if subject.move else skipped("CHAP is not built from source.")

    return looked


def _compose_files(subject: Subject) -> Finding:
    if absent := subject.stack.project.absent:
        hint = "Run this on the server where they are, or name a copy of them with --project-directory and -f."
        return fail(f"They are not on this machine: {', '.join(map(str, absent))}.", hint)
    return ok(f"{', '.join(map(str, subject.stack.project.files))}.")


@_only_when_built
def _checkout(subject: Subject) -> Finding:
    assert subject.move
    checkout_move.refuse_what_cannot_move(subject.move)
    return ok(f"Checkout {subject.move.folder}: from {subject.move.before} to {subject.move.after}.")


@_only_when_built
def _services(subject: Subject) -> Finding:
    before, after = subject.model, subject.after
    needed = [*(writer.name for writer in subject.stack.writers), subject.stack.database.name]
    if missing := [name for name in needed if name not in after.services]:
        return fail(
            f"The files of {subject.target} have no service {', '.join(missing)}, which runs now.",
            "This release needs the upgrade by hand: follow CHAP's own guide.",
        )
    if lost := list(service_changes.lost_networks(after)):
        return fail(
            f"The files of {subject.target} no longer define what a file of yours uses: {'; '.join(lost)}.",
            "Define the network in your own file, or take it out there.",
        )
    added = list(service_changes.added(before, after))
    messages = [f"New, and not started by the upgrade: {name}." for name in added]
    messages += [
        f"No longer in the files, and left running: {name}." for name in service_changes.removed(before, after)
    ]
    messages += [f"Ports change: {port}." for port in service_changes.ports(before, after, needed)]
    if messages:
        start = subject.stack.project.by_hand("up", "-d", "--no-deps", *added)
        return warn(" ".join(messages), f"Start what is new after the upgrade: {start}" if added else "")
    return ok("The current and the new files have the same services.")


@_only_when_built
def _env_variables(subject: Subject) -> Finding:
    for service in subject.stack.writers:
        if other := env_variables.other_access(subject.after, service):
            names = ", ".join(env_variables.url_variables(subject.after, service.name))
            return fail(
                f"With the files of {subject.target}, {service.name} would look for its database with another"
                f" {', '.join(other)} than now.",
                f"Take {names} from {subject.env_file}: the upgrade then writes the right value there."
                if names
                else f"Keep {env_variables.URL} as it is now in a Compose file of your own (-f).",
            )
    if subject.missing_variables:
        variables = ", ".join(
            f"{variable.name} (as {variable.service} has it)" for variable in subject.missing_variables
        )
        return ok(f"To be written into {subject.env_file}: {variables}.")
    return ok("CHAP will find its database.")


@_only_when_built
def _data_mount(subject: Subject) -> Finding:
    name = subject.stack.database.name
    if moved := service_changes.moved(subject.model, subject.after, name):
        return fail(
            f"CHAP would look for its database elsewhere, and find an empty one: {'; '.join(moved)}.",
            "Keep the current mount in a Compose file of your own, and name that file too with -f when you start CHAP.",
        )
    return ok(f"The data of {name} stay where they are.")


@_only_when_built
def _mounts(subject: Subject) -> Finding:
    names = [service.name for service in subject.stack.writers]
    if moved := [mount for name in names for mount in service_changes.moved(subject.model, subject.after, name)]:
        copies = [
            f"docker compose -p {subject.stack.project.name} cp {shlex.quote(folder)}/. {name}:{target}"
            for name in names
            for folder, target in service_changes.copies(subject.model, subject.after, name)
        ]
        return fail(
            f"CHAP would look for its files elsewhere, and not find the current ones: {'; '.join(moved)}.",
            "They stay where they are, and nothing copies them. Go on with --allow-moved-mounts"
            + (f".\nAfter it, if you need them: {copies[0]}" if copies else "."),
        )
    return ok("The volumes of CHAP stay as they are.")


@_only_when_built
def _folders(subject: Subject) -> Finding:
    names = [service.name for service in subject.stack.writers]
    local = subject.world.engine.address.startswith("unix:")
    folders = service_changes.folders(subject.after, names) if local else []
    # Older Compose refuses to start such a service; newer Compose makes the folder as root, unwritable for CHAP.
    if missing := [folder for folder in folders if not Path(folder).exists()]:
        user = f"$(docker compose -p {subject.stack.project.name} exec -T {names[-1]} id -u)"
        give = as_root(f"chown {user} {shlex.quote(missing[0])}")
        return fail(
            f"The files of {subject.target} mount folders that do not exist: {', '.join(missing)}.",
            f"Make them: {shlex.join(['mkdir', '-p', *missing])}\nIf CHAP cannot write there afterwards: {give}",
        )
    return ok("Every folder that CHAP mounts is there.")


def _postgresql(subject: Subject) -> Finding:
    running, service = subject.server.version() // 10000, subject.stack.database
    model = subject.after if subject.move else subject.model
    definition = model.services.get(service.name)
    image = Reference.parse(str(definition.image or "")) if definition else Reference("")
    # Only for these images is the tag PostgreSQL's version.
    number = re.match(r"\d+", image.tag) if image.name in _POSTGRESQL else None
    wrong = "fail" if subject.target else "warn"
    hint = f"Write {image.repository}:{running} into the files; from source, into a Compose file of your own."
    if number and int(number[0]) != running:
        consequence = "The next `docker compose up` would start a server that cannot read the data."
        return Finding(wrong, f"PostgreSQL {running} runs, and the files say {image}. {consequence}", hint)
    if number or not image.repository or image.digest or image.tag not in ("", "latest"):
        return ok(f"PostgreSQL {running} runs, and stays as it is.")

    image_named = subject.world.engine.image(str(image))
    unclear = f"PostgreSQL {running} runs, and the files do not say which one they mean: {image}."
    if image_named is None or image_named.id != service.containers[0].image_id:
        consequence = (
            "That is another image now. The next `docker compose up` would start it, and it may not read the data."
        )
        return Finding(wrong, f"{unclear} {consequence}", hint)
    return warn(f"{unclear} This upgrade keeps the image that runs; a later pull would not.", hint)


_POSTGRESQL = ("postgres", "postgis", "postgresql")

OF_RELEASE = (_checkout, _services, _env_variables, _data_mount, _mounts, _folders)

BEFORE_ALL = ("compose_files", (), _compose_files)
CHECKS = (
    ("sources", ("stack", "compose_files"), _checkout),
    ("services", ("stack", "sources"), _services),
    ("settings", ("services",), _env_variables),
    ("data_mount", ("services",), _data_mount),
    ("mounts", ("services",), _mounts),
    ("folders", ("services",), _folders),
    ("postgresql", ("database", "sources"), _postgresql),
)
