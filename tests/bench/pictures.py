"""Time lines of the commands that are measured, and their pictures."""

from __future__ import annotations

from pathlib import Path

from compose_chap.timeline import VARIABLE
from tests.bench import draw
from tests.sample.stack import OUT

FOLDER = OUT / "bench"


def timeline(command: str) -> dict[str, str]:
    """Return the environment in which a command writes its time line. That of an earlier run is removed."""
    FOLDER.mkdir(exist_ok=True)
    _file(command).unlink(missing_ok=True)
    return {VARIABLE: str(_file(command))}


def write(folder: Path) -> list[Path]:
    """Draw the last run of each command into a folder, and return the pictures."""
    folder.mkdir(exist_ok=True)
    pictures = []
    for path in sorted(FOLDER.glob("*.jsonl")):
        pictures.append(folder / f"{path.stem}.svg")
        pictures[-1].write_text(draw.drawing(draw.read(path.read_text()), ""))
    return pictures


def _file(command: str) -> Path:
    return FOLDER / f"{command}.jsonl"
