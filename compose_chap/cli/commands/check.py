"""The commands that look before an upgrade: check, versions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from compose_chap import units
from compose_chap.check import Check
from compose_chap.cli.call import Call, common
from compose_chap.cli.command_table import command
from compose_chap.cli.options import output_option
from compose_chap.cli.screen import sentences
from compose_chap.cli.screen.checks import checks_text, summary
from compose_chap.cli.screen.layout import paragraph, table
from compose_chap.cli.values import versions
from compose_chap.errors import RegistryError
from compose_chap.image import release_tag
from compose_chap.preflight import preflight
from compose_chap.preflight.subject import Subject
from compose_chap.project import checkout
from compose_chap.project.checkout import Head
from compose_chap.stack import observe, releases
from compose_chap.stack.releases import Release


@command("check")
@click.argument("version", shell_complete=versions, default="")
@output_option
@common
def check_command(call: Call, version: str, output: Path | None) -> None:
    """Run the checks that come before an upgrade.

    Nothing is changed. With VERSION, the checks are for the upgrade to it: its images, its notes, the free space, the
    changes to the files. The exit status is 1 when a check fails, 0 when all are good or only warn.
    """
    target = release_tag(version) if version else ""
    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    checks = preflight.examine(call.subject(world, stack, target, output))
    good = not any(check.failed for check in checks)
    call.result(
        {"ok": good, "checks": [asdict(check) for check in checks]},
        f"{checks_text(checks)}\n\n{_verdict(checks, version and target)}",
    )
    if not good:
        raise click.exceptions.Exit(1)


def _verdict(checks: Sequence[Check], target: str) -> str:
    failed = any(check.failed for check in checks)
    verdict = paragraph(sentences.verdict(target, summary(checks), failed=failed))
    return verdict if failed or not target else f"{verdict}\n  docker chap upgrade {target}"


@command("versions")
@common
def versions_command(call: Call) -> None:
    """List the versions that CHAP can move to, newest last.

    These are the releases that the registry has for the API and for the worker; without a registry, those that are
    loaded on this engine; from source, the release tags of the checkout's remote.
    """
    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    subject = call.subject(world, stack, "", None)
    world.notify("ask", "the registry for versions")
    head = None
    if local_checkout := subject.checkout:
        head = local_checkout.head
        tags, problem = checkout.releases(local_checkout)
        listed = [Release(tag) for tag in tags]
        if problem:
            call.tell(paragraph(sentences.note(f"{sentences.ONLY_TAGS_HERE} {problem}"), sys.stderr))
    else:
        listed, problem = _of_registry(call, subject)
        tags = [release.tag for release in listed]
    if not problem:
        releases.remember(releases.repositories_of(stack), world.environment, world.clock(), tags)
    text = _table(listed, subject.release, head)
    if head and f"v{subject.release}" not in tags:
        text += f"\n{subject.release or 'unknown'}  (running, {head}, not a release)"
    call.result(
        {
            "running": subject.release,
            "versions": tags,
            "releases": [asdict(release) for release in listed],
            "commit": head.commit if head else None,
        },
        text or sentences.NO_RELEASE,
    )


def _of_registry(call: Call, subject: Subject) -> tuple[list[Release], str]:
    """Return the registry's releases; where it cannot be asked, those that are loaded, and why."""
    here = releases.loaded(subject.world.engine, subject.images)
    try:
        tags = releases.available(subject.registry, subject.images)
    except RegistryError as error:
        if not here:
            raise
        note = paragraph(sentences.note(f"{sentences.ONLY_IMAGES_HERE} {error.message}"), sys.stderr)
        call.tell(f"{note}\n{error.hint}".rstrip())
        return [Release(tag, here=True) for tag in here], error.message
    return releases.described(subject.registry, subject.images, tags, subject.platform, here), ""


def _table(listed: Sequence[Release], running: str, head: Head | None) -> str:
    rows = []
    for release in listed:
        marks = [f"running{f', {head}' if head else ''}"] if release.tag == f"v{running}" else []
        marks += ["newest"] if release is listed[-1] else []
        size = units.size(release.size) if release.size is not None else ""
        rows.append([release.tag, release.created[:10], size, "here" if release.here else "", ", ".join(marks)])
    return table(rows, ["VERSION", "RELEASED", "PULL", "IMAGES", ""]) if rows else ""
