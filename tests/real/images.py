#!/usr/bin/env python3
"""Build images of real releases of chap-core from their wheels on PyPI; do nothing when they are there.

    python -m tests.real.images       the environment of build/out/env.sh must be set

What the releases need is one layer for all of them, made once. Alembic's files, which the wheels do not have, are the
sample's. Exit status 69 when PyPI does not give what is needed.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from tests.real.releases import RELEASES, Release
from tests.sample.chain import CHAIN, write_chain
from tests.sample.images import BASE, IMAGES, LABEL, OUT, PREFIX, SAMPLE, in_registry, local, push, run, say

REAL = Path(__file__).resolve().parent
WORK = OUT / "real"
PIP = "pip==26.3"
NAMES = ("chap-core", "chap-worker")
UNAVAILABLE = 69
CA = "/etc/ssl/certs/ca-certificates.crt"
# How pip reaches PyPI from here. A build has no use for the rest of its settings, and not for folders of this machine.
REACH = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
# What pip says where an index is out of reach, or does not have a package.
NO_ANSWER = (
    r"No matching distribution|Retrying \(|Max retries|Failed to resolve|Connection|timed out|SSLError|HTTP error"
)
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


def unavailable(what: str, output: str) -> None:
    """Say that PyPI did not give something, with the end of what pip printed, and end."""
    say(f"PyPI does not answer, or does not have {what}. The real releases cannot be tested from here.")
    print(output[-1500:].rstrip(), file=sys.stderr)
    sys.exit(UNAVAILABLE)


def fetch(requirement: str, pattern: str, sha256: str = "") -> Path:
    """Return a wheel, downloaded unless it was before."""
    wheels = WORK / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    if not list(wheels.glob(pattern)):
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.13", f"--dest={wheels}"]
        words = [sys.executable, "-m", "pip", "download", *options, requirement]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            unavailable(requirement, done.stdout + done.stderr)
    wheel = next(wheels.glob(pattern))
    if sha256 and hashlib.sha256(wheel.read_bytes()).hexdigest() != sha256:
        wheel.unlink()
        sys.exit(f"sample: {wheel.name} is not the file that is known: its SHA-256 differs.")
    return wheel


def pip_settings() -> tuple[str, str]:
    """Return this machine's settings of how pip reaches PyPI, as a pip.conf for a build, and the file of its CAs."""
    cert, lines = CA, ["[global]"]
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        key, _, written = line.partition("=")
        name, value = key.rpartition(".")[2], str(ast.literal_eval(written))
        if name == "cert":
            cert = value
        words = [word for word in value.split() if not word.startswith("file:")]
        if name in REACH and words:
            lines.append(f"{name} = {' '.join(words)}")
    if Path(cert).is_file():
        lines.append("cert = /run/ca.pem")
    return "\n".join(lines) + "\n", cert


def dependencies() -> str:
    """Return the image that has what all releases need, made unless it is there."""
    recipe = REAL / "image/dependencies.Dockerfile"
    # Whichever base it was made on will do, so the base is no part of its name.
    digest = hashlib.sha256(recipe.read_bytes() + (REAL / "requirements.txt").read_bytes()).hexdigest()
    image = f"{PREFIX}/real/dependencies:{digest[:12]}"
    if local(image):
        return image
    say("installing what the releases need: minutes, and 1.7 GB")
    context = WORK / "dependencies"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir(parents=True)
    shutil.copyfile(REAL / "requirements.txt", context / "requirements.txt")
    shutil.copyfile(fetch(PIP, f"{PIP.replace('==', '-')}-*.whl"), context / "pip.whl")
    settings, cert = pip_settings()
    secrets = {"pip": WORK / "pip.conf", "ca": WORK / "ca.pem"}
    secrets["pip"].write_text(settings)
    secrets["ca"].write_bytes(Path(cert).read_bytes() if Path(cert).is_file() else b"")
    words = ["docker", "buildx", "build", "--progress=plain", "--provenance=false", "-f", str(recipe), "-t", image]
    words += [f"--secret=id={name},src={path}" for name, path in secrets.items()]
    words += [f"--build-arg={name}" for name in PROXIES if os.environ.get(name)]
    done = subprocess.run(
        [*words, f"--build-arg=BASE={BASE}", str(context)], capture_output=True, text=True, check=False
    )
    for path in secrets.values():
        path.unlink()
    (WORK / "dependencies.log").write_text(done.stdout + done.stderr)
    if done.returncode and re.search(NO_ANSWER, done.stdout + done.stderr):
        unavailable("something of tests/real/requirements.txt", done.stdout + done.stderr)
    if done.returncode:
        sys.exit(f"sample: could not make {image}:\n{done.stderr[-3000:]}")
    return image


