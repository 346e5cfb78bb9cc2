"""What a report says, from the trail and from what is kept, also where that is odd."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from compose_chap.backups import catalogue
from compose_chap.backups.verdict import CHECKSUMS, RESTORED
from compose_chap.detection import detect
from compose_chap.engine.world import World
from compose_chap.errors import UsageError
from compose_chap.model import Origin
from compose_chap.records import audit
from compose_chap.records.files import own_folder
from compose_chap.records.run_records import FOLDER
from compose_chap.report import gather
from compose_chap.report.facts import fields, lines
from compose_chap.report.facts.known import Promise, ReportFacts
from compose_chap.report.facts.reached import problems, reached
from compose_chap.report.page import page
from tests.fakes import FakeEngine, run_record, world
from tests.unit.operations.test_odd_records import ODD, read_spoiled
from tests.unit.report import years
from tests.unit.report.conftest import Read
from tests.unit.transaction.test_transaction import base_folder, cut_off, engine

# The fixtures of the other module, under their own names.
__all__ = ["base_folder", "engine"]

DAY = timedelta(days=1)
NIGHTLY = Promise("cron", "01:30", years.STORE, {"nightly": None})


def known(**facts: object) -> ReportFacts:
    return replace(ReportFacts("chap", "server", "/srv/chap", years.NOW, "1", False), **facts)  # type: ignore[arg-type]


def backed_up(*times: datetime, bad: bool = False) -> ReportFacts:
    made = years.entry("backup", years.NOW - 40 * DAY, 1)
    line = lines.backup_lines([], [replace(made, facts={"backup": "20261128T013040Z"})])[0]
    backups = tuple(replace(line, made_at=at, folder="/srv", fault="bad" if bad else "") for at in times)
    return known(backups=backups, promise=NIGHTLY)


def test_forty_nights(tmp_path: Path, read: Read) -> None:
    years.write(tmp_path, 40)
    seen = read()
    assert not seen.live and seen.project == "chap" and seen.server == "moh-server-1" and seen.chap_version == "2.1.0"
    assert [service.role for service in seen.services] == ["api", "worker", "database"]
    assert seen.services[0].digest == "sha256:" + "a" * 64 and seen.services_at == seen.backups[-1].made_at
    month = seen.reached[0]
    # Of these, one night the engine was down, and one night the link was.
    assert (month.nights, month.proven, month.copied) == (30, 29, 28)
    assert (month.tests, month.drills) == (4, 1)
    assert seen.reached[2].nights == 40
    # A backup that is gone is still known, with its proof and its rows.
    gone = [line for line in seen.backups if not line.folder]
    assert len(gone) > 10 and all(line.size and line.tables and line.proven_at for line in gone)
    # Of forty nights one failed, and an upgrade made a backup too.
    assert len({line.id for line in seen.backups}) == len(seen.backups) == 40
    assert seen.drill and seen.drill.tables == 6 and seen.test and seen.test.rows
    assert seen.promise and seen.promise.upcoming == dict.fromkeys(("nightly", "weekly", "monthly"))
    (upgrade,) = seen.changes
    assert (upgrade.before, upgrade.after, upgrade.by) == ("2.0.0", "2.1.0", "amina@moh-server-1")
    assert upgrade.downtime and 6 < upgrade.downtime < 7
    assert len([copy for copy in seen.copies if copy.removed_at]) == len(seen.copies) - 28


def test_a_copy_is_drilled_and_later_removed() -> None:
    at = years.NOW - 5 * DAY
    copied = {"backup": "20261123T013000Z", "repository": years.STORE, "sent": 5, "sql_size": 9}
    trail = [years.entry("copy", at, 10, facts=copied)]
    (copy,) = lines.copy_lines(trail)
    assert (copy.sent, copy.sql_size, copy.drilled_at, copy.removed_at) == (5, 9, None, None)
    drilled = {"copy": "20261123T013000Z", "repository": years.STORE, "proof": RESTORED}
    trail += [years.entry("copy", at + DAY, 1, facts={**copied, "sent": 0})]
    trail += [years.entry("verify", at + DAY, 60, facts=drilled)]
    trail += [years.entry("verify", at + 2 * DAY, 60, facts=drilled, result="failed")]
    (copy,) = lines.copy_lines(trail)
    assert copy.sent == 5 and copy.drilled_at == at + DAY + timedelta(minutes=1)
    trail += [years.entry("prune", at + 3 * DAY, 1, facts={"repository": years.STORE, "copies": ["20261123T013000Z"]})]
    (copy,) = lines.copy_lines(trail)
    assert copy.removed_at == at + 3 * DAY + timedelta(seconds=1)
    assert known(copies=(copy,)).copy is None and [line.result for line in lines.proof_lines(trail)] == [
        "done",
        "failed",
    ]


def test_a_bad_backup_does_not_count_as_proven(tmp_path: Path, read: Read) -> None:
    years.write(tmp_path, 3)
    last = catalogue.scan([tmp_path / "backups"]).backups[-1]
    catalogue.record_verdict(last, years.NOW, CHECKSUMS, "the dump has changed.")
    seen = read()
    assert seen.backups[-1].fault and seen.backups[-1].proven_at is None and seen.sound == seen.backups[-2]
    assert any("cannot be relied on" in problem for problem in seen.problems)
    assert seen.reached[0].proven == 2 and "BAD: Its last check failed" in page(seen)


def test_a_bad_backup_that_is_gone_does_not_count_either() -> None:
    facts = {"backup": "20261127T013000Z", "fault": "It is missing public.prediction."}
    (line,) = lines.backup_lines([], [years.entry("backup", years.NOW - DAY, 1, facts=facts)])
    assert line.fault == "It is missing public.prediction."
    assert reached(known(backups=(line,), promise=NIGHTLY))[0].proven == 0


def test_a_run_that_was_cut_off_is_a_problem_also_while_chap_answers(engine: FakeEngine) -> None:
    cut = cut_off(engine, "verify")
    stack = detect(cut.containers())[0]
    origin = cut.origin(stack.project.name)
    for live in (stack, None):
        seen = gather.gather(world(cut), cut.folder, origin, live, "The engine does not answer.")
        assert "The upgrade was cut off. Finish or undo it: docker chap recover" in seen.problems


def test_a_change_that_was_refused_changed_nothing() -> None:
    at = years.NOW - DAY
    trail = [
        years.entry("upgrade", at, 1, result="refused", exit_status=1),
        years.entry("upgrade", at, 2, result="rolled back", run="1", message="It did not migrate."),
        years.entry("upgrade", at, 3, result="failed", message="The engine does not answer."),
        years.entry("recover", at, 4, summary="nothing was cut off"),
        years.entry("restore", at, 5, facts={"source": "latest", "downtime": 1.5}),
    ]
    run = run_record(id="1", downtime=4.0, expected_downtime=5.0, to="v2.1.0", **{"from": "2.0.0"})
    back, restored = lines.change_lines(trail, [run])
    assert (back.result, back.downtime, back.expected, back.after) == ("rolled back", 4.0, 5.0, "2.1.0")
    assert (restored.operation, restored.downtime) == ("restore", 1.5)


@pytest.fixture
def zone() -> Iterator[None]:
    """Let this machine's clock be that of Paris, where a night in March has an hour less."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Paris"
    time.tzset()
    yield
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


