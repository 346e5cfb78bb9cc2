"""What `--detach` does: the command runs in the background, in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from compose_chap.cli.call import Call
from compose_chap.cli.screen import render
from compose_chap.cli.screen.detached import detached_text
from compose_chap.operations import detach


def begin_apart(call: Call, directory: Path, confirmed: str) -> None:
    """Let the command of this call run in the background, and say how to follow it."""
    world = call.world()
    secrets = dict(click.get_current_context().meta.get("secrets", {}))
    if confirmed:
        secrets[detach.CONFIRMED] = confirmed
    run = detach.hand_over(world, directory, _program(), call.words, call.docker[1:], secrets)
    call.result({"detached": run.to_json()}, detached_text(run))


def watch_over(folder: str) -> int:
    """Be the process that watches over a run in the background; return its exit status."""
    return detach.watch_over(Path(folder), render.now)


def _program() -> list[str]:
    """Return the command that runs this very program again, whatever it lies in."""
    file = os.path.abspath(sys.argv[0])
    if os.path.basename(file) == "docker-chap":
        return [sys.executable, "-I", "-S", file]
    root = str(Path(__file__).parents[2])
    return [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {root!r}); from compose_chap.plugin import main; sys.exit(main())",
    ]
