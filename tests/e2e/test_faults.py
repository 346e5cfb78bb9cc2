"""Every fault at every step: whatever happens, all is new and verified or all is old and verified."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet

from tests.e2e.calls import until
from tests.e2e.faults import (
    FAULTS,
    SECRETS,
    Outcome,
    Picture,
    Run,
    Ways,
    assert_no_secret,
    assert_old,
    break_and_look,
    tiny_disk,
)
from tests.sample.images import releases
from tests.sample.stack import SampleStack

# At most so many seconds into a step the fault strikes: about as long as the step lasts.
STEPS = {
    "upgrade": {
        "pull": 0.3,
        "backup": 2.0,
        "stop": 3.0,
        "keep": 1.0,
        "rewrite": 1.0,
        "start api": 2.5,
        "verify api": 5.0,
        "start worker": 2.5,
        "verify": 4.0,
    },
    "rollback": {
        "stop": 3.0,
        "rewrite": 1.0,
        "swap": 0.6,
        "start api": 2.5,
        "verify api": 5.0,
        "start worker": 2.5,
        "verify": 4.0,
    },
    "restore": {
        "read dump": 0.6,
        "restore beside": 1.5,
        "check beside": 1.0,
        "stop": 3.0,
        "swap": 0.6,
        "start api": 1.0,
        "verify api": 5.0,
        "start worker": 1.0,
        "verify": 4.0,
    },
    # In a jail, which takes some seconds to start.
    "restore of plain SQL": {"read dump": 12.0},
    "recover": {"go back": 12.0},
    "upgrade without a copy": {"keep": 0.3, "start api": 2.5, "verify api": 5.0, "verify": 4.0},
}


def _cell(operation: str, step: str, fault: str) -> ParameterSet:
    only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
    return pytest.param(operation, step, fault, marks=[only_root] if fault == "disk full" else [])


# The kinds of fault that differ most, at steps that do: these run always, beside those of other files.
CHOSEN = [
    ("upgrade", "pull", "registry gone"),
    ("upgrade", "start api", "SIGKILL, recovery too"),
    ("upgrade", "start worker", "power cut"),
    ("upgrade", "verify api", "engine lost"),
    ("upgrade", "keep", "disk full"),
    ("restore of plain SQL", "read dump", "SIGKILL"),
]
EVERY = [_cell(operation, step, fault) for operation, steps in STEPS.items() for step in steps for fault in FAULTS]
SICK = [release["version"] for release in releases() if release.get("vice") not in (None, "slow-migration")]


class Subject:
    """A stack that the faults come over, one after the other; brought to where each operation begins."""

    def __init__(self, stack: SampleStack, ways: Ways) -> None:
        self.stack, self.ways = stack, ways
        self.seed = int(os.environ.get("CHAP_TEST_SEED", "0")) or random.randrange(1 << 30)
        self.random = random.Random(self.seed)
        self.upgraded = False
        self.at_first = Picture.of(stack)

    def strike(self, operation: str, step: str, fault: str) -> Outcome:
        """Bring the stack to the start, let the fault come over it, and return what came of it."""
        self._prepare(operation)
        words: tuple[str, ...]
        if (step, fault) == ("pull", "registry gone"):
            self._forget_images()
        before = Picture.of(self.stack)
        delay = self.random.uniform(0, STEPS[operation][step])
        if operation == "recover":
            self._interrupt()
            words = ("recover",)
        else:
            words = {
                "upgrade": ("upgrade", "v2.1.0", "--yes"),
                "upgrade without a copy": ("upgrade", "v2.1.0", "--no-copy", "--yes"),
                "rollback": ("rollback", "--yes"),
                "restore": ("restore", "latest", "--yes"),
                "restore of plain SQL": ("restore", str(self.ways.plain_dump), "--yes"),
            }[operation]
        # The databases that are kept besides are looked at by what `status` says.
        after = "v2.1.0" if operation.startswith("upgrade") else self.at_first
        outcome = break_and_look(self.stack, operation, words, step, fault, delay, before, after, self.ways)
        if outcome.state == "all new":
            self.upgraded = operation == "upgrade"
            if operation == "upgrade without a copy":
                kept = self._chap("history")["runs"][-1]["facts"]["kept_dump"]
                self._chap("restore", Path(kept).name, "--with-version", "--yes")
                assert_old(self.stack, before)
        return outcome

    def _prepare(self, operation: str) -> None:
        if operation == "rollback" and not self.upgraded:
            self._chap("upgrade", "v2.1.0", "--yes")
            self.upgraded = True
        elif operation != "rollback":
            self.to_the_old_version()
        if operation == "upgrade without a copy":
            # Nobody writes here, and PostgreSQL itself does not either.
            self.stack.sql("ALTER SYSTEM SET autovacuum = off", "postgres")
            self.stack.sql("SELECT pg_reload_conf()", "postgres")
        if operation == "restore of plain SQL" and not self.ways.plain_dump.exists():
            self.ways.plain_dump.write_bytes(self.stack.inside("pg_dump", "-U", self.stack.user, self.stack.database))
        if operation == "restore" and not list(self.stack.folder.glob("backups/*/manifest.json")):
            self._chap("backup")

    def to_the_old_version(self) -> None:
        """Undo the upgrade that a cell before left standing."""
        if self.upgraded:
            self._chap("rollback", "--yes")
            self.upgraded = False

    def _forget_images(self) -> None:
        for file in self.stack.files:
            for image in re.findall(r"image: *(\S+/chap-(?:core|worker)):", file.read_text()):
                self.stack.docker("rmi", f"{image}:v2.1.0", check=False)

    def _interrupt(self) -> None:
        for _ in range(3):
            run = Run(self.stack, "upgrade", "v2.1.0", "--yes", at="start api", hit=lambda run: run.signal(9))
            if run.end() == -9:
                return
        raise AssertionError("the upgrade could not be interrupted")

    def _chap(self, *words: str) -> Any:
        done = self.stack.docker("chap", *words, "--json", check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """A stack with secrets worth looking for."""
    # The address of a Unix socket may have 108 characters at most.
    with tempfile.TemporaryDirectory(prefix="docker-chap-test-") as folder:
        base = tmp_path_factory.mktemp("faults")
        with tiny_disk(base, 96) if os.geteuid() == 0 else nullcontext(base) as disk:
            stack = SampleStack.create(disk, settings=SECRETS)
            try:
                ways = Ways.of(stack, Path(folder))
                stack.up()
                stack.fill(rows=2_000)
                yield Subject(stack, ways)
            finally:
                stack.down()


@pytest.mark.parametrize(("operation", "step", "fault"), [_cell(*chosen) for chosen in CHOSEN])
def test_a_fault_leaves_all_new_or_all_old(subject: Subject, operation: str, step: str, fault: str) -> None:
    subject.strike(operation, step, fault)


@pytest.mark.torture
@pytest.mark.parametrize(("operation", "step", "fault"), EVERY)
def test_every_fault_at_every_step(subject: Subject, operation: str, step: str, fault: str) -> None:
    write_down(subject.strike(operation, step, fault))


@pytest.mark.torture
def test_a_file_that_somebody_edits_during_an_upgrade_that_fails(subject: Subject) -> None:
    subject.to_the_old_version()
    stack, before = subject.stack, Picture.of(subject.stack)
    file = stack.files[0]
    draft = file.with_name("draft")

    def edit(run: Run) -> None:
        draft.write_bytes(file.read_bytes() + b"# mine\n")
        draft.replace(file)

    run = Run(stack, "upgrade", "v2.1.1", "--yes", at="start api", hit=edit, environ=subject.ways.environ)
    assert run.end() == 4, run.stdout + run.stderr[-3000:]
    failure = run.document["error"]
    assert f"{file} was changed by someone else" in failure["message"], failure
    assert "CHAP runs again as before" in failure["message"] and "chap-core:v2.0.0" in failure["hint"]
    edited = before.files[file.name].replace(b"v2.0.0", b"v2.1.1") + b"# mine\n"
    assert file.read_bytes() == edited and stack.version() == "2.0.0"
    assert stack.api("/health/ready")[0] == 200 and stack.checksum() == before.checksum

    file.write_bytes(before.files[file.name] + b"# mine\n")
    recovery = Run(stack, "recover", environ=subject.ways.environ)
    assert recovery.end() == 0, recovery.stdout + recovery.stderr[-3000:]
    assert file.read_bytes() == before.files[file.name] + b"# mine\n"
    file.write_bytes(before.files[file.name])
    assert_old(stack, before)
    labels = stack.docker("inspect", "--format", "{{json .Config.Labels}}", f"{stack.project}-chap-1").stdout
    assert "images-of-before" not in labels


def test_recover_says_what_it_waits_for(subject: Subject) -> None:
    records = subject.stack.folder / ".docker-chap"
    records.mkdir(mode=0o700, exist_ok=True)
    with open(records / "lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = Run(subject.stack, "recover", environ=subject.ways.environ)
        until(lambda: "lock" in run.steps)
    assert run.end() == 0, run.stdout + run.stderr[-3000:]
    assert "Another run works on this stack" in run.stderr and run.document["changed"] is False


def write_down(outcome: Outcome) -> None:
    """Add a row to the table that `make torture` prints."""
    results = Path(os.environ.get("CHAP_TEST_RESULTS", "build/out/torture.tsv"))
    with open(results, "a") as file:
        file.write("\t".join(outcome.row()) + "\n")


@pytest.mark.torture
@pytest.mark.parametrize("version", SICK)
def test_a_sick_version_is_rolled_back(subject: Subject, version: str) -> None:
    subject.to_the_old_version()
    before, begun = Picture.of(subject.stack), time.monotonic()
    run = Run(subject.stack, "upgrade", version, "--yes", "--wait", "15", environ=subject.ways.environ)
    assert run.end() == 3, run.stdout + run.stderr[-3000:]
    assert "Everything is as it was before" in run.document["error"]["state"]
    assert_old(subject.stack, before)
    assert_no_secret(subject.stack, run.stdout, run.stderr)
    write_down(Outcome("upgrade", "", f"sick {version}", 0, True, 3, "", "all old", time.monotonic() - begun))