def test_nights_follow_the_clock_on_the_wall(zone: None) -> None:
    now = datetime(2026, 4, 2, 9, tzinfo=timezone.utc)
    local = [datetime(2026, 3, day, 1, 30).astimezone() for day in range(26, 32)]
    local += [datetime(2026, 4, day, 1, 30).astimezone() for day in (1, 2)]
    month = reached(replace(backed_up(*local), made_at=now))[0]
    assert (month.nights, month.proven) == (8, 8)
    month = reached(replace(backed_up(*local[:3], *local[4:]), made_at=now))[0]
    assert (month.nights, month.proven) == (8, 7)


def test_the_night_that_goes_on_counts_once_its_backup_is_made() -> None:
    nights = [years.NOW.replace(hour=1, minute=31) - number * DAY for number in range(1, 10)]
    assert [getattr(reached(backed_up(*nights))[0], name) for name in ("nights", "proven")] == [9, 9]
    tonight = years.NOW.replace(hour=1, minute=31)
    assert [getattr(reached(backed_up(*nights, tonight))[0], name) for name in ("nights", "proven")] == [10, 10]
    month = reached(backed_up(*nights[1:]))[0]
    assert (month.nights, month.proven) == (9, 8)
    twice = reached(backed_up(*nights, *nights))[0]
    assert (twice.nights, twice.proven) == (9, 9)


