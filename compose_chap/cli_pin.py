"""The command that changes nothing but the Compose files: pin."""

from __future__ import annotations

import click

from compose_chap.cli_options import Call, common


@click.command("pin")
@click.argument("version")
@click.option("--digest", is_flag=True, help="Write the digest too, as the registry gives it.")
@click.option("--dry-run", is_flag=True, help="Show the changes of the files, and change nothing.")
@common
def pin_command(call: Call, version: str, digest: bool, dry_run: bool) -> None:
    """Write a version into the Compose files, and nothing else.

    No container is touched, and no engine is needed. To upgrade a stack that runs, use `docker chap upgrade`.
    """
    from compose_chap import lock, observe, pin, screen, state
    from compose_chap.stack import release_tag

    tag = release_tag(version)
    model = observe.read_project(call.where())
    services = observe.chap_services(model)
    digests = observe.digests(model, services, tag) if digest else {}
    found = pin.edits(model, {name: pin.Reference(tag, digests.get(name, "")) for name in services})
    diff = pin.diff(found)
    data = {"changed": bool(found) and not dry_run, "services": list(services), "diff": diff}

    if not found:
        call.result(data, f"The files already name {tag}: {', '.join(services)}.")
        return
    if not dry_run:
        directory = model.layout.project_directory
        with lock.locked(directory, "pin", screen.now()):
            edits = tuple(state.Edit(edit.path, edit.before, edit.after) for edit in found)
            journal = state.begin_run(directory, "pin", {"edits": state.pack_edits(edits)}, screen.now, to=tag)
            try:
                state.apply_edits(edits)
            except BaseException:
                state.revert_edits(edits)
                journal.end("failed")
                raise
            journal.end("done")
    call.result(data, diff.rstrip())
