"""Rules for Prometheus and a dashboard for Grafana: they name numbers that are written, and leave none out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import compose_chap

ROOT = Path(__file__).parents[2]
RULES = (ROOT / "contrib/prometheus-rules.yml").read_text()
DASHBOARD = json.loads((ROOT / "contrib/grafana-dashboard.json").read_text())
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


def test_the_dashboard_shows_every_number_that_is_written() -> None:
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    named = {name for expression in expressions for name in re.findall(r"docker_chap_\w+", expression)}
    assert named == WRITTEN
    variable = DASHBOARD["templating"]["list"][1]["query"]["query"]
    assert set(re.findall(r"docker_chap_\w+", variable)) <= WRITTEN


def test_the_panels_of_the_dashboard_lie_side_by_side() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (panel["gridPos"]["x"] + column, panel["gridPos"]["y"] + row)
        for panel in panels
        for column in range(panel["gridPos"]["w"])
        for row in range(panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken) and all(column < 24 for column, _ in taken)
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels if panel["type"] != "row")
