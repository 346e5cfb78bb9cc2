"""Draw time lines that DOCKER_CHAP_TIMELINE wrote: of each command its steps, and below them what was asked.

python -m tests.bench.draw FILE [--title TEXT] >FILE.svg
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, LEFT, RIGHT, ROW, TEXT = 1200, 10, 20, 18, 11
LETTER = 6.2  # the width of one, about, at this size
COLOURS = {"command": "#64748b", "step": "#2563eb", "question": "#f59e0b", "engine": "#a8a29e"}
SHORTEST = 0.004  # seconds; requests to Docker are drawn only from here on


@dataclass(frozen=True)
class Event:
    """One line of the file; `begin` and `end` are seconds since the command began."""

    kind: str
    name: str
    by: str
    thread: int
    begin: float
    end: float


def read(text: str) -> list[list[Event]]:
    """Return the events of each command in a time line, in the order of their begin."""
    commands: list[list[Event]] = [[]]
    for line in text.splitlines():
        event = Event(**json.loads(line))
        commands[-1].append(event)
        if event.kind == "command":
            commands.append([])
    return [shifted(events) for events in commands if events]


def shifted(events: Sequence[Event]) -> list[Event]:
    """Return events with times since the first of them."""
    first = min(event.begin for event in events)
    moved = (Event(**{**vars(event), "begin": event.begin - first, "end": event.end - first}) for event in events)
    return sorted(moved, key=lambda event: event.begin)


def rows(events: Sequence[Event]) -> list[list[Event]]:
    """Return events in rows in which none lies over another: the command, its steps, then what was asked."""
    placed: list[list[Event]] = []
    for kind in COLOURS:
        own: list[list[Event]] = []
        for event in events:
            if event.kind != kind or (kind == "engine" and event.end - event.begin < SHORTEST):
                continue
            fitting = next((row for row in own if row[-1].end <= event.begin + 1e-6), None)
            if fitting is None:
                own.append(fitting := [])
            fitting.append(event)
        placed += own
    return placed


def picture(events: Sequence[Event], top: int, title: str) -> tuple[list[str], int]:
    """Return the elements of one command's picture, and where it ends."""
    length = max(event.end for event in events) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / length
    parts = [f'<text x="{LEFT}" y="{top + 12}" font-weight="bold">{escape(title)}, {length:.2f} s</text>']
    lines, top = rows(events), top + 20
    bottom = top + len(lines) * ROW
    for at in ticks(length):
        x = LEFT + at * scale
        parts.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="#e2e8f0"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 12}" fill="#64748b">{at:g} s</text>')
    for number, line in enumerate(lines):
        for event in line:
            parts += bar(event, top + number * ROW, scale)
    return parts, bottom + 30


def ticks(length: float) -> Iterator[float]:
    """Yield round times, at most ten."""
    step = next(size for size in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 1e9) if length / size <= 10)
    at = 0.0
    while at <= length:
        yield round(at, 1)
        at += step


def bar(event: Event, y: int, scale: float) -> Iterator[str]:
    """Yield the bar of an event, with its name where there is room for it, and all that is known of it on hover."""
    x, width = LEFT + event.begin * scale, max((event.end - event.begin) * scale, 0.7)
    title_text = f"{event.name} {event.end - event.begin:.3f} s" + (f", asked by {event.by}" if event.by else "")
    yield (
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 3}" fill="{COLOURS[event.kind]}"'
        f' rx="2"><title>{escape(title_text)}</title></rect>'
    )
    label = event.name if event.kind != "question" or not event.by else f"{event.name}: {event.by.split(' < ')[0]}"
    if label := label[: int(width / LETTER)] if width > 3 * LETTER else "":
        yield f'<text x="{x + 3:.1f}" y="{y + 11}" fill="white" pointer-events="none">{escape(label)}</text>'


def drawing(commands: Sequence[Sequence[Event]], title: str) -> str:
    """Return the SVG of all commands."""
    parts: list[str] = []
    top = 8
    for events in commands:
        name = next((event.name for event in events if event.kind == "command"), "a command that was cut off")
        more, top = picture(events, top, title or f"docker chap {name}")
        parts += more
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" font-family="sans-serif"'
    background = f'<rect width="{WIDTH}" height="{top}" fill="white"/>'
    return "\n".join([f'{head} font-size="{TEXT}">', background, *parts, "</svg>", ""])


def main() -> None:
    """Draw the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--title", default="", help="instead of the command's name")
    options = parser.parse_args()
    print(drawing(read(options.file.read_text()), options.title), end="")


if __name__ == "__main__":
    main()
