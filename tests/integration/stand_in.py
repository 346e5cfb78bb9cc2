"""Packed into a copy of docker-chap in place of compose_chap/cli/app.py: shows what arrives there, and ends as told."""

from __future__ import annotations

import json
import sys
import time


def main(words: list[str], docker: tuple[str, ...]) -> int:
    """Do what the first word says; print the words when it says nothing special."""
    match words:
        case ["exit", status, *_]:
            return int(status)
        case ["later", status]:
            print("waiting", flush=True)
            sys.stdin.read()
            return int(status)
        case ["fail"]:
            raise ValueError("secret")
        case ["flood"]:
            for number in range(100_000):
                print(number)
        case ["wait", *report]:
            wait(report[0] if report else "")
        case ["chatter", report]:
            chatter(report)
        case ["load"]:
            load()
        case _:
            print(json.dumps([words, list(docker)]))
    return 0


def complete(words: list[str], docker: tuple[str, ...]) -> int:
    """Answer as docker expects: values, and last what the shell may add to them."""
    print(f"upgrade\tafter {json.dumps(words)}")
    print(":4")
    return 0


def wait(expected: str) -> None:
    """Wait for an interrupt, and leave a word of it in the file."""
    try:
        print("waiting", flush=True)
        for _ in range(300):
            time.sleep(0.1)
    except KeyboardInterrupt:
        if expected:
            with open(expected, "w") as file:
                file.write("interrupted")
        raise


def chatter(expected: str) -> None:
    """Wait until nobody reads the standard error, tell of work in every way, and leave a word in the file."""
    import click

    print("waiting", file=sys.stderr)
    sys.stdin.read()
    for _ in range(100):
        print("a step" * 1000, file=sys.stderr, flush=True)
        click.echo("another", err=True)
    with open(expected, "w") as file:
        file.write("done")


def load() -> None:
    """Load every library, and print where each came from and the Python that did it."""
    import certifi
    import click
    import docker
    import httpx
    import ruamel.yaml

    places = {library.__name__: library.__file__ for library in (click, docker, httpx, ruamel.yaml)}
    with open(certifi.where()) as certificates:
        assert "BEGIN CERTIFICATE" in certificates.read()
    print(json.dumps({"places": places, "python": sys.executable, "path": sys.path}))