def write_release(release: Release, folder: Path) -> None:
    """Write what the images of a release add: the wheel's content, and its revisions."""
    with zipfile.ZipFile(fetch(f"chap-core=={release.version}", wheel_name(release), release.sha256)) as wheel:
        wheel.extractall(folder)
    write_chain(release.version, folder / "alembic/versions")


def wheel_name(release: Release) -> str:
    """Return the name of a release's wheel."""
    return f"chap_core-{release.version}-py3-none-any.whl"


def sources() -> str:
    """Return a hash of everything the images are made of."""
    digest = hashlib.sha256()
    ours = [REAL / "images.py", REAL / "releases.py", REAL / "requirements.txt", SAMPLE / "chain.py"]
    for folder in (REAL / "image", CHAIN, IMAGES / "chap/alembic"):
        ours += sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    for file in [*ours, IMAGES / "chap/alembic.ini"]:
        digest.update(f"{file.relative_to(REAL.parent)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def build(registry: str) -> list[tuple[str, str]]:
    """Build the images of every release; return them as (name, tag)."""
    base, context = dependencies(), WORK / "context"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(REAL / "image", context)
    shutil.copytree(IMAGES / "chap/alembic", context / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(IMAGES / "chap/alembic.ini", context / "alembic.ini")
    targets = {}
    for release in RELEASES.values():
        write_release(release, context / "releases" / release.version)
        for name in NAMES:
            targets[re.sub(r"\W", "-", f"{name}-{release.version}")] = {
                "context": str(context),
                "dockerfile": "release.Dockerfile",
                "args": {"BASE": base, "RELEASE": release.version},
                "target": name,
                "tags": [f"{registry}/{PREFIX}/real/{name}:{release.tag}"],
            }
    plan = WORK / "images.json"
    plan.write_text(json.dumps({"group": {"default": {"targets": sorted(targets)}}, "target": targets}, indent=1))
    allowed = os.environ | {"BUILDX_BAKE_ENTITLEMENTS_FS": "0"}
    run("docker", "buildx", "bake", "--progress=plain", "--provenance=false", "-f", str(plan), env=allowed)
    return [(f"real/{name}", release.tag) for release in RELEASES.values() for name in NAMES]


def mark_built(registry: str, mark: str) -> None:
    """Leave an image in the registry that says what the others were made of."""
    image = f"{registry}/{PREFIX}/real/sources:{mark}"
    run("docker", "build", "-q", "-t", image, "-", input=f"FROM scratch\nLABEL {LABEL}\n")
    run("docker", "push", "-q", image)
    run("docker", "rmi", image)


def main() -> None:
    """Make sure that all images are there."""
    registry = run(str(SAMPLE / "registry.sh")).strip()
    mark = sources()
    if in_registry(registry, "real/sources", mark):
        return
    begin = time.monotonic()
    say("building images of real releases of CHAP")
    images = build(registry)
    built = time.monotonic()
    push(registry, images)
    mark_built(registry, mark)
    say(f"images of real releases built in {built - begin:.0f} s, pushed in {time.monotonic() - built:.0f} s")


if __name__ == "__main__":
    main()
