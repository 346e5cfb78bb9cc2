"""What each step of a run is called on the screen: while it goes on, and when it is done.

A mere look leaves no line behind: what was seen is shown below it.
"""

from __future__ import annotations

from dataclasses import dataclass

from compose_chap.records.steps import WORDS


@dataclass(frozen=True)
class StepWords:
    """A step while it goes on, and when it is done; empty for one that leaves no line."""

    doing: str
    done: str


STEPS = {
    step: StepWords(doing, done)
    for step, doing, done in (
        *((step.value, *words) for step, words in WORDS.items()),
        ("check", "Checking", ""),
        ("look", "Looking at CHAP and its data", ""),
        ("ask", "Asking", ""),
        ("stop again", "Stopping what was started", "Stopped what was started"),
        ("files back", "Putting the files back", "The files are back"),
        ("data back", "Putting the data back", "The data are back"),
        ("containers back", "Starting the previous containers", "Started the previous containers"),
        ("verify back", "Verifying that all is as before", "Everything is as before"),
        ("start database", "Starting the database", "Started the database"),
        ("start throwaway", "Starting a throwaway PostgreSQL", "Started a throwaway PostgreSQL"),
        ("prove", "Verifying the backup", "Verified the backup"),
        ("prove dump", "Verifying the dump", "Verified the dump"),
        ("copy", "Copying the backup", "Copied the backup"),
        ("fetch", "Reading the copy back", "Read the copy back"),
        ("check copies", "Checking the repository", "Checked the repository"),
        ("prune copies", "Removing copies", "Removed copies"),
        ("schedule", "Scheduled work", "Did the scheduled work"),
        ("copy data", "Copying the data", "Copied the data"),
        ("start copy", "Starting the new version on the copy", "Started the new version on the copy"),
        ("verify copy", "Verifying the copy", "Verified the copy"),
        ("wait", "Waiting", "Waited"),
        ("drain", "Waiting for jobs", "Waited for jobs"),
        ("lock", "Waiting for the other run", "The other run has ended"),
    )
}

# A step of the way back stands under its headline.
WAY_BACK = "go back"
# Not a step: the one that goes on has failed.
FAILED = "failed"
# Not a step: what the one that goes on waits for.
WAITING = "wait"


def words_of(step: str) -> StepWords:
    """Return the words of a step."""
    return STEPS.get(step) or StepWords(step.capitalize(), step.capitalize())
