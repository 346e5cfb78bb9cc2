"""Which Alembic revisions a release of CHAP ships.

They are those of every folder up to its version, a later file in place of an earlier one of the same name.
The files run on the sample's tables and on those of the real package alike. Beside them an image needs
`alembic.ini`, `alembic/env.py` and `alembic/existing.py`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

CHAIN = Path(__file__).resolve().parent / "images/chap/chain"


def chain(version: str) -> dict[str, Path]:
    """Return the files of a release such as "2.3.1" or "v2.3.1", by the name they have in `alembic/versions`."""
    folders = [folder for folder in CHAIN.iterdir() if _numbers(folder.name) <= _numbers(version)]
    folders.sort(key=lambda folder: _numbers(folder.name))
    return {file.name: file for folder in folders for file in sorted(folder.glob("*.py"))}


def write_chain(version: str, folder: Path) -> None:
    """Copy the files of a release into `folder`, which is made."""
    folder.mkdir(parents=True)
    for name, file in chain(version).items():
        shutil.copyfile(file, folder / name)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.removeprefix("v").split("."))
