"""Checks of the running containers against the files: how a recreated container would differ.

When the files name another image than the running one, a rollback would be impossible: this cannot be overridden.
"""

from __future__ import annotations

from compose_chap.check import Finding, fail, ok
from compose_chap.preflight.subject import Subject
from compose_chap.stack import would_differ


def _named_images(subject: Subject) -> Finding:
    differing = {
        f"{container.name} runs {container.image}, the files say {wanted}": service.name
        for service in subject.stack.writers
        if service.name in subject.model.services and (wanted := subject.model.services[service.name].image) is not None
        for container in service.containers
        if str(wanted) != container.image
    }
    if differing:
        names = dict.fromkeys(differing.values())
        return fail(
            f"{'. '.join(differing)}. An upgrade that fails could not go back to what runs.",
            "Let the files name what runs: docker chap pin VERSION\nOr first run what they name: "
            + subject.stack.project.by_hand("up", "-d", "--no-deps", *names),
        )
    return ok("The files name the images that run.")


def _drift(subject: Subject) -> Finding:
    containers = {service.name: service.containers for service in subject.stack.writers}
    if differing := would_differ.differences(subject.world.engine, subject.stack.project, containers):
        return fail(
            f"What runs differs from the files. {would_differ.text(differing)}.",
            "A recreated container would get the new settings. Put them back as they were, or use --allow-drift.",
            {"services": differing},
        )
    return ok("The running containers are what the files say.")


CHECKS = (
    ("named_images", ("stack", "compose_files"), _named_images),
    ("drift", ("compose", "named_images"), _drift),
)
