"""Pull an image over an unreliable network."""

from __future__ import annotations

from compose_chap.engine.engine import Image
from compose_chap.engine.world import World
from compose_chap.errors import EngineError
from compose_chap.image import Reference

_PULL_TRIES = 4


def pull(world: World, reference: Reference, platform: str) -> Image:
    """Pull an image, with retries; where the registry is out of reach, an image that the engine has already will do."""
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
            # A site without internet loads images from a USB stick: use the local image.
            if image := world.engine.image(name):
                return image
            if attempt == _PULL_TRIES:
                raise
            world.notify("pull", f"{name}: the link broke, try {attempt + 1} of {_PULL_TRIES}")
            world.sleep(2.0**attempt)
    image = world.engine.image(name)
    if not image:
        raise EngineError(f"The image {name} was pulled, but the engine does not have it.")
    return image
