"""What holds for all tests."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

# How long an example takes says more of the machine's load than of the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# Several files run at a time. The longest begin first, so that no process is left alone with one at the end.
LONGEST = (
    "test_faults",
    "test_main_job",
    "test_restore",
    "test_refusals",
    "test_restore_emergency",
    "test_source",
    "test_proofs",
    "test_older",
    "test_rehearse",
    "test_jobs",
    "test_upgrade",
    "test_elsewhere",
)

# A shell starts what it puts in the background with Ctrl-C ignored, and nohup ignores a lost terminal too: what a test
# starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the others, and the tests of each file, stay in their order."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)
