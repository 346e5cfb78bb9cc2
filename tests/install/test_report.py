"""The report as Chromium shows it: axe finds nothing wrong, nothing is asked for, it fits every screen, and A4."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from build import recipe
from compose_chap.report import gather
from compose_chap.report.page import page
from tests.fakes import FakeEngine, world
from tests.install.roots import CERTIFICATES, Root
from tests.unit.report import years

pytestmark = pytest.mark.install

LOOK = Path(__file__).with_name("look.js")
DEBIAN = "chromium nodejs npm fonts-dejavu-core poppler-utils"
NPM = "axe-core@4.14.1 playwright-core@1.65.1"
# Where a person may look at the pictures afterwards.
PICTURES = recipe.OUT / "report"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """Give a Debian 13 with Chromium, and axe to judge what it shows."""
    folder = tmp_path_factory.mktemp("root")
    root = Root("trixie", folder)
    root.run(f"apt-get -qq update; apt-get -qq install -y --no-install-recommends {DEBIAN}")
    root.trust()
    root.run(f"cd /tmp; NODE_EXTRA_CA_CERTS={CERTIFICATES} npm install --silent --ignore-scripts {NPM}")
    root.write("tmp/look.js", LOOK.read_text())
    yield root
    shutil.rmtree(folder)


@pytest.mark.parametrize("nights", [0, 1, 40, 1826])
def test_it_is_accessible_and_fits(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nights: int) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    if nights:
        years.write(tmp_path, nights)
    here = replace(world(FakeEngine(tmp_path)), clock=lambda: years.NOW)
    text = page(gather.gather(here, tmp_path, years.HERE, None, "The engine does not answer."))
    root.write("tmp/report.html", text)
    seen = look(root, PICTURES / str(nights))
    assert len(seen["looks"]) == 6
    for shown in seen["looks"]:
        assert not shown["findings"] and shown["passes"] > 20, shown
        assert shown["asked"] == ["file:///tmp/report.html"] and not shown["written"], shown
        assert shown["overflows"] <= 0, shown
    grounds = {shown["colorScheme"]: shown["ground"] for shown in seen["looks"]}
    assert grounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 27)"}
    # Paper is white, whatever the screen is.
    assert seen["printed"] == {"ground": "#ffffff", "written": []}
    paper = root.run("pdfinfo /tmp/pictures/page.pdf")
    assert "A4" in paper and int(re.findall(r"Pages: +(\d+)", paper)[0]) <= 8
    assert "Problems open now" in root.run("pdftotext -layout /tmp/pictures/page.pdf -")


def look(root: Root, pictures: Path) -> Any:
    """Let Chromium show the page, keep its pictures, and return what was seen."""
    root.run("rm -rf /tmp/pictures; mkdir /tmp/pictures")
    output = root.run("cd /tmp; node look.js /tmp/report.html /tmp/pictures")
    shutil.rmtree(pictures, ignore_errors=True)
    shutil.copytree(root.folder / "tmp/pictures", pictures)
    return json.loads(output.splitlines()[-1])
