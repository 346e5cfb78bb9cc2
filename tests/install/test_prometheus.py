"""Rules and dashboard in contrib/, by Debian's own Prometheus: each rule fires when it should, each panel has a number."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from build import recipe
from tests.install.roots import Root

pytestmark = pytest.mark.install

RULES = recipe.RECIPE.parent / "contrib" / "prometheus-rules.yml"
DAY = 86400
# What is written when all is well, on the day before, and the alarm for each number that is not so.
GOOD = {
    "last_backup_timestamp_seconds": DAY * 99,
    "last_copy_timestamp_seconds": DAY * 99,
    "last_drill_timestamp_seconds": DAY * 99,
    "last_test_restore_timestamp_seconds": DAY * 99,
    "next_run_timestamp_seconds": DAY * 101,
    "ready": 1,
    "schema_complete": 1,
    "run_open": 0,
    "status_success": 1,
    "status_timestamp_seconds": DAY * 100,
}
BAD = (
    ("last_backup_timestamp_seconds", DAY * 97, "ChapBackupOld"),
    ("last_backup_timestamp_seconds", 0, "ChapBackupOld"),
    ("last_copy_timestamp_seconds", DAY * 97, "ChapCopyOld"),
    ("last_copy_timestamp_seconds", 0, ""),
    ("last_drill_timestamp_seconds", DAY * 60, "ChapDrillOld"),
    ("last_test_restore_timestamp_seconds", DAY * 60, "ChapTestRestoreOld"),
    ("next_run_timestamp_seconds", DAY * 100 - 3 * 3600, "ChapScheduleMissed"),
    ("ready", 0, "ChapNotReady"),
    ("schema_complete", 0, "ChapSchemaIncomplete"),
    ("run_open", 1, "ChapRunCutOff"),
    ("status_success", 0, "ChapStatusFails"),
    ("status_timestamp_seconds", DAY * 97, "ChapNumbersOld"),
)


def test_the_rules_are_taken_and_fire(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    root = Root("bookworm", tmp_path / "root")
    root.run("apt-get -qq update; apt-get -qq install -y --no-install-recommends prometheus")
    root.write("tmp/rules.yml", RULES.read_text())
    alarms = sorted({alarm for _, _, alarm in BAD if alarm})
    cases = [case({}, alarms, "")] + [case({name: value}, alarms, alarm) for name, value, alarm in BAD]
    root.write("tmp/cases.yml", "rule_files: [rules.yml]\nevaluation_interval: 30m\ntests:\n" + "".join(cases))
    assert f"{len(alarms)} rules found" in root.run("promtool check rules /tmp/rules.yml")
    assert "SUCCESS" in root.run("cd /tmp; promtool test rules cases.yml")
    shutil.rmtree(tmp_path / "root")


def case(different: dict[str, int], alarms: list[str], fires: str) -> str:
    """Return a test of promtool's: with some numbers different, on day 100, one alarm fires and no other."""
    series = "".join(
        f"      - series: 'docker_chap_{name}{{project=\"p\", instance=\"i\"}}'\n        values: '{value}x4900'\n"
        for name, value in {**GOOD, **different}.items()
    )
    text = f"  - interval: 30m\n    input_series:\n{series}    alert_rule_test:\n"
    for alarm in alarms:
        fired = f"\n{EXPECTED[alarm]}" if alarm == fires else " []\n"
        text += f"      - eval_time: 100d\n        alertname: {alarm}\n        exp_alerts:{fired}"
    return text


def expected() -> dict[str, str]:
    """Return what each alarm has to look like when it fires, from the rules themselves."""
    result = {}
    for rule in RULES.read_text().split("- alert: ")[1:]:
        name = rule.split("\n")[0]
        severity = rule.partition("severity: ")[2].partition("}")[0]
        texts = [rule.partition(f'{key}: "')[2].partition('"')[0] for key in ("summary", "description")]
        filled = [text.replace("{{ $labels.project }}", "p").replace("{{ $labels.instance }}", "i") for text in texts]
        labels = f"{{severity: {severity}, project: p, instance: i}}"
        annotations = f'{{summary: "{filled[0]}", description: "{filled[1]}"}}'
        result[name] = f"          - exp_labels: {labels}\n            exp_annotations: {annotations}\n"
    return result


EXPECTED = expected()
