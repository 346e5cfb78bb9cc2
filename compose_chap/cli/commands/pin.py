"""The command that changes nothing but the Compose files: pin."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import click

from compose_chap.cli.call import Call, common
from compose_chap.cli.command_table import command
from compose_chap.cli.options import wait_lock_option
from compose_chap.cli.recorded import recorded
from compose_chap.cli.screen import render, sentences
from compose_chap.cli.values import versions
from compose_chap.engine.registries.address import is_loopback
from compose_chap.engine.registries.registry import Registry
from compose_chap.errors import RegistryError
from compose_chap.image import Reference, release_tag
from compose_chap.operations import guard
from compose_chap.project import pin
from compose_chap.project.compose_files import Model
from compose_chap.records import lock, run_records
from compose_chap.records.files import durable
from compose_chap.stack import location


@command("pin")
@click.argument("version", shell_complete=versions)
@click.option("--digest", is_flag=True, help="Write the digest too, as the registry gives it.")
@click.option("--dry-run", is_flag=True, help="Show the changes to the files, and change nothing.")
@wait_lock_option
@common
def pin_command(call: Call, version: str, digest: bool, dry_run: bool) -> None:
    """Write a version into the Compose files, and nothing else.

    No container is touched, and no engine is needed. To upgrade a stack that runs, use `docker chap upgrade`.
    """
    tag = release_tag(version)
    model = location.read_project(call.where())
    services = pin.chap_services(model)
    digests = _digests(model, services, tag) if digest else {}
    edits = pin.edits(model, {name: pin.NewTag(tag, digests.get(name, "")) for name in services})
    diff = pin.diff(edits)
    data = {"changed": bool(edits) and not dry_run, "services": list(services), "diff": diff}

    if not edits:
        call.result(data, sentences.files_name_it(tag, list(services)))
        return
    if not dry_run:
        directory = model.layout.project_directory
        world = call.world()
        lock_it = partial(lock.locked, directory, "pin", world.clock())
        with recorded(call, directory) as attempt, guard.waited_for(world, call.wait_lock, lock_it):
            attempt.learn(f"to {tag}", to=tag, files=[str(edit.path) for edit in edits])
            journal = run_records.begin_run(directory, "pin", {"edits": durable.pack_edits(edits)}, render.now, to=tag)
            try:
                durable.apply_edits(edits)
            except BaseException:
                durable.revert_edits(edits)
                journal.end("failed")
                raise
            journal.end("done")
    call.result(data, diff.rstrip())


def _digests(model: Model, services: Sequence[str], tag: str) -> dict[str, str]:
    """Return the registry's digest of a tag of each service's image. Raise RegistryError when it has none."""
    registry, digests = Registry(is_loopback), {}
    for name in services:
        image = Reference.parse(str(model.services[name].image or ""))
        manifest = registry.manifest(image.with_tag(tag))
        if manifest is None:
            raise RegistryError(f"The registry does not have {image.with_tag(tag)}.", hint="docker chap versions")
        digests[name] = manifest.digest
    return digests
