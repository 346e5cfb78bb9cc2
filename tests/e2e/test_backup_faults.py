"""Whatever comes over a backup, at whatever step: the stack is untouched, no half backup is listed, nothing runs on."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.calls import chap, server_crashed, tools_running, until
from tests.e2e.faults import Picture, Run, tiny_disk
from tests.sample.stack import SampleStack, environment


def _docker(*words: str) -> None:
    subprocess.run(["docker", *words], env=environment(), capture_output=True, check=False)


def send(number: int) -> Callable[[SampleStack], Callable[[Run], None]]:
    return lambda stack: lambda run: run.signal(number)


def kill_container(stack: SampleStack) -> Callable[[Run], None]:
    return lambda run: _docker("kill", f"{stack.project}-{stack.database_service}-1")


def fill_disk(stack: SampleStack) -> Callable[[Run], None]:
    def hit(run: Run) -> None:
        try:
            with open(stack.folder / "backups" / "filler", "wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)
        except OSError:
            pass

    return hit


FAULTS = {
    "SIGKILL": send(signal.SIGKILL),
    "SIGINT": send(signal.SIGINT),
    "container killed": kill_container,
    "disk full": fill_disk,
}


class AtDetail(Run):
    """A run that is hit when its progress first tells of a part of the backup."""

    def _saw(self, step: str) -> None:
        detail = str(json.loads(self.stderr.splitlines()[-1])["detail"])
        super()._saw(f"{step}: {detail.split(' ')[0] if detail.startswith('volume') else detail}")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """A stack whose backups go to a small disk, with so much in it that a backup takes a while."""
    made = SampleStack.create(tmp_path_factory.mktemp("backup-faults"))
    try:
        made.up()
        made.fill(rows=60_000)
        with tiny_disk(made.folder / "backups", 24):
            yield made
    finally:
        made.down()


def strike(stack: SampleStack, moment: str, fault: str) -> None:
    before, listed = Picture.of(stack), chap(stack, "backups")["backups"]
    run = AtDetail(stack, "backup", "--with-volumes", at=f"backup: {moment}", hit=FAULTS[fault](stack))
    status = run.end()
    assert run.reached, run.stderr[-2000:]
    assert "Traceback" not in run.stderr and "This is a bug" not in run.stderr

    if fault == "container killed":
        stack.compose("start", stack.database_service)
        stack.wait_ready()
    (stack.folder / "backups" / "filler").unlink(missing_ok=True)
    until(lambda: not tools_running(stack))
    after = Picture.of(stack)
    assert (after.files, after.columns, after.checksum) == (before.files, before.columns, before.checksum)
    assert after.databases == before.databases
    assert {name: one["id"] for name, one in after.containers.items()} == {
        name: one["id"] for name, one in before.containers.items()
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
    assert fault == "container killed" or not server_crashed(stack)

    made = chap(stack, "backup")["backup"]
    assert not list((stack.folder / "backups").glob("*.partial"))
    chap(stack, "verify", made["id"])
    for path in (stack.folder / "backups").glob("2*"):
        subprocess.run(["rm", "-r", path], check=True)


def test_a_fault_leaves_no_half_backup(stack: SampleStack) -> None:
    strike(stack, "dump", "container killed")


@pytest.mark.torture
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("moment", ["dump", "read back dump", "volume"])
def test_every_fault_at_every_part_of_a_backup(stack: SampleStack, moment: str, fault: str) -> None:
    strike(stack, moment, fault)
