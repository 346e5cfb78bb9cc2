"""Every sentence for people is plain English: it is read at night, and in a second language."""

from __future__ import annotations

import re

import pytest

from build.sentences import sentences

SENTENCES = [(module, line) for module, lines in sentences().items() for line in lines]

# What a native reader stumbles over, or a second-language reader has to look up; and what says it plainly.
STUMBLES = {
    r"\b(told|tells of)\b": "said, shown",
    r"\banew\b": "again",
    r"\bamiss\b": "wrong",
    r"\bof (before|now)\b": "previous, current",
    r"\beven now\b": "already",
    r"\bis whole\b": "is intact",
    r"\bis no [a-z]+ (such as|at all)\b": "is not a",
    r"\bis due\b|\bare due\b": "is expected",
    r"\bhis\b|\bher\b": "their",
    r"\blacks?\b": "is missing",
    r"\bpass(es|ed) (it |them )?over\b": "skipped",
    r"\bends? at its start\b|\bended at its start\b": "failed to start",
    r"\bputs? .* anew\b": "again",
    r"\b(whereof|thereof|therein|thereby|hereby|withal)\b": "of it",
}


def test_the_list_holds_what_is_shown() -> None:
    texts = [line for _, line in SENTENCES]
    assert len(SENTENCES) > 700
    for part in ("Upgrade CHAP from {} to {}?", "Only CHAP uses the database.", "Verifying the API"):
        assert part in texts
    assert any(line.startswith("Undo the last upgrade: files, images and data. CHAP goes back") for line in texts)
    assert not any("SELECT" in line or "import " in line for line in texts)


@pytest.mark.parametrize("words", STUMBLES)
def test_sentences_are_plain(words: str) -> None:
    wrong = [f"{module}: {line}" for module, line in SENTENCES if re.search(words, line, re.IGNORECASE)]
    assert not wrong, f"say it plainly ({STUMBLES[words]}):\n" + "\n".join(wrong)
