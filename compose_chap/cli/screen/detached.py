"""A run that goes on in the background, in words."""

from __future__ import annotations

from datetime import datetime, timedelta

from compose_chap import units
from compose_chap.cli.screen.layout import paragraph
from compose_chap.records.detached import Detached

_NEWS = timedelta(days=1)


def is_news(run: Detached, now: datetime) -> bool:
    """Whether a run is still worth showing: it goes on, or began not long ago."""
    return run.running or now - run.began_at < _NEWS


def detached_text(run: Detached) -> str:
    """Return what is known of a run, and how to follow or stop it."""
    name = f"In the background: {' '.join(run.words)}, begun by {run.by} at {units.moment(run.began_at)}"
    if run.running:
        stop = f"systemctl stop {run.unit}" if run.unit else f"kill {run.process}"
        return (
            f"{paragraph(f'{name} ({run.id}).')}\n"
            f"To follow it:\n  docker chap attach {run.id}\nTo stop it, and put everything back:\n  {stop}"
        )
    ended = f"ended at {units.moment(run.ended_at)}" if run.ended_at else "was killed"
    status = "" if run.exit_status is None else f" with exit status {run.exit_status}"
    return f"{paragraph(f'{name}, {ended}{status}.')}\nTo see what it wrote:\n  docker chap attach {run.id}"
