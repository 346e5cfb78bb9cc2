"""Pull an image over a link that breaks."""

from __future__ import annotations

from compose_chap.engine.engine import Image
from compose_chap.engine.world import World
from compose_chap.errors import EngineError
from compose_chap.image import Reference

_PULL_TRIES = 4


def pull(world: World, reference: Reference, platform: str) -> Image:
    """Pull an image, trying again when the link breaks; without the registry, one that is here is good enough."""
    name = str(reference)
    for attempt in range(1, _PULL_TRIES + 1):
        try:
            world.engine.pull(
                reference.repository,
                reference.digest or reference.tag,
                platform,
                lambda done, total: world.notify("pull", name, done, total),
            )
            break
        except EngineError:
            # A site without internet loads images from a stick: what is here is good enough.
            if found := world.engine.image(name):
                return found
            if attempt == _PULL_TRIES:
                raise
            world.notify("pull", f"{name}: the link broke, try {attempt + 1} of {_PULL_TRIES}")
            world.sleep(2.0**attempt)
    found = world.engine.image(name)
    if not found:
        raise EngineError(f"The image {name} was pulled, and the engine does not have it.")
    return found
