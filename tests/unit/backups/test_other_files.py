"""The files that a backup takes along beside the database."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from compose_chap.backups import other_files


def test_files_that_only_other_containers_name_are_kept_too(tmp_path: Path) -> None:
    directory, kept = tmp_path / "chap", tmp_path / "kept"
    for folder in (directory, kept):
        folder.mkdir()
    names = ("compose.yml", "compose.ewars.yml", "ewars.env", other_files.MARKETPLACE)
    for name in names:
        (directory / name).write_text(name)
    files, env_files = "com.docker.compose.project.config_files", "com.docker.compose.project.environment_file"

    def service(**labels: Any) -> Any:
        return SimpleNamespace(containers=[SimpleNamespace(labels=labels)])

    stack: Any = SimpleNamespace(
        project=SimpleNamespace(name="p", directory=directory, files=(directory / "compose.yml",)),
        services=[
            service(**{files: f"{directory}/compose.yml"}),
            service(**{files: f"{directory}/compose.yml,{directory}/compose.ewars.yml"}),
            # A temporary copy that is gone.
            service(**{files: f"{tmp_path}/tmp.yml", env_files: f"{directory}/ewars.env"}),
        ],
    )
    made = other_files.copy_files([directory / "compose.yml"], stack, kept)
    assert sorted(part.path for part in made) == sorted(str(directory / name) for name in names)
    assert all((kept / part.file).read_text() == Path(part.path).name for part in made)
