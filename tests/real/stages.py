"""What is tried on a road, each from the road's beginning, and how it has to end.

The first says what is so, without the tool. The others are about the tool, and are judged by SQL, by the API and by the
files; of its words only those that an operator needs to go on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tests.real.journey import Journey, Outcome
from tests.real.releases import RELEASES, Release
from tests.real.roads import Road
from tests.real.truth import by_hand, mark

# As tests/real/inside/rows.py writes them: templates, and backtests, of which two ran under the same parameters.
LENGTHS = [["1", "6"], ["2", "12"]]
PARAMETERS = [["3", "4", "2", "1", "climatology"]] * 2 + [["4", "3", "1", "1", "climatology"]]
UNCHANGED = "every table the same"


def stages(road: Road) -> Iterator[Callable[[Journey], None]]:
    """Yield what is to be tried on this road, in order."""
    yield what_becomes_of_the_data
    yield backup_and_restore
    if road.refused:
        yield refusal
        yield insisting
    elif road.good:
        yield upgrade_and_rollback
    else:
        yield failed_upgrade
    if road.repaired:
        yield repair
        yield repair_rehearsed
    if road.stop:
        yield the_road_by_its_stop
    yield rehearsal


def what_becomes_of_the_data(journey: Journey) -> None:
    """Under the new release the data become what is known of this road."""
    road, stack = journey.road, journey.stack
    assert stack.counts()["observation"] >= 50_000 and min(stack.counts().values()) >= 1
    assert journey.lengths() == LENGTHS and mark(stack) == (road.stuck_at or road.old.head)
    became = by_hand(stack, road.new)
    journey.line["became"] = f"{became.verdict} ({became.mark or 'no mark'})"
    assert became.verdict == road.verdict, became
    assert not journey.at_the_beginning()


def backup_and_restore(journey: Journey) -> None:
    """A backup brings every row back."""
    stack = journey.stack
    made = journey.chap("backup")
    assert made.status == 0, made.printed
    stack.sql(
        "DELETE FROM observation WHERE id % 3 = 0; UPDATE prediction SET name = 'other'; DELETE FROM backtestmetric"
    )
    assert journey.at_the_beginning()
    restored = journey.chap("restore", made.document["backup"]["id"], "--yes")
    wrong = journey.at_the_beginning()
    journey.line["restore"] = f"exit {restored.status}, {'; '.join(wrong) or UNCHANGED}"
    assert restored.status == 0 and not wrong, (wrong, restored.printed)


def upgrade_and_rollback(journey: Journey) -> None:
    """A good upgrade ends well, says what it costs, and can be undone to the last row."""
    road = journey.road
    done = upgrade(journey, road.new)
    judge(journey, road.new)
    back = journey.chap("rollback", "--yes")
    wrong = journey.at_the_beginning()
    journey.line["rollback"] = f"exit {back.status}, {'; '.join(wrong) or UNCHANGED}"
    assert back.status == 0 and not wrong, (wrong, back.printed)
    if road.loses_lengths:
        # For good, unless a person reads it here: the values are in the kept copy alone.
        assert "min_prediction_length" in done.printed and "UPDATE" in done.printed, done.printed
    if road.verdict == "mark behind":
        assert {road.old.head, road.new.head} <= set(re.findall(r"[0-9a-f]{12}", done.printed)), done.printed


def refusal(journey: Journey) -> None:
    """An upgrade that cannot end well is refused before it begins, and what to do instead is named."""
    road = journey.road
    refused = journey.chap("upgrade", road.new.tag, "--yes")
    journey.line["upgrade"] = f"exit {refused.status}"
    wrong = journey.at_the_beginning()
    assert refused.status == 1 and road.instead in refused.printed and not wrong, (wrong, refused.printed)


def insisting(journey: Journey) -> None:
    """Who insists on an upgrade that cannot end well gets all old, every row the same."""
    road = journey.road
    refused = journey.chap("upgrade", road.new.tag, "--yes")
    flags = set(re.findall(r"--[a-z][a-z-]+", refused.printed)) - {"--yes", "--json", "--repair"}
    assert len(flags) == 1, f"the flag that overrides is named, and no other: {flags} {refused.printed}"
    came_back(journey, journey.chap("upgrade", road.new.tag, "--yes", *flags))


def failed_upgrade(journey: Journey) -> None:
    """An upgrade whose API fails to start is rolled back, with the reason and, where there is one, the stop."""
    road = journey.road
    failure = journey.chap("upgrade", road.new.tag, "--yes")
    came_back(journey, failure)
    assert "NotNullViolation" in failure.printed and "target_column" in failure.printed, failure.printed
    assert road.instead in failure.printed, failure.printed


def repair(journey: Journey) -> None:
    """What is known to go wrong is put right on the way, where that is asked for."""
    road = journey.road
    upgrade(journey, road.new, "--repair")
    judge(journey, road.new, lengths_lost=False)
    back = journey.chap("rollback", "--yes")
    wrong = journey.at_the_beginning()
    assert back.status == 0 and not wrong, (wrong, back.printed)


def repair_rehearsed(journey: Journey) -> None:
    """A rehearsal with the repair ends as the upgrade with it does, and leaves production alone."""
    rehearsed = journey.chap("rehearse", journey.road.new.tag, "--repair")
    wrong = journey.at_the_beginning()
    assert rehearsed.status == 0 and rehearsed.document["repairs"] and not wrong, (wrong, rehearsed.printed)


def the_road_by_its_stop(journey: Journey) -> None:
    """The stop that a failure names leads to the release that was wanted."""
    road = journey.road
    stop = RELEASES[road.stop]
    for release in (stop, road.new):
        upgrade(journey, release)
    judge(journey, road.new, lengths_lost=road.old.head is None)
    back = journey.chap("rollback", "--yes")
    assert back.status == 0 and journey.stack.version() == stop.version, back.printed
    assert not journey.changed_values()
    # Last, because it saves a backtest.
    judge(journey, stop, lengths_lost=road.old.head is None)


def rehearsal(journey: Journey) -> None:
    """A rehearsal ends as the upgrade would, and leaves production alone."""
    road = journey.road
    rehearsed = journey.chap("rehearse", road.new.tag)
    wrong = journey.at_the_beginning()
    journey.line["rehearse"] = f"exit {rehearsed.status}{', production changed' if wrong else ''}"
    assert not wrong, (wrong, rehearsed.printed)
    assert rehearsed.status == (0 if road.good else 1), rehearsed.printed
    if road.verdict == "does not start" and not road.refused:
        assert "target_column" in rehearsed.printed, rehearsed.printed
    assert road.instead in rehearsed.printed, rehearsed.printed


def upgrade(journey: Journey, release: Release, *words: str) -> Outcome:
    """Upgrade, which has to succeed, and check what does not depend on the release: rows, files, other containers."""
    begun = journey.stack.written()
    was = journey.stack.version() or ""
    done = journey.chap("upgrade", release.tag, "--yes", *words)
    journey.line.setdefault("upgrade", f"exit {done.status}")
    assert done.status == 0, done.printed
    assert not journey.changed_values()
    changed = {name: text.replace(f":v{was}".encode(), f":{release.tag}".encode()) for name, text in begun.items()}
    assert journey.stack.written() == changed and journey.other_containers() == journey.others
    return done


def judge(journey: Journey, release: Release, lengths_lost: bool | None = None) -> None:
    """Check by SQL and by the API what the data have become under a release that runs."""
    road = journey.road
    lost = road.loses_lengths if lengths_lost is None else lengths_lost
    assert journey.lengths() == ([["0", "0"]] * 2 if lost else LENGTHS)
    if release.version >= "2.3":
        parameters = journey.parameters()
        assert [row[:-1] for row in parameters[:3]] == PARAMETERS
        assert parameters[0][-1] == parameters[1][-1] != parameters[2][-1]
    became = journey.look(release)
    if release == road.new:
        journey.line.setdefault("truth", became.verdict)
    assert became.verdict == (road.verdict if road.good else "good"), became


def came_back(journey: Journey, failure: Outcome) -> None:
    """Check that an upgrade failed and left nothing of itself."""
    wrong = journey.at_the_beginning()
    journey.line["upgrade"] = ", then ".join(filter(None, [journey.line.get("upgrade"), f"exit {failure.status}"]))
    journey.line["rollback"] = f"by itself, {'; '.join(wrong) or UNCHANGED}"
    assert failure.status == 3 and not wrong, (wrong, failure.printed)
