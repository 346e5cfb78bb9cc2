#!/usr/bin/env python3
"""Build the sample's images and push them to its registry; do nothing when they are there.

    tests/sample/images.py            the environment of build/out/env.sh must be set

The versions are in images/releases.json. All are one image with a few bytes on top, so a pull is quick.
Bases come from Docker Hub where it answers, else from Debian's own packages.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.sample.chain import write_chain  # noqa: E402

SAMPLE = Path(__file__).resolve().parent
IMAGES = SAMPLE / "images"
OUT = SAMPLE.parents[1] / "build" / "out"
PREFIX = "docker-chap-test"
LABEL = "docker-chap.test=1"
BASE = f"{PREFIX}/app-base:sample"
NEEDED = (BASE, *(f"{PREFIX}/{image}" for image in ("postgres:17", "valkey:8", "dhis2:sample", "dhis2/core:sample")))

APP_PACKAGES = (
    "python3-fastapi", "gunicorn", "python3-uvicorn", "python3-sqlmodel",
    "python3-psycopg2", "python3-yaml", "alembic", "python3-celery", "python3-redis",
)
DATA_PACKAGES = ("postgresql-17", "valkey-server", "locales")

# Documentation, translations and PostgreSQL's compiler are most of the bytes, and nothing here needs them.
SLIM = (
    'cd "$1"'
    " && rm -rf usr/share/doc/* usr/share/man/* usr/share/info usr/share/locale/* var/cache/apt/* var/lib/apt/lists/*"
    " usr/lib/llvm* usr/lib/*/libLLVM* usr/lib/*/libz3*"
    " usr/lib/postgresql/*/lib/bitcode usr/lib/postgresql/*/lib/llvmjit*"
)
# The same user id as in docker-library's image; no cluster of the package's own.
BEFORE_POSTGRES = (
    'echo "postgres:x:999:" >>"$1"/etc/group'
    ' && echo "postgres:x:999:999::/var/lib/postgresql:/bin/bash" >>"$1"/etc/passwd'
    ' && mkdir -p "$1"/etc/postgresql-common'
    ' && echo "create_main_cluster = false" >"$1"/etc/postgresql-common/createcluster.conf'
)
LOCALE = 'chroot "$1" localedef -i en_US -f UTF-8 en_US.UTF-8 && rm -rf "$1"/usr/share/i18n'


def say(line: str) -> None:
    """Tell the person at the terminal."""
    print(f"sample: {line}", file=sys.stderr, flush=True)


def run(*argv: str, **options: object) -> str:
    """Run a command to its end and return what it printed; show what it said when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"sample: {' '.join(argv[:4])} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return str(done.stdout)


