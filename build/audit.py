"""Ask whether a pinned version of what is packed, or of what builds and checks it, has a known hole.

The answer is that of OSV (https://osv.dev), which collects the reports of all Python packages. Where it cannot be
reached nothing is known, and that is said; a release waits until it can be.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import httpx

RECIPE = Path(__file__).resolve().parent
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)
PINS = ("requirements.txt", "requirements-build.txt", "requirements-dev.txt")
SERVICE = "https://api.osv.dev"


def main() -> None:
    """Print what was found. Exit with 1 for a hole, and with --must when the service does not answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--must", action="store_true", help="fail when the service does not answer")
    parser.add_argument("--service", default=SERVICE, help="where to ask")
    asked = parser.parse_args()
    packages = pinned()
    try:
        holes = ask(asked.service, packages)
    except (httpx.HTTPError, ValueError, KeyError) as error:
        print(f"not audited: {asked.service} does not answer ({error or type(error).__name__})", file=sys.stderr)
        sys.exit(1 if asked.must else 0)
    for package, found in holes.items():
        addresses = ", ".join(f"https://osv.dev/vulnerability/{hole}" for hole in found)
        print(f"Error: {package} has a known hole: {addresses}", file=sys.stderr)
    if holes:
        sys.exit("Pin a version without it: make lock")
    print(f"audited: no known hole in the {len(packages)} pinned packages")


def pinned() -> list[tuple[str, str]]:
    """Return name and version of every package that the recipe pins, each once."""
    texts = [(RECIPE / name).read_text() for name in PINS]
    return sorted({(found[1], found[2]) for text in texts for found in PINNED.finditer(text)})


def ask(service: str, packages: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the ids of the holes of each package that has one, by `name==version`.

    Raise httpx.HTTPError, ValueError or KeyError when there is no answer, or none to every question.
    """
    queries = [{"package": {"ecosystem": "PyPI", "name": name}, "version": version} for name, version in packages]
    answer = httpx.post(f"{service}/v1/querybatch", json={"queries": queries}, timeout=20)
    results = answer.raise_for_status().json()["results"]
    if len(results) != len(packages):
        raise ValueError(f"{len(results)} answers to {len(packages)} questions")
    return {
        f"{name}=={version}": [hole["id"] for hole in result["vulns"]]
        for (name, version), result in zip(packages, results)
        if result.get("vulns")
    }


if __name__ == "__main__":
    main()
