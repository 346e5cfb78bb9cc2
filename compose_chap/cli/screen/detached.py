"""A run that goes on in the background, in words."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from compose_chap import units
from compose_chap.cli.screen.layout import paragraph
from compose_chap.records.detached import Detached

_NEWS = timedelta(days=1)


def is_news(run: Detached, now: datetime) -> bool:
    """Whether a run is still worth showing: it goes on, or began not long ago."""
    return run.running or now - run.began_at < _NEWS


def _stop(run: Detached) -> str:
    # Everybody sees their own runs only, and all but root's belong to the systemd of their user.
    whose = "--user " if os.geteuid() else ""
    return f"systemctl {whose}stop {run.unit}" if run.unit else f"kill {run.process}"


def detached_text(run: Detached) -> str:
    """Return what is known of a run, and how to follow or stop it."""
    name = f"In the background: {' '.join(run.words)}, begun by {run.by} at {units.moment(run.began_at)}"
    if run.running:
        return (
            f"{paragraph(f'{name} ({run.id}).')}\n"
            f"To follow it:\n  docker chap attach {run.id}\nTo stop it in order:\n  {_stop(run)}"
        )
    ended = f"ended at {units.moment(run.ended_at)}" if run.ended_at else "was killed"
    status = "" if run.exit_status is None else f" with exit status {run.exit_status}"
    return f"{paragraph(f'{name}, {ended}{status}.')}\nTo see what it wrote:\n  docker chap attach {run.id}"
