"""The main job along every road, on real releases: what becomes of the data, and what the tool makes of it.

The first test of a road says what is so, without the tool. The others are about the tool, and are judged by SQL, by the
API and by the files; of its words only those that an operator needs to go on.
"""

from __future__ import annotations

import re

import pytest

from tests.real.journey import Journey, Outcome
from tests.real.releases import RELEASES, Release
from tests.real.truth import by_hand, mark

# As tests/real/inside/rows.py writes them: templates, and backtests, of which two ran under the same parameters.
LENGTHS = [["1", "6"], ["2", "12"]]
PARAMETERS = [["3", "4", "2", "1", "climatology"]] * 2 + [["4", "3", "1", "1", "climatology"]]


def test_what_becomes_of_the_data(journey: Journey) -> None:
    road, stack = journey.road, journey.stack
    assert stack.counts()["observation"] >= 50_000 and min(stack.counts().values()) >= 1
    assert journey.lengths() == LENGTHS and mark(stack) == road.old.head
    became = by_hand(stack, road.new)
    journey.line["became"] = str(became)
    assert became.verdict == road.verdict, became
    assert not journey.at_the_beginning()


def test_upgrade_and_rollback(journey: Journey) -> None:
    road = journey.road
    if road.refused:
        refuse_and_insist(journey)
    elif not road.good:
        fail(journey)
    else:
        done = upgrade(journey, road.new)
        judge(journey, road.new)
        if road.loses_lengths:
            # For good, unless a person reads it here: the values are in the kept copy alone.
            assert "min_prediction_length" in done.printed and "UPDATE modeltemplatedb" in done.printed, done.printed
        if road.verdict == "mark behind":
            assert {road.old.head, road.new.head} <= set(re.findall(r"[0-9a-f]{12}", done.printed)), done.printed
        back = journey.chap("rollback", "--yes")
        wrong = journey.at_the_beginning()
        journey.line["rollback"] = f"exit {back.status}, {'; '.join(wrong) or 'every table the same'}"
        assert back.status == 0 and not wrong, (wrong, back.printed)


def refuse_and_insist(journey: Journey) -> None:
    """An upgrade that ends unmigrated is refused, the good road named; who insists has every row the same afterwards."""
    road = journey.road
    refusal = journey.chap("upgrade", road.new.tag, "--yes")
    journey.line["upgrade"] = f"exit {refusal.status}"
    assert refusal.status == 1 and road.instead in refusal.printed, refusal.printed
    assert not journey.at_the_beginning()
    flags = set(re.findall(r"--[a-z][a-z-]+", refusal.printed)) - {"--yes", "--json"}
    assert len(flags) == 1, f"the flag that overrides is named, and no other: {refusal.printed}"
    insisted = journey.chap("upgrade", road.new.tag, "--yes", *flags)
    came_back(journey, insisted)


def fail(journey: Journey) -> None:
    """An upgrade whose API ends at its start is rolled back, with the reason and, where there is one, the stop."""
    road = journey.road
    failure = journey.chap("upgrade", road.new.tag, "--yes")
    came_back(journey, failure)
    assert "NotNullViolation" in failure.printed and "target_column" in failure.printed, failure.printed
    assert road.instead in failure.printed, failure.printed


def came_back(journey: Journey, failure: Outcome) -> None:
    """Check that an upgrade failed and left nothing of itself."""
    wrong = journey.at_the_beginning()
    journey.line["upgrade"] = ", ".join(filter(None, [journey.line.get("upgrade"), f"exit {failure.status}"]))
    journey.line["rollback"] = f"by itself, {'; '.join(wrong) or 'every table the same'}"
    assert failure.status == 3 and not wrong, (wrong, failure.printed)


def upgrade(journey: Journey, release: Release, *words: str) -> Outcome:
    """Upgrade, which has to succeed, and check what does not depend on the release: rows, files, other containers."""
    done = journey.chap("upgrade", release.tag, "--yes", *words)
    journey.line.setdefault("upgrade", f"exit {done.status}")
    assert done.status == 0, done.printed
    assert not journey.changed_values()
    old, new = journey.road.old.tag.encode(), release.tag.encode()
    written = {name: content.replace(b":" + old, b":" + new) for name, content in journey.files.items()}
    assert journey.stack.written() == written and journey.other_containers() == journey.others
    return done


def judge(journey: Journey, release: Release, lengths_lost: bool | None = None) -> None:
    """Check by SQL and by the API what the data have become under a release that runs."""
    road = journey.road
    lost = road.loses_lengths if lengths_lost is None else lengths_lost
    assert journey.lengths() == ([["0", "0"]] * 2 if lost else LENGTHS)
    if release.version >= "2.3":
        parameters = journey.parameters()
        assert [row[:-1] for row in parameters] == PARAMETERS
        assert parameters[0][-1] == parameters[1][-1] != parameters[2][-1]
    became = journey.look(release)
    journey.line["upgrade"] += f", {became.verdict}"
    assert became.verdict == (road.verdict if road.good else "good"), became


def test_lost_values_are_repaired(journey: Journey) -> None:
    road = journey.road
    if not road.loses_lengths:
        pytest.skip("no value is lost on this road")
    upgrade(journey, road.new, "--repair")
    judge(journey, road.new, lengths_lost=False)
    assert journey.chap("rollback", "--yes").status == 0
    assert not journey.at_the_beginning()


def test_the_named_stop_leads_there(journey: Journey) -> None:
    road = journey.road
    if road.good or road.refused or not road.instead:
        pytest.skip("no stop is known on this road")
    stop = RELEASES[road.instead.removeprefix("v")]
    for release in (stop, road.new):
        upgrade(journey, release)
        judge(journey, release, lengths_lost=road.old.head is None)
    back = journey.chap("rollback", "--yes")
    assert back.status == 0 and journey.stack.version() == stop.version, back.printed
    assert journey.look(stop).verdict == "good" and not journey.changed_values()


def test_backup_and_restore(journey: Journey) -> None:
    stack = journey.stack
    made = journey.chap("backup")
    assert made.status == 0, made.printed
    stack.sql(
        "DELETE FROM observation WHERE id % 3 = 0; UPDATE prediction SET name = 'other'; DELETE FROM backtestmetric"
    )
    assert journey.at_the_beginning()
    restored = journey.chap("restore", made.document["backup"]["id"], "--yes")
    wrong = journey.at_the_beginning()
    journey.line["restore"] = f"exit {restored.status}, {'; '.join(wrong) or 'every table the same'}"
    assert restored.status == 0 and not wrong, (wrong, restored.printed)


def test_rehearsal(journey: Journey) -> None:
    road = journey.road
    rehearsed = journey.chap("rehearse", road.new.tag)
    wrong = journey.at_the_beginning()
    journey.line["rehearse"] = f"exit {rehearsed.status}{', production changed' if wrong else ''}"
    assert not wrong, (wrong, rehearsed.printed)
    assert rehearsed.status == (0 if road.good else 1), rehearsed.printed
    if road.verdict == "does not start":
        assert "target_column" in rehearsed.printed, rehearsed.printed
    if road.instead:
        assert road.instead in rehearsed.printed, rehearsed.printed
