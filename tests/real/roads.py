"""The roads from release to release that are tried, and what is known of each before it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.real.releases import RELEASES, Release

# A chain whose revision f2a3b4c5d6e1 sets target_column, which the known one does not.
MENDED = {"CHAP_TEST_TARGET_COLUMN": "disease_cases"}


@dataclass(frozen=True)
class Road:
    """From one release to another; `verdict` is what becomes of the data under the new one, as `truth.Became` has it.

    `instead` is what a refusal or a failure has to name: a release, or the flag that repairs. `stop` is the release by
    which the road is good. `stuck_at` is the mark that the database has, where the old release would have another.
    """

    old: Release
    new: Release
    verdict: str
    instead: str = ""
    stop: str = ""
    stuck_at: str = ""
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the road is called in a test's name and in the table."""
        return (
            f"{self.old.version}-to-{self.new.version}"
            + "-mended" * bool(self.settings)
            + "-stuck" * bool(self.stuck_at)
        )

    @property
    def refused(self) -> bool:
        """Whether an upgrade is refused before it begins: what will become of the data can be known."""
        return self.verdict == "not migrated" or bool(self.stuck_at)

    @property
    def good(self) -> bool:
        """Whether an upgrade ends well."""
        return self.verdict in ("good", "mark behind")

    @property
    def repaired(self) -> bool:
        """Whether the road is good with `--repair`."""
        return self.loses_lengths or bool(self.stuck_at) or self.verdict == "does not start"

    @property
    def loses_lengths(self) -> bool:
        """Whether the bounds of a model's horizon become 0 on the way: upstream's fault at v2.2.0."""
        return self.good and self.old.head is None and self.new.head is not None


def _road(old: str, new: str, verdict: str, **more: Any) -> Road:
    return Road(RELEASES[old], RELEASES[new], verdict, **more)


ROADS = (
    _road("2.0.0", "2.1.0", "good"),
    _road("2.1.0", "2.2.0", "good"),
    _road("2.2.0", "2.3.1", "not migrated", instead="v2.4.0"),
    _road("2.3.0", "2.3.1", "mark behind"),
    _road("2.3.1", "2.4.0", "good"),
    _road("2.1.0", "2.5.1", "does not start", instead="v2.3.1", stop="2.3.1"),
    _road("2.0.0", "2.5.1", "does not start", instead="v2.3.1"),
    _road("2.1.0", "2.5.1", "good", settings=MENDED),
    _road("2.0.0", "2.5.1", "good", settings=MENDED),
    # v2.3.x does not migrate what v2.2.0 has made, and newer ones do not start on its backtests: only a repair helps.
    _road("2.2.0", "2.4.0", "does not start", instead="--repair"),
    _road("2.2.0", "2.5.1", "does not start", instead="--repair"),
    _road("2.2.0", "2.4.0", "good", settings=MENDED),
    _road("2.1.0", "2.2.0", "does not start", instead="--repair", stuck_at="ff2b1bbb8418"),
)
