"""Make build/out/docker-chap: one file with a shell header, this package and the pinned packages that it needs.

The wheels are installed into a folder, shiv makes an archive of it, and the archive's entries are put behind
the header, with build/start.py to start them. The same sources give the same bytes: nothing of the machine,
the clock or the umask gets in. Only wheels of pure Python are asked for, so that one file serves every CPU.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from email.message import Message
from email.parser import BytesParser
from pathlib import Path, PurePosixPath

from build import manual
from compose_chap import __version__, plugin

RECIPE = Path(__file__).resolve().parent
OUT = RECIPE / "out"
PLUGIN = OUT / "docker-chap"
ENTRY_POINT = "compose_chap.plugin:main"

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip archive can name
# What pip writes of where it installed to: scripts with the path of this Python, and lists of them.
_TRACES = ("bin/*", "*.dist-info/RECORD", "*.dist-info/direct_url.json")
# Apprise is packed as an archive of its own, so that no start reads the names of its files, nor unpacks them. Without
# its words in other languages, its pictures and its own command.
_ALARMS = "compose_chap/alarms/apprise.zip"
_NOT_NEEDED = re.compile(r"/(?:i18n/.*\.(?:po|mo|pot)|assets/.*|cli\.py|.*\.pyi)$")
_ANY_CPU = ("--only-binary=:all:", "--platform=any", "--implementation=py", "--abi=none")


def main() -> None:
    """Make the plugin, and beside it its checksum, its bill of materials and its manual page."""
    OUT.mkdir(exist_ok=True)
    requirements = download_requirements()
    content = assemble(pack([*requirements, build_wheel()]))
    unfinished = OUT / "docker-chap.tmp"
    unfinished.write_bytes(content)
    unfinished.chmod(0o755)
    unfinished.replace(PLUGIN)  # in one step: the old file may be running
    checksum = hashlib.sha256(content).hexdigest()
    (OUT / "docker-chap.sha256").write_text(f"{checksum}  docker-chap\n")
    (OUT / "docker-chap.cdx.json").write_text(json.dumps(bill_of_materials(requirements), indent=2) + "\n")
    (OUT / "docker-chap.1").write_text(manual.page())
    print(f"build/out/docker-chap: {len(content) / 2**20:.1f} MiB, sha256 {checksum}")


def download_requirements() -> list[Path]:
    """Return the wheels of build/requirements.txt in order; ask the network only when that file has changed."""
    pinned = RECIPE / "requirements.txt"
    folder = OUT / f"wheels-{hashlib.sha256(pinned.read_bytes()).hexdigest()[:12]}"
    if not folder.exists():
        unfinished = OUT / "wheels.tmp"
        shutil.rmtree(unfinished, ignore_errors=True)
        pip("download", "--no-deps", "--require-hashes", *_ANY_CPU, "-d", unfinished, "-r", pinned)
        unfinished.rename(folder)
    return sorted(folder.iterdir())


def build_wheel() -> Path:
    """Return the wheel of this package, made from the sources alone."""
    shutil.rmtree(OUT / "setuptools", ignore_errors=True)  # what is left there is packed again, deleted or not
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", OUT, RECIPE.parent)
    return OUT / f"compose_chap-{__version__}-py3-none-any.whl"


def pip(*arguments: str | Path) -> None:
    """Run pip for the Python that runs this recipe."""
    subprocess.run([sys.executable, "-m", "pip", "-qq", *arguments], check=True)


def pack(wheels: Iterable[Path]) -> dict[str, bytes]:
    """Install the wheels into a folder, let shiv make an archive of it, and return the archive's entries."""
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        installed, archive = Path(folder, "installed"), Path(folder, "archive")
        pip("install", "--no-deps", "--no-index", "--no-compile", "--target", installed, *wheels)
        for trace in _TRACES:
            for path in installed.glob(trace):
                path.unlink()
        pack_apart(installed, "apprise", installed / _ALARMS)
        run_shiv("--reproducible", "-e", ENTRY_POINT, "--site-packages", installed, "-o", archive)
        with zipfile.ZipFile(archive) as packed:
            return {name: packed.read(name) for name in packed.namelist()}


def pack_apart(installed: Path, package: str, archive: Path) -> None:
    """Move a package from the folder it is installed in into an archive."""
    content = {path.relative_to(installed).as_posix(): path for path in (installed / package).rglob("*")}
    with zipfile.ZipFile(archive, "w") as packed:
        for name, path in sorted(content.items()):
            if path.is_file() and not _NOT_NEEDED.search(name):
                # Not compressed here: it is compressed as a whole.
                packed.writestr(zipfile.ZipInfo(name, _EPOCH), path.read_bytes())
    shutil.rmtree(installed / package)


def run_shiv(*arguments: str | Path) -> None:
    """Run shiv without the variable that would set another time than that of a reproducible archive."""
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    subprocess.run([sys.executable, "-W", "ignore", "-m", "shiv.cli", *arguments], env=environment, check=True)


def assemble(packed: Mapping[str, bytes]) -> bytes:
    """Return the plugin: the shell header, and behind it the entries of shiv's archive, with a start of our own."""
    build = json.loads(packed["environment.json"])["build_id"]
    start = (RECIPE / "start.py").read_text().replace("@BUILD@", build)
    # Named as entries too, because Python before 3.13 finds no package without an __init__.py otherwise.
    folders = {f"{folder}/" for name in packed for folder in PurePosixPath(name).parents if folder.name}
    entries = {**dict.fromkeys(folders, b""), **packed, "__main__.py": start.encode()}

    # Not the archive itself: Python reads no zip archive whose entries lie elsewhere than its table says.
    plugin_file = io.BytesIO()
    plugin_file.write(header())
    with zipfile.ZipFile(plugin_file, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(entries.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = (0o040755 if name.endswith("/") else 0o100644) << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return plugin_file.getvalue()


def header() -> bytes:
    """Return the shell script at the top, with the answer to docker's question filled in."""
    metadata = json.dumps(plugin.METADATA)
    assert "'" not in metadata, "the header quotes the metadata with '"
    script = (RECIPE / "header.sh").read_text()
    return script.replace("@VERSION@", __version__).replace("@METADATA@", metadata).encode()


def bill_of_materials(wheels: Iterable[Path]) -> dict[str, object]:
    """Return what is packed beside this package, as a CycloneDX document."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "docker-chap", "version": __version__}},
        "components": [component(wheel) for wheel in wheels],
    }


def component(wheel: Path) -> dict[str, object]:
    """Return the entry of one wheel: its name, version, licence and checksum."""
    about = read_metadata(wheel)
    name, version = about["Name"].lower().replace("_", "-"), about["Version"]
    classifiers = [text.split(" :: ")[-1] for text in about.get_all("Classifier", []) if text.startswith("License ::")]
    return {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
        "licenses": [{"license": {"name": about["License-Expression"] or about["License"] or classifiers[0]}}],
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}],
    }


def read_metadata(wheel: Path) -> Message:
    """Return what the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return BytesParser().parsebytes(archive.read(name))


if __name__ == "__main__":
    main()
