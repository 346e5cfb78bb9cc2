"""Whatever comes over a backup, at whatever step: the stack is untouched, no half backup is listed, nothing runs on."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import faults
from tests.e2e.calls import chap, server_crashed, tools_running, until
from tests.e2e.faults import Fault, Picture, Run, Ways, tiny_disk
from tests.sample.stack import SampleStack


def fill_disk(stack: SampleStack) -> Callable[[Run], None]:
    def hit(run: Run) -> None:
        try:
            with open(stack.folder / "backups" / "filler", "wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)
        except OSError:
            pass

    return hit


OF_ALL = ("SIGKILL", "SIGINT", "database killed", "engine lost", "engine killed")
FAULTS = {name: fault for name, fault in faults.FAULTS.items() if name in OF_ALL} | {"disk full": Fault(fill_disk)}


class AtDetail(Run):
    """A run that is hit when its progress first tells of a part of the backup."""

    def _saw(self, step: str) -> None:
        detail = str(json.loads(self.stderr.splitlines()[-1])["detail"])
        super()._saw(f"{step}: {detail.split(' ')[0] if detail.startswith('volume') else detail}")


@dataclass
class Subject:
    """A stack that the faults come over, and the ways by which a run reaches the world."""

    stack: SampleStack
    ways: Ways


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """A stack whose backups go to a small disk, with so much in it that a backup takes a while."""
    made = SampleStack.create(tmp_path_factory.mktemp("backup-faults"))
    # The address of a Unix socket may have 108 characters at most.
    with tempfile.TemporaryDirectory(prefix="docker-chap-test-") as folder:
        try:
            ways = Ways.of(made, Path(folder))
            made.up()
            made.fill(rows=60_000)
            with tiny_disk(made.folder / "backups", 24):
                yield Subject(made, ways)
        finally:
            made.down()


def strike(subject: Subject, moment: str, fault: str) -> None:
    stack, ways, chosen = subject.stack, subject.ways, FAULTS[fault]
    before, listed = Picture.of(stack), chap(stack, "backups")["backups"]
    hit = chosen.way(stack, ways) if chosen.way else chosen.hit(stack)
    run = AtDetail(stack, "backup", "--with-volumes", at=f"backup: {moment}", hit=hit, environ=ways.environ)
    status = run.end()
    assert run.reached, run.stderr[-2000:]
    assert "Traceback" not in run.stderr and "This is a bug" not in run.stderr

    ways.mend(stack)
    died = fault == "database killed" or chosen.containers_die
    if died:
        stack.compose("start")
        stack.wait_ready()
    (stack.folder / "backups" / "filler").unlink(missing_ok=True)
    until(lambda: not tools_running(stack))
    after = Picture.of(stack)
    assert (after.files, after.columns, after.checksum) == (before.files, before.columns, before.checksum)
    assert after.databases == before.databases
    assert {name: container["id"] for name, container in after.containers.items()} == {
        name: container["id"] for name, container in before.containers.items()
    }
    now = chap(stack, "backups")["backups"]
    if status == 0:
        # The fault came when the backup was whole.
        assert len(now) == len(listed) + 1
        chap(stack, "verify", now[-1]["id"])
    else:
        assert status == {"SIGKILL": -9, "SIGINT": 130}.get(fault, 1) and now == listed
        left = list((stack.folder / "backups").glob("*.partial"))
        assert not left or fault == "SIGKILL"
    assert died or not server_crashed(stack)

    made = chap(stack, "backup")["backup"]
    assert not list((stack.folder / "backups").glob("*.partial"))
    chap(stack, "verify", made["id"])
    for path in (stack.folder / "backups").glob("2*"):
        subprocess.run(["rm", "-r", path], check=True)


def test_a_fault_leaves_no_half_backup(subject: Subject) -> None:
    strike(subject, "dump", "database killed")


@pytest.mark.torture
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("moment", ["dump", "read back dump", "volume"])
def test_every_fault_at_every_part_of_a_backup(subject: Subject, moment: str, fault: str) -> None:
    strike(subject, moment, fault)
