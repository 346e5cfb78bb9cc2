"""The page: well formed, without any outside reference, and whatever a record holds is text in it."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from compose_chap.records import audit
from compose_chap.records.run_records import FOLDER
from compose_chap.report.facts.known import BackupLine, ReportFacts
from compose_chap.report.page import MARK, page
from tests.unit.report import html, years
from tests.unit.report.conftest import Read
from tests.unit.report.html import Node

# Whatever an element may fetch, run, or send.
FETCHES = {"src", "srcset", "data", "poster", "action", "formaction", "background", "ping", "style", "xlink:href"}
RUNS = {"script", "iframe", "object", "embed", "form", "link", "base", "img", "image", "use", "foreignobject", "button"}
EVIL = "<script>alert(1)</script>\"'><img src=//evil.example/x onerror=alert(1)>&amp;\x1b[2J\u202egnp.exe\ud800"


def shown(known: ReportFacts) -> Node:
    """Return the tree of a report, which is as every report has to be."""
    text = page(known)
    text.encode()
    root = html.parse(text)
    nodes = root.all()
    assert MARK in text[:4096]
    assert not {node.tag for node in nodes} & RUNS
    for node in nodes:
        assert not set(node.attributes) & FETCHES and not [name for name in node.attributes if name.startswith("on")]
        assert node.attributes.get("href", "#").startswith("#")
    names = [node.attributes["id"] for node in nodes if "id" in node.attributes]
    assert len(names) == len(set(names))
    for node in nodes:
        pointed = node.attributes.get("aria-labelledby", "").split() + [node.attributes.get("href", "")[1:]]
        assert set(filter(None, pointed)) <= set(names)
    [style] = root.all("style")
    assert "url(" not in style.text and "@import" not in style.text
    sha256 = base64.b64encode(hashlib.sha256(style.text.encode()).digest()).decode()
    [policy] = [node for node in root.all("meta") if node.attributes.get("http-equiv")]
    assert policy.attributes["content"].startswith("default-src 'none'") and sha256 in policy.attributes["content"]
    return root


@pytest.mark.parametrize("nights", [0, 1, 2, 40])
def test_it_is_well_formed_and_accessible_however_much_is_known(tmp_path: Path, read: Read, nights: int) -> None:
    if nights:
        years.write(tmp_path, nights)
    root = shown(read())
    assert root.all("html")[0].attributes["lang"] == "en"
    assert [len(root.all(tag)) for tag in ("h1", "main", "header", "footer", "nav")] == [1, 1, 1, 1, 1]
    assert not root.all("h3"), "no level is skipped"
    for table in root.all("table"):
        assert table.all("caption")[0].text and table.all("tbody")[0].children
        assert all(node.attributes["scope"] in ("col", "row") and node.text for node in table.all("th"))
    for picture in root.all("svg"):
        assert picture.attributes["role"] == "img" and picture.all("title")[0].text and picture.all("desc")[0].text
    figures = [figure for figure in root.all("figure") if not figure.all("details")]
    assert not figures or "The same as numbers" in root.text
    assert bool(root.all("svg")) == bool(nights)


def test_nothing_in_a_record_is_more_than_text(tmp_path: Path, read: Read) -> None:
    years.write(tmp_path, 3)
    known = read()
    line = replace(known.backups[-1], reason=EVIL, fault=EVIL, tables={EVIL: 3}, chap_version=EVIL)
    earlier = replace(line, made_at=line.made_at.replace(day=1), tables={EVIL: 1})
    entry = replace(known.trail[-1], words=(EVIL,), by=EVIL, user=EVIL, message=EVIL, summary=EVIL, result=EVIL)
    proof = years.entry("verify", years.NOW, 1)
    evil = replace(
        known,
        project=EVIL,
        server=EVIL,
        directory=EVIL,
        problems=(EVIL, f"{EVIL}: docker chap {EVIL}"),
        backups=(earlier, line),
        copies=tuple(replace(copy, repository=EVIL) for copy in known.copies),
        trail=(proof, entry),
        health=EVIL,
        live=True,
    )
    root = shown(evil)
    assert root.all("h1")[0].text.startswith("CHAP report: <script>alert(1)</script>")
    text = page(evil)
    assert "\x1b" not in text and "\u202e" not in text


def test_no_password_is_in_it(tmp_path: Path, read: Read) -> None:
    years.write(tmp_path, 2)
    known = read()
    secret = "rest:https://chap:hunter2@backup.example.org/ password=hunter2"
    known = replace(known, problems=(secret,), backups=tuple(replace(line, reason=secret) for line in known.backups))
    known = replace(known, copies=tuple(replace(copy, repository=secret) for copy in known.copies))
    assert "hunter2" not in page(known) and "https://chap:***@backup.example.org/" in page(known)


def test_five_years_of_nights_are_read_quickly_and_fit_a_screen(tmp_path: Path, read: Read) -> None:
    years.write(tmp_path, 1826)
    began = time.monotonic()
    known = read()
    root = shown(known)
    assert time.monotonic() - began < 30  # about four seconds where nothing else runs
    assert len(known.trail) > 8000 and known.reached[2].nights == 365
    assert len(root.text) < 300_000
    folded = sum(len(node.all("tr")) for node in root.all("details"))
    assert folded > 500 and len(root.all("tr")) - folded < 150
    lines = [node.attributes["d"] for node in root.all("path")]
    assert lines and all(line.count("L") < 130 for line in lines)
    years_named = {node.text.partition(":")[0] for node in root.all("summary")}
    assert {"2021", "2022", "2023", "2024", "2025", "2026"} <= years_named


def test_every_failure_of_five_years_can_be_opened(tmp_path: Path, read: Read) -> None:
    years.write(tmp_path, 700)
    failed = [years.entry("backup", years.NOW.replace(year=2025, day=3), 1, result="failed", message="No room.")]
    known = read()
    known = replace(known, trail=(*failed, *known.trail))
    assert "No room." in shown(known).text


def test_without_anything_it_says_so(read: Read) -> None:
    text = shown(read()).text
    for sentence in (
        "made from its records alone. The engine does not answer.",
        "There is no backup that can be relied on.",
        "Nothing is scheduled",
        "CHAP was not changed with this tool so far.",
        "There are no backups, and none was made so far.",
        "Nothing was done so far.",
    ):
        assert sentence in text


def test_a_failure_stands_out_and_is_hidden_on_no_screen(tmp_path: Path, read: Read) -> None:
    years.write(tmp_path, 30)
    root = shown(read())
    failed = [node for node in root.all("td") if node.text == "failed"]
    assert len(failed) >= 4
    assert all("none" not in node.attributes.get("class", "") and node.all("strong") for node in failed)
    empty = [node for node in root.all("td") if not node.text]
    assert all("none" in node.attributes["class"] for node in empty)


def test_numbers_are_read_with_their_units(tmp_path: Path, read: Read) -> None:
    years.write(tmp_path, 3)
    root = shown(read())
    numbers = [node for node in root.all("td") if "number" in node.attributes.get("class", "") and node.text]
    assert all(re.search(r"\d( of \d+|s| [KMG]?i?B)?$", node.text) for node in numbers)
    times = root.all("time")
    assert times and all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d \S+", node.text) for node in times)


def test_an_odd_backup_does_not_hide_the_others(tmp_path: Path, read: Read) -> None:
    years.write(tmp_path, 3)
    known = read()
    odd = BackupLine("x", years.NOW, "", "", "", None, None, None, None, {})
    root = shown(replace(known, backups=(*known.backups, odd), trail=()))
    assert len(root.all("svg")) >= 2


def test_the_records_are_only_read(tmp_path: Path, read: Read) -> None:
    years.write(tmp_path, 3)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    shown(read())
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert (tmp_path / FOLDER / audit.FILE) in before
