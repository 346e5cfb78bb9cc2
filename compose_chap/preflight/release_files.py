"""The checks of what the target's files would make of a stack: they look ahead, at files that are not there yet.

From source a release brings Compose files of its own. Images leave the files alone but for their tags.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from compose_chap.check import Check
from compose_chap.image import Reference
from compose_chap.preflight import env_settings, service_changes
from compose_chap.preflight.subject import Subject
from compose_chap.project import checkout_move


def _of_release(look: Callable[[Subject], Check]) -> Callable[[Subject], Check]:
    """Return a look that is only for releases with files of their own."""

    @functools.wraps(look)
    def looked(subject: Subject) -> Check:
        return look(subject) if subject.move else Check("", "skipped", "CHAP is not built from source.")

    return looked


def _compose_files(subject: Subject) -> Check:
    if absent := subject.stack.project.absent:
        hint = "Run this on the server where they are, or name a copy of them with --project-directory and -f."
        return Check("", "fail", f"They are not on this machine: {', '.join(map(str, absent))}.", hint)
    return Check("", "ok", f"{', '.join(map(str, subject.stack.project.files))}.")


@_of_release
def _sources(subject: Subject) -> Check:
    assert subject.move
    checkout_move.refuse_what_cannot_move(subject.move)
    return Check("", "ok", f"Checkout {subject.move.folder}: from {subject.move.before} to {subject.move.after}.")


@_of_release
def _services(subject: Subject) -> Check:
    before, after = subject.model, subject.after
    needed = [*(writer.name for writer in subject.stack.writers), subject.stack.database.name]
    if missing := [name for name in needed if name not in after.services]:
        return Check(
            "",
            "fail",
            f"The files of {subject.target} have no service {', '.join(missing)}, which runs now.",
            "This release needs the upgrade by hand: follow CHAP's own guide.",
        )
    if lost := list(service_changes.lost_networks(after)):
        return Check(
            "",
            "fail",
            f"The files of {subject.target} no longer define what a file of yours uses: {'; '.join(lost)}.",
            "Define the network in your own file, or take it out there.",
        )
    said = [f"New, and not started by the upgrade: {name}." for name in service_changes.added(before, after)]
    said += [f"No longer in the files, and left running: {name}." for name in service_changes.removed(before, after)]
    said += [f"Ports change: {port}." for port in service_changes.ports(before, after, needed)]
    if said:
        return Check("", "warn", " ".join(said), "After the upgrade: docker compose up -d, for all that is new.")
    return Check("", "ok", "The files of before and after have the same services.")


@_of_release
def _settings(subject: Subject) -> Check:
    for service in subject.stack.writers:
        if other := env_settings.other_access(subject.after, service):
            names = ", ".join(env_settings.url_variables(subject.after, service.name))
            return Check(
                "",
                "fail",
                f"With the files of {subject.target}, {service.name} would look for its database with another"
                f" {', '.join(other)} than now.",
                f"Take {names} out of {subject.env_file}: what is true is then written there."
                if names
                else f"Keep {env_settings.URL} of now in a Compose file of your own (-f).",
            )
    if subject.settings:
        said = ", ".join(f"{setting.name} (as {setting.service} has it)" for setting in subject.settings)
        return Check("", "ok", f"To be written into {subject.env_file}: {said}.")
    return Check("", "ok", "CHAP finds its database as now.")


@_of_release
def _data_mount(subject: Subject) -> Check:
    name = subject.stack.database.name
    if moved := service_changes.moved(subject.model, subject.after, name):
        return Check(
            "",
            "fail",
            f"The database would be looked for elsewhere, and found empty: {'; '.join(moved)}.",
            "Keep the mount of now in a Compose file of your own, and name that file too with -f when you start CHAP.",
        )
    return Check("", "ok", f"The data of {name} stay where they are.")


@_of_release
def _mounts(subject: Subject) -> Check:
    names = [service.name for service in subject.stack.writers]
    if moved := [one for name in names for one in service_changes.moved(subject.model, subject.after, name)]:
        copies = [
            f"docker compose -p {subject.stack.project.name} cp {shlex.quote(folder)}/. {name}:{place}"
            for name in names
            for folder, place in service_changes.copies(subject.model, subject.after, name)
        ]
        return Check(
            "",
            "fail",
            f"CHAP would look for its files elsewhere, and not find those of now: {'; '.join(moved)}.",
            "They stay where they are, and nothing copies them. Go on with --allow-moved-mounts"
            + (f".\nAfter it, if you need them: {copies[0]}" if copies else "."),
        )
    return Check("", "ok", "The volumes of CHAP stay as they are.")


@_of_release
def _folders(subject: Subject) -> Check:
    names = [service.name for service in subject.stack.writers]
    here = subject.world.engine.address.startswith("unix:")
    folders = service_changes.folders(subject.after, names) if here else []
    # Older Compose refuses to start such a service; newer makes the folder as root, and CHAP cannot write there.
    if missing := [folder for folder in folders if not Path(folder).exists()]:
        give = f"chown $(docker compose exec {names[-1]} id -u) {shlex.quote(missing[0])}"
        return Check(
            "",
            "fail",
            f"The files of {subject.target} mount what is not there: {', '.join(missing)}.",
            f"{shlex.join(['mkdir', '-p', *missing])}\nIf CHAP cannot write there afterwards: {give}",
        )
    return Check("", "ok", "Every folder that CHAP mounts is there.")


def _postgresql(subject: Subject) -> Check:
    runs, service = subject.server.version() // 10000, subject.stack.database
    model = subject.after if subject.move else subject.model
    definition = model.services.get(service.name)
    image = Reference.parse(str(definition.image or "")) if definition else Reference("")
    # Only of these does it mean PostgreSQL's own number.
    number = re.match(r"\d+", image.tag) if image.name in _POSTGRESQL else None
    wrong = "fail" if subject.target else "warn"
    hint = f"Write {image.repository}:{runs} into the files; from source, into a Compose file of your own."
    if number and int(number[0]) != runs:
        said = "The next `docker compose up` would start a server that cannot read the data."
        return Check("", wrong, f"PostgreSQL {runs} runs, and the files say {image}. {said}", hint)
    if number or not image.repository or image.digest or image.tag not in ("", "latest"):
        return Check("", "ok", f"PostgreSQL {runs} runs, and stays as it is.")

    named = subject.world.engine.image(str(image))
    unsaid = f"PostgreSQL {runs} runs, and the files do not say which one they mean: {image}."
    if named is None or named.id != service.containers[0].image_id:
        said = "That is another image now. The next `docker compose up` would start it, and it may not read the data."
        return Check("", wrong, f"{unsaid} {said}", hint)
    return Check("", "warn", f"{unsaid} This upgrade leaves the very image that runs; a later pull would not.", hint)


_POSTGRESQL = ("postgres", "postgis", "postgresql")

OF_RELEASE = (_sources, _services, _settings, _data_mount, _mounts, _folders)

BEFORE_ALL = ("compose_files", (), _compose_files)
CHECKS = (
    ("sources", ("stack", "compose_files"), _sources),
    ("services", ("stack", "sources"), _services),
    ("settings", ("services",), _settings),
    ("data_mount", ("services",), _data_mount),
    ("mounts", ("services",), _mounts),
    ("folders", ("services",), _folders),
    ("postgresql", ("database", "sources"), _postgresql),
)
