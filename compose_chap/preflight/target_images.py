"""The check of the target's images: whether the registry has them, how much there is to pull, how old they are."""

from __future__ import annotations

from datetime import datetime

from compose_chap import units
from compose_chap.check import Finding, fail, ok, skipped, warn
from compose_chap.errors import ChapError
from compose_chap.image import nearest_releases
from compose_chap.preflight.subject import Subject
from compose_chap.stack.releases import available

_YOUNG_DAYS = 3


def _images(subject: Subject) -> Finding:
    if subject.built:
        return skipped("The images are built, not pulled.")
    engine = subject.world.engine
    try:
        manifests = subject.manifests
    except ChapError as error:
        missing = [str(reference) for reference in subject.images.values() if not engine.image(str(reference))]
        if missing:
            return fail(f"{error.message} Not on this server: {', '.join(missing)}.", error.hint)
        return warn(f"{error.message} The images that are on this server will be used.")

    absent = [str(subject.images[name]) for name, manifest in manifests.items() if manifest is None]
    if absent and not all(engine.image(reference) for reference in absent):
        partly = len(absent) < len(manifests)
        note = " The other image has that tag: this one may not be published yet." if partly else ""
        return fail(f"The registry does not have {', '.join(absent)}.{note}", _suggest(subject))
    size, age = to_pull(subject), _age(subject)
    pull = f"To pull: at most {units.size(size)}." if size else "Nothing to pull."
    if age is not None and age < _YOUNG_DAYS:
        message = f"Both images exist. They are very new: they were made {_days(age)}."
        return warn(f"{message} {pull}")
    return ok(f"Both images exist. {pull}", details={"bytes": size})


def _days(age: int) -> str:
    return "today" if age < 1 else f"{age} day{'s' if age > 1 else ''} ago"


def to_pull(subject: Subject) -> int:
    """Return the bytes to pull: every layer of the new images once, without images that are here already."""
    layers: dict[str, int] = {}
    for name, manifest in subject.manifests.items():
        if manifest and not subject.world.engine.image(str(subject.images[name])):
            layers.update(manifest.layers)
    return sum(layers.values())


def _age(subject: Subject) -> int | None:
    made = [
        manifest.created[:10] for manifest in subject.manifests.values() if manifest and manifest.created[:4] > "1980"
    ]
    try:
        return (subject.world.clock().date() - datetime.fromisoformat(max(made)).date()).days if made else None
    except ValueError:
        return None


def _suggest(subject: Subject) -> str:
    try:
        releases = [release for release in available(subject.registry, subject.images) if release != subject.target]
    except ChapError:
        return "See what there is: docker chap versions"
    return f"Nearest: {', '.join(nearest_releases(subject.target, releases)) or 'none'}. See all: docker chap versions"


CHECK = ("images", ("stack",), _images)
