"""The operator's own models: /app/config/configured_models/*.yaml."""

import re
from pathlib import Path

from chap_core.release import RELEASE

FOLDER = Path("/app/config/configured_models")
FULL_SHA = re.compile(r"@?[0-9a-fA-F]{40}")


def configured_models() -> list[tuple[str, str]]:
    """Return (name, version label) of every model in the files.

    From v2.4.0 on a version that is not a full commit raises ValueError: a branch or a tag can move.
    """
    models = []
    for file in sorted(FOLDER.glob("*.yaml")):
        # Imported only where there are such files: it takes time.
        import yaml

        for entry in yaml.safe_load(file.read_text()) or []:
            for label, reference in entry["versions"].items():
                if RELEASE.at_least("2.4.0") and not entry.get("uses_chapkit") and not FULL_SHA.fullmatch(reference):
                    raise ValueError(
                        f"Invalid model configuration file {file}: version {label!r} of {entry['url']} is {reference!r},"
                        " and not a full commit"
                    )
            name = entry.get("name") or entry["url"].rstrip("/").rpartition("/")[2]
            models.append((name, list(entry["versions"])[-1]))
    return models
