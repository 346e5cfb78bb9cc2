"""The documents: every link leads somewhere, README stays short, and the architecture shows the tree as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import compose_chap
from tests.unit.test_sentences import STUMBLES

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGE = Path(compose_chap.__file__).parent
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text())
    assert not [link for link in links if not (document.parent / link).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_into_a_document_leads_to_a_heading(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", document.read_text())
    wrong = [
        f"{file}#{anchor}"
        for file, anchor in links
        if anchor not in _anchors(document.parent / file if file else document)
    ]
    assert not wrong


def _anchors(document: Path) -> set[str]:
    """Return what the headings of a document are called in links, as GitHub makes that."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("words", STUMBLES)
def test_documents_are_plain(words: str) -> None:
    texts = {document.name: " ".join(document.read_text().split()) for document in DOCUMENTS}
    wrong = [name for name, text in texts.items() if re.search(words, text, re.IGNORECASE)]
    assert not wrong, f"say it plainly: {STUMBLES[words]}"


def test_every_document_can_be_reached_from_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert not [path.name for path in DOCUMENTS[1:] if f"(docs/{path.name})" not in readme]


def test_readme_is_read_in_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_architecture_names_every_folder_and_every_noun() -> None:
    tree = ARCHITECTURE.partition("```\n")[2].partition("```")[0]
    folders = {path.parent.name for path in PACKAGE.rglob("__init__.py")} - {PACKAGE.name}
    nouns = {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")} - {"plugin"}
    assert set(re.findall(r"(\w+)/ ", tree)) == folders
    assert set(re.findall(r"^  ((?:\w+ )+) +the plain nouns", tree, re.MULTILINE)[0].split()) == nouns


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:\w+/)*\w+\.py)`", ARCHITECTURE))))
def test_a_module_that_the_architecture_names_exists(name: str) -> None:
    assert (PACKAGE / name).exists() or (ROOT / name).exists()
