"""What this build is: the only thing that differs between the sample's versions."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Release:
    """One version of the sample CHAP and the vice it was built with."""

    version: str
    vice: str
    image: str

    def at_least(self, version: str) -> bool:
        """Return whether this build is `version` or newer."""
        return _numbers(self.version) >= _numbers(version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


RELEASE = Release(**json.loads((Path(__file__).parent / "release.json").read_text()))
