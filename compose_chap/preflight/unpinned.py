"""Configured models without a fixed version: the files name a branch, a tag or a short commit."""

from __future__ import annotations

import json
import re
from typing import Any

from compose_chap.engine.engine import Engine
from compose_chap.errors import EngineError
from compose_chap.model import Container
from compose_chap.redact import redact
from compose_chap.stack.chap_scripts import PYTHON

_FULL_COMMIT = re.compile(r"@?[0-9a-fA-F]{40}")

# Lists every version in the files, as CHAP reads them: only *.yaml counts. The folder is beside the package, which is
# the image's working folder, unless the package was installed elsewhere.
# A file that is not mounted belongs to the image, and the next image has its own.
_PROGRAM = """
import glob, importlib.util, json, os, yaml
package = os.path.dirname(importlib.util.find_spec("chap_core").origin)
places = {os.path.realpath(place) for place in (os.path.dirname(package), os.getcwd())}
pattern = os.path.join("config", "configured_models", "*.yaml")
mounts = {line.split()[4] for line in open("/proc/self/mountinfo")} - {"/"}
versions = []
for path in sorted(path for place in places for path in glob.glob(os.path.join(place, pattern))):
    real = os.path.realpath(path)
    mounted = any(real == mount or real.startswith(mount + "/") for mount in mounts)
    try:
        entries = yaml.safe_load(open(path)) or []
        for entry in entries:
            for label, ref in entry.get("versions", {}).items():
                if not entry.get("uses_chapkit"):
                    versions.append([path, mounted, str(entry.get("url")), str(label), str(ref)])
    except Exception:
        # CHAP itself says what is wrong with such a file.
        continue
print(json.dumps(versions))
"""


def entries(engine: Engine, container: Container, *, built: bool) -> tuple[str, ...]:
    """Return, for people, each version without a full commit that the next container will read too.

    Those are in mounted files and, with `built`, in files that are built into the image: all but `default.yaml`,
    which comes with a release. Raise EngineError when the container does not answer.
    """
    finished = engine.run(container.id, [*PYTHON, _PROGRAM])
    try:
        versions = json.loads(finished.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise EngineError(f"The configured models cannot be read: {finished.last_lines}") from None
    return tuple(_words(*version) for version in versions if _counts(version, built=built))


def _counts(version: Any, *, built: bool) -> bool:
    path, mounted, _, _, reference = version
    stays = mounted or (built and not path.endswith("/default.yaml"))
    return stays and not _FULL_COMMIT.fullmatch(reference)


def _words(path: str, mounted: bool, url: str, label: str, reference: str) -> str:
    return f"{path} says {label}: {reference} of {redact(url)}"