def test_problems_are_those_that_are_open() -> None:
    assert not [text for text in problems(backed_up(years.NOW - timedelta(hours=6))) if "newest" in text]
    assert "made 2 days ago" in problems(backed_up(years.NOW - 2 * DAY))[0]
    assert "There is no backup" in problems(backed_up(years.NOW, bad=True))[0]
    assert "Nothing is scheduled" in " ".join(problems(replace(backed_up(years.NOW), promise=None)))
    # From a clock that was ahead nobody knows an age.
    assert not [text for text in problems(backed_up(years.NOW + 9 * DAY)) if "newest" in text]
    old = years.entry("verify", years.NOW - 40 * DAY, 1, facts={"copy": "x", "proof": RESTORED})
    drilled = replace(backed_up(years.NOW), proofs=lines.proof_lines([old]))
    assert any("last test restore of a copy was 40 days ago" in text for text in problems(drilled))


@pytest.mark.parametrize("value", [*ODD, True, 2**70, float("inf"), "20261301T000000Z", {"a": {"b": 1}}])
def test_a_field_with_an_odd_value_says_nothing(value: object) -> None:
    record = {"name": value}
    assert fields.text(record, "name") == (value if isinstance(value, str) else "")
    assert fields.whole(record, "name") is None and fields.whole(record, "none") is None
    assert fields.seconds(record, "name") is None
    assert fields.rows(record, "name") == {}
    assert fields.moment_of(str(value)) is None and fields.started_at(str(value)) is None


def test_odd_records_end_in_a_report_all_the_same(tmp_path: Path, read: Read) -> None:
    years.write(tmp_path, 1)
    runs = own_folder.make(tmp_path / FOLDER / "runs")
    document = run_record(
        id="20261127T010000Z", downtime=4.0, expected_downtime=5.0, ended_at="2026-01-01T00:01:00+00:00"
    )
    (runs / "20261127T010000Z.json").write_text(json.dumps({**document, "failure": "x", "to": "v2", "from": "1"}))
    (runs / "20261127T010000Z.json").chmod(0o600)
    manifest = next((tmp_path / "backups").glob("*/manifest.json"))
    values: tuple[Any, ...] = (-1, "\ud800<b>", {"": [None]})
    # A record that cannot be read is left out, so nothing is refused.
    assert read_spoiled(runs / "20261127T010000Z.json", values, lambda: page(read()).encode()) == 0
    assert read_spoiled(manifest, values[1:2], lambda: page(read()).encode()) == 0
    trail = tmp_path / FOLDER / audit.FILE
    whole = trail.read_text()
    for line in whole.splitlines()[3:6:2]:  # a backup, and a copy
        trail.write_text(line)
        assert read_spoiled(trail, values, lambda: page(read()).encode()) == 0


def test_records_of_several_stacks_need_a_name(tmp_path: Path, here: World) -> None:
    years.write(tmp_path, 1)
    audit.begin(tmp_path, "backup", ("backup",), Origin("other", "ENGINE", "server"), years.NOW)
    with pytest.raises(UsageError, match="several stacks lie here: chap, other"):
        gather.gather(here, tmp_path, Origin(), None, "")
    assert gather.gather(here, tmp_path, Origin("chap"), None, "").project == "chap"
