"""The commands that look before an upgrade: check, versions."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from compose_chap.cli.call import Call, common, output_option
from compose_chap.cli.screen import render
from compose_chap.cli.values import versions
from compose_chap.image import release_tag
from compose_chap.preflight import preflight
from compose_chap.project import checkout
from compose_chap.project.checkout import Head
from compose_chap.stack import observe, releases


@click.command("check")
@click.argument("version", shell_complete=versions, default="")
@output_option
@common
def check_command(call: Call, version: str, output: Path | None) -> None:
    """Run the checks that come before an upgrade.

    Nothing is changed. With VERSION, the checks are for the upgrade to it: its images, its notes, the free space, the
    changes of the files. The exit status is 1 when a check fails, 0 when all are good or only warn.
    """
    target = release_tag(version) if version else ""
    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    checks = preflight.examine(call.subject(world, stack, target, output))
    good = not any(check.failed for check in checks)
    call.result(
        {"ok": good, "checks": [asdict(check) for check in checks]},
        render.checks_text(checks, colour=render.colourful(sys.stdout)),
    )
    if not good:
        raise click.exceptions.Exit(1)


@click.command("versions")
@common
def versions_command(call: Call) -> None:
    """List the versions that CHAP can move to, newest last.

    These are the releases that the registry has for the API and for the worker; from source, the
    release tags of the checkout's remote.
    """
    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    subject = call.subject(world, stack, "", None)
    place = None
    if source := subject.checkout:
        place = source.head
        found, problem = checkout.releases(source)
        if problem:
            call.tell(f"Note:  Only the tags of this clone are listed. {problem}")
    else:
        found, problem = releases.available(subject.registry, subject.images), ""
    if not problem:
        releases.remember(releases.repositories_of(stack), world.environment, world.clock(), found)
    lines = [_marked(one, subject.release, place) for one in found]
    if place and f"v{subject.release}" not in found:
        lines.append(f"{subject.release or 'unknown'}  (running, {place}, no release)")
    call.result(
        {"running": subject.release, "versions": found, "commit": place.commit if place else None},
        "\n".join(lines) or "There is no release.",
    )


def _marked(release: str, running: str, place: Head | None) -> str:
    if release != f"v{running}":
        return release
    return f"{release}  (running{f', {place}' if place else ''})"
