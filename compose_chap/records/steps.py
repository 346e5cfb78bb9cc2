"""The steps of a run, as its journal names them. The way back depends on which steps have begun."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum


class Step(str, Enum):
    """A step of a run. The values are in the journals of all versions: a name may change, a value never."""

    PULL = "pull"
    BACKUP = "backup"
    CHECKOUT = "checkout"
    BUILD = "build"
    READ_DUMP = "read dump"
    RESTORE_BESIDE = "restore beside"
    CHECK_BESIDE = "check beside"
    STOP = "stop"
    KEEP = "keep"
    SWAP = "swap"
    REWRITE = "rewrite"
    START_API = "start api"
    VERIFY_API = "verify api"
    START_WORKER = "start worker"
    VERIFY = "verify"
    FINISH = "finish"
    GO_BACK = "go back"

    def __str__(self) -> str:
        return self.value


# What a step is called on the screen: while it goes on, and when it is done.
WORDS = {
    Step.PULL: ("Pulling", "Pulled"),
    Step.BACKUP: ("Backing up", "Backed up"),
    Step.CHECKOUT: ("Checking out", "Checked out"),
    Step.BUILD: ("Building", "Built"),
    Step.READ_DUMP: ("Reading the dump", "Read the dump"),
    Step.RESTORE_BESIDE: ("Restoring beside the live database", "Restored beside the live database"),
    Step.CHECK_BESIDE: ("Checking what was restored", "Checked what was restored"),
    Step.STOP: ("Stopping CHAP", "Stopped CHAP"),
    Step.KEEP: ("Keeping the data", "Kept the data"),
    Step.SWAP: ("Swapping the databases", "Swapped the databases"),
    Step.REWRITE: ("Changing the files", "Changed the files"),
    Step.START_API: ("Starting the API", "Started the API"),
    Step.VERIFY_API: ("Verifying the API", "Verified the API"),
    Step.START_WORKER: ("Starting the worker", "Started the worker"),
    Step.VERIFY: ("Verifying everything", "Verified everything"),
    Step.FINISH: ("Recording the result", "Recorded the result"),
    Step.GO_BACK: ("Putting everything back", "Everything is back"),
}


def reached(steps: Sequence[str]) -> str:
    """Return where a run with these steps in its journal is, in words, to stand behind `was cut off` or `is`."""
    if not steps:
        return "before its first step"
    known = [words[0] for step, words in WORDS.items() if step.value == steps[-1]]
    return f"at the step '{known[0] if known else steps[-1]}'"
