"""What is in contrib/, by Debian's own Prometheus: each rule fires when it should, each panel shows a number."""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from build import recipe
from tests.install.roots import Root

pytestmark = pytest.mark.install

RULES = recipe.RECIPE.parent / "contrib" / "prometheus-rules.yml"
DASHBOARD = json.loads((RULES.parent / "grafana-dashboard.json").read_text())
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


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """Give a Debian with Prometheus."""
    folder = tmp_path_factory.mktemp("root")
    root = Root("bookworm", folder)
    root.run("apt-get -qq update; apt-get -qq install -y --no-install-recommends prometheus")
    yield root
    shutil.rmtree(folder)


def test_the_rules_are_taken_and_fire(root: Root) -> None:
    root.write("tmp/rules.yml", RULES.read_text())
    alarms = sorted({alarm for _, _, alarm in BAD if alarm})
    cases = [case({}, alarms, "")] + [case({name: value}, alarms, alarm) for name, value, alarm in BAD]
    root.write("tmp/cases.yml", "rule_files: [rules.yml]\nevaluation_interval: 30m\ntests:\n" + "".join(cases))
    assert f"{len(alarms)} rules found" in root.run("promtool check rules /tmp/rules.yml")
    assert "SUCCESS" in root.run("cd /tmp; promtool test rules cases.yml")


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that writes no log."""

    def log_message(self, format: str, *args: object) -> None: ...


def test_every_panel_of_the_dashboard_shows_a_number(root: Root, tmp_path: Path) -> None:
    """Let Prometheus collect all numbers of two projects, and ask it what Grafana would."""
    expressions = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    names = sorted({name for expression in expressions for name in re.findall(r"docker_chap_\w+", expression)})
    lines = [f'{name}{{project="{project}"}} 1.7e9\n' for name in names for project in ("north", "south")]
    (tmp_path / "metrics").write_text("".join(lines))
    assert len(expressions) > 15
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        job = f"[{{job_name: chap, static_configs: [{{targets: ['127.0.0.1:{server.server_port}']}}]}}]"
        root.write("tmp/prometheus.yml", f"global: {{scrape_interval: 1s}}\nscrape_configs: {job}\n")
        ask = f"promtool query instant http://127.0.0.1:{port}"
        queries = [expression.replace("$project", ".*") for expression in expressions]
        script = "".join(f"echo '== {number}'; {ask} '{query}'\n" for number, query in enumerate(queries))
        answers = root.run(
            "prometheus --config.file=/tmp/prometheus.yml --storage.tsdb.path=/tmp/numbers"
            f" --web.listen-address=127.0.0.1:{port} >/tmp/prometheus.log 2>&1 & child=$!\n"
            f"for _ in $(seq 60); do {ask} docker_chap_ready 2>&1 | grep -q north && break; sleep 1; done\n"
            f"{script}kill $child\n"
        )
        server.shutdown()
    parts = re.split(r"== \d+\n", answers)[1:]
    assert len(parts) == len(queries)
    for query, answer in zip(queries, parts):
        assert answer.count(" => ") == 2 and "north" in answer and "south" in answer, f"{query}: {answer}"


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