def sources() -> str:
    """Return a hash of everything the images are made of."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for file in sorted(IMAGES.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(IMAGES)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def in_registry(registry: str, name: str, tag: str) -> bool:
    """Return whether the registry has the image."""
    request = urllib.request.Request(
        f"http://{registry}/v2/{PREFIX}/{name}/manifests/{tag}",
        method="HEAD",
        headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except urllib.error.HTTPError:
        return False


def local(*names: str) -> bool:
    """Return whether the engine has all these images."""
    return subprocess.run(["docker", "image", "inspect", *names], capture_output=True, check=False).returncode == 0


def releases() -> list[dict[str, str]]:
    """Return the versions of the sample CHAP, each with its vice."""
    return list(json.loads((IMAGES / "releases.json").read_text()))


def write_releases(folder: Path) -> list[tuple[str, str]]:
    """Write what each image adds to the common one; return the images as (name, tag)."""
    images = []
    for release in releases():
        for name in (release["only"],) if "only" in release else ("chap-core", "chap-worker"):
            images.append((name, release["version"]))
            version = release["version"].removeprefix("v")
            top = folder / f"{name}-{release['version']}"
            packages = top / "usr/lib/python3/dist-packages"
            (packages / "chap_core").mkdir(parents=True)
            content = {"version": version, "vice": release.get("vice", ""), "image": name}
            (packages / "chap_core/release.json").write_text(json.dumps(content))
            reported = release.get("reports", version)
            info = packages / f"chap_core-{reported}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: chap_core\nVersion: {reported}\n")
            (info / "INSTALLER").write_text("pip\n")
            write_chain(version, top / "app/alembic/versions")
    return images


def hub_answers() -> bool:
    """Return whether Docker Hub can be reached from here."""
    try:
        urllib.request.urlopen("https://registry-1.docker.io/v2/", timeout=3)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False
    return True


def bases() -> dict[str, str]:
    """Return the images to build on, made where they are missing."""
    recipes = repr((APP_PACKAGES, DATA_PACKAGES, SLIM, BEFORE_POSTGRES, LOCALE))
    packages = hashlib.sha256(recipes.encode()).hexdigest()[:12]
    app, data = f"{PREFIX}/app-base:{packages}", f"{PREFIX}/data-base:{packages}"
    hub = {"app": f"{PREFIX}/app-base:hub", "postgres": "postgres:17", "valkey": "valkey/valkey:8"}
    debian = {"app": app, "postgres": data, "valkey": data}
    if local(app, data):
        return debian
    if os.environ.get("CHAP_SAMPLE_BASES") != "debian" and hub_answers():
        say("pulling the base images")
        install = f"apt-get update && apt-get install -y --no-install-recommends {' '.join(APP_PACKAGES)}"
        recipe = f"FROM debian:trixie-slim\nRUN {install}\nLABEL {LABEL}\n"
        run("docker", "build", "-q", "-t", hub["app"], "-", input=recipe)
        return hub
    say("making the base images from Debian packages")
    with ThreadPoolExecutor() as pool:
        made = [
            pool.submit(bootstrap, app, APP_PACKAGES, "true", "true"),
            pool.submit(bootstrap, data, DATA_PACKAGES, BEFORE_POSTGRES, LOCALE),
        ]
        for each in made:
            each.result()
    return debian


def bootstrap(image: str, packages: tuple[str, ...], before: str, after: str) -> None:
    """Make a Debian root file system with these packages, and import it as an image."""
    if local(image):
        return
    if shutil.which("mmdebstrap") is None:
        sys.exit("sample: Install mmdebstrap: it makes the base images where Docker Hub does not answer.")
    source = run("bash", "-c", f". '{SAMPLE}/debian.sh'; suite_source trixie").strip()
    log = OUT / f"{image.split('/')[1].split(':')[0]}.log"
    with open(log, "wb") as errors:
        tree = subprocess.Popen(
            [
                "mmdebstrap", "--variant=minbase", "--dpkgopt=force-unsafe-io", f"--include={','.join(packages)}",
                f"--essential-hook={before}", f"--customize-hook={after}", f"--customize-hook={SLIM}",
                "trixie", "-", source,
            ],
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        taken = subprocess.run(
            ["docker", "import", "--change", f"LABEL {LABEL}", "-", f"{image}-part"],
            stdin=tree.stdout,
            capture_output=True,
            check=False,
        )
    # A tree that broke off half way is imported without complaint, so the name is given only at the end.
    if tree.wait() or taken.returncode:
        subprocess.run(["docker", "rmi", f"{image}-part"], capture_output=True, check=False)
        sys.exit(f"sample: could not make {image}: {taken.stderr.decode()}{log.read_text()[-2000:]}")
    run("docker", "tag", f"{image}-part", image)
    run("docker", "rmi", f"{image}-part")


def build(registry: str) -> list[tuple[str, str]]:
    """Build every image in one go; return those that belong into the registry."""
    base = bases()
    run("docker", "tag", base["app"], BASE)
    context = OUT / "context"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(IMAGES / "chap", context, ignore=shutil.ignore_patterns("__pycache__", "chain"))
    pushed = write_releases(context / "releases")
    targets: dict[str, dict[str, object]] = {}
    for image, start in {"postgres:17": "postgres", "valkey:8": "valkey", "dhis2:sample": "app"}.items():
        name = image.split(":")[0]
        recipe = {"dockerfile": str(IMAGES / name / "Dockerfile")}
        if base[start].startswith(("postgres:", "valkey/")):
            recipe = {"dockerfile-inline": f"ARG BASE\nFROM ${{BASE}}\nLABEL {LABEL}\n"}
        targets[name] = {
            "context": str(IMAGES / name),
            **recipe,
            "args": {"BASE": base[start]},
            "tags": [f"{PREFIX}/{image}"],
        }
    # DHIS2 is known by its image's name, which its one-shots do not have.
    targets["dhis2"]["tags"] = [f"{PREFIX}/dhis2:sample", f"{PREFIX}/dhis2/core:sample"]
    targets["ewars"] = {
        "context": str(IMAGES / "ewars"),
        "args": {"BASE": base["app"]},
        "tags": [f"{registry}/{PREFIX}/chapkit_ewars_model:latest"],
    }
    moving = {release["version"]: release.get("also", "").split() for release in releases()}
    for name, tag in pushed:
        targets[f"{name}-{tag}".replace(".", "-")] = {
            "context": str(context),
            "args": {"BASE": base["app"], "RELEASE": f"{name}-{tag}"},
            "target": "release",
            "tags": [f"{registry}/{PREFIX}/{name}:{each}" for each in (tag, *moving.get(tag, ()))],
        }
    plan = OUT / "images.json"
    plan.write_text(json.dumps({"group": {"default": {"targets": sorted(targets)}}, "target": targets}, indent=1))
    # Newer buildx asks before it reads a folder outside the current one.
    allowed = os.environ | {"BUILDX_BAKE_ENTITLEMENTS_FS": "0"}
    run("docker", "buildx", "bake", "--progress=plain", "--provenance=false", "-f", str(plan), env=allowed)
    pushed += [(name, each) for name, tag in pushed for each in moving[tag]]
    return [*pushed, ("chapkit_ewars_model", "latest")]


def push(registry: str, images: list[tuple[str, str]]) -> None:
    """Push the images and forget their local names, so that a later pull is one."""
    for name in dict.fromkeys(name for name, _ in images):
        run("docker", "push", "-q", "--all-tags", f"{registry}/{PREFIX}/{name}")
    used = set(run("docker", "ps", "-a", "--format", "{{.Image}}").split())
    names = [f"{registry}/{PREFIX}/{name}:{tag}" for name, tag in images]
    run("docker", "rmi", *(name for name in names if name not in used))


def on_first_engine() -> dict[str, str]:
    """Return the environment in which docker speaks to the first engine: only that one reaches Debian."""
    second = os.environ.get("CHAP_SAMPLE_ENGINE") == "new"
    return {name: value for name, value in os.environ.items() if not second or name != "DOCKER_HOST"}


def copy_from_first_engine(*names: str) -> None:
    """Give the second engine the images that the first one built and did not push."""
    show = ["docker", "image", "inspect", "--format", "{{.Id}}", *names]
    built, here = (subprocess.run(show, env=env, capture_output=True, check=False) for env in (on_first_engine(), None))
    if built.returncode:
        sys.exit("sample: Run tests/sample/setup for the first engine first.")
    if here.stdout == built.stdout:
        return
    say("copying images from the first engine")
    with subprocess.Popen(["docker", "save", *names], env=on_first_engine(), stdout=subprocess.PIPE) as saved:
        loaded = subprocess.run(["docker", "load", "-q"], stdin=saved.stdout, capture_output=True, check=False)
    if saved.returncode or loaded.returncode:
        sys.exit(f"sample: could not copy the images: {loaded.stderr.decode()}")


def main() -> None:
    """Make sure that all images are there."""
    registry = run(str(SAMPLE / "registry.sh")).strip()
    mark = sources()
    if os.environ.get("CHAP_SAMPLE_ENGINE") == "new":
        copy_from_first_engine(*NEEDED)
        return
    if in_registry(registry, "sources", mark) and local(*NEEDED):
        return
    begin = time.monotonic()
    say("building the images")
    images = build(registry)
    built = time.monotonic()
    push(registry, images)
    run("docker", "tag", f"{PREFIX}/dhis2:sample", f"{registry}/{PREFIX}/sources:{mark}")
    run("docker", "push", "-q", f"{registry}/{PREFIX}/sources:{mark}")
    run("docker", "rmi", f"{registry}/{PREFIX}/sources:{mark}")
    say(f"images built in {built - begin:.0f} s, pushed in {time.monotonic() - built:.0f} s")


if __name__ == "__main__":
    main()
