"""The rules for Prometheus: they name numbers that are written, and what the docs call worth an alarm has a rule."""

from __future__ import annotations

import re
from pathlib import Path

import compose_chap

ROOT = Path(__file__).parents[2]
RULES = (ROOT / "contrib/prometheus-rules.yml").read_text()
WRITTEN = set(
    re.findall(r"docker_chap_\w+", (Path(compose_chap.__file__).parent / "cli/screen/metrics.py").read_text())
)


def test_every_rule_is_about_a_number_that_is_written() -> None:
    named = {name for line in re.findall(r"expr: (.*)", RULES) for name in re.findall(r"docker_chap_\w+", line)}
    assert named and named <= WRITTEN


def test_what_is_worth_an_alarm_has_a_rule() -> None:
    docs = (ROOT / "docs/automation.md").read_text().partition("Worth an alarm:")[2].partition("\n\n")[0]
    alarms = set(re.findall(r"docker_chap_\w+", docs))
    assert len(alarms) > 5 and alarms <= set(re.findall(r"docker_chap_\w+", RULES))


def test_every_alarm_says_what_to_do() -> None:
    alerts = RULES.split("- alert: ")[1:]
    assert len(alerts) == 10
    for alert in alerts:
        assert re.search(r'description: "On the server: docker chap ', alert) and "summary: " in alert
