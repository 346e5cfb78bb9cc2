"""One run at a time, and one interruption."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from compose_chap import units
from compose_chap.errors import Locked
from compose_chap.processes import process
from compose_chap.records import lock, run_records
from compose_chap.records.steps import Step
from tests.sample.steps import eventually

NOW = datetime(2026, 11, 23, tzinfo=timezone.utc)


def test_the_second_run_learns_who_holds_the_lock(tmp_path: Path) -> None:
    with lock.locked(tmp_path, "upgrade", NOW):
        journal = run_records.begin_run(tmp_path, "upgrade", {}, lambda: NOW)
        journal.begin(Step.KEEP)
        with pytest.raises(Locked) as refused, lock.locked(tmp_path, "backup", NOW):
            pass
    assert f"upgrade by {run_records.operator()}, since {units.moment(NOW)}, now at the step 'Keeping the data'" in str(
        refused.value
    )
    with lock.locked(tmp_path, "recover", NOW):
        pass


def test_a_child_that_outlives_its_parent_keeps_the_lock(tmp_path: Path) -> None:
    ends, goes_on = os.pipe()
    parent = os.fork()
    if parent == 0:
        with lock.locked(tmp_path, "upgrade", NOW):
            os.close(goes_on)
            os.set_inheritable(ends, True)
            child = [sys.executable, "-c", f"import os; os.read({ends}, 1)"]
            threading.Thread(target=process.run, args=[child]).start()
            time.sleep(1)
            os._exit(9)
    os.waitpid(parent, 0)
    os.close(ends)
    with pytest.raises(Locked), lock.locked(tmp_path, "recover", NOW):
        pass
    os.close(goes_on)

    def held() -> bool:
        try:
            with lock.locked(tmp_path, "recover", NOW):
                return False
        except Locked:
            return True

    assert eventually(lambda: not held())


def test_two_interruptions_at_the_same_time_are_the_first_and_no_error() -> None:
    both = {signal.SIGINT, signal.SIGTERM}
    with lock.single_interruption():
        signal.pthread_sigmask(signal.SIG_BLOCK, both)
        for number in both:
            # To this thread: another one of the process, which blocks nothing, would get it at once.
            signal.pthread_kill(threading.get_ident(), number)
        with pytest.raises(KeyboardInterrupt):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
        # What Python printed of the other would be an error of this test.
        os.kill(os.getpid(), signal.SIGHUP)


def test_only_the_first_interruption_counts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with lock.single_interruption():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGINT) is before
