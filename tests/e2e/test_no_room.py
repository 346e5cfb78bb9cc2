"""Where no copy of the database can be kept, a second dump is: slower, and every row comes back all the same."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.calls import chap
from tests.e2e.faults import Picture, Run, assert_new, assert_old
from tests.sample.stack import SampleStack, environment, registry

# The server's whole disk, in MiB.
DISK = 300


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """A small stack whose database lies on a small disk of its own."""
    stack = SampleStack.create(tmp_path_factory.mktemp("room"))
    text = stack.files[0].read_text()
    disk = f"chap-db:\n    driver_opts: {{type: tmpfs, device: tmpfs, o: size={DISK}m}}\n"
    small = "\n    command: postgres -c min_wal_size=32MB -c max_wal_size=32MB -c max_prepared_transactions=2"
    small += "\n    volumes:\n      - chap-db:/var/lib"
    text = text.replace("\n    volumes:\n      - chap-db:/var/lib", small)
    stack.files[0].write_text(text[: text.rindex("chap-db:\n")] + disk + text[text.rindex("chap-db:\n") + 9 :])
    try:
        stack.up()
        stack.fill(megabytes=20)
        # The room is for data alone.
        for version in ("v2.1.0", "v2.1.5", "v2.2.0"):
            for image in ("chap-core", "chap-worker"):
                stack.docker("pull", "-q", f"{registry()}/docker-chap-test/{image}:{version}")
        yield stack
    finally:
        stack.down()


def free(stack: SampleStack) -> int:
    """Return the MiB that are free on the server's disk."""
    name = f"{stack.project}-{stack.database_service}-1"
    return int(stack.docker("exec", name, "df", "-Pm", "/var/lib/postgresql/data").stdout.split()[-3])


@contextmanager
def full_but_for(stack: SampleStack, megabytes: int) -> Iterator[None]:
    """Fill the server's disk with rows of another database."""
    stack.sql("CHECKPOINT", "postgres")
    rows = (free(stack) - megabytes) * 1024
    stack.sql(
        f"CREATE UNLOGGED TABLE ballast AS SELECT repeat('x', 980) AS text FROM generate_series(1, {rows})", "postgres"
    )
    try:
        yield
    finally:
        stack.sql("DROP TABLE ballast", "postgres")


@contextmanager
def somebody_who_cannot_be_sent_away(stack: SampleStack) -> Iterator[None]:
    """Have a transaction in the live database that outlives its session: no copy can be made beside it."""
    stack.sql("BEGIN; SELECT txid_current(); PREPARE TRANSACTION 'stays'")
    try:
        yield
    finally:
        stack.sql("ROLLBACK PREPARED 'stays'")


def backups(stack: SampleStack) -> int:
    """Return how many backups there are."""
    return len(list(stack.folder.glob("backups/*/manifest.json")))


@pytest.mark.parametrize("fault", ["loses rows", pytest.param("killed twice", marks=pytest.mark.torture)])
def test_without_room_for_a_copy_a_dump_brings_every_row_back(stack: SampleStack, fault: str) -> None:
    before, made = Picture.of(stack), backups(stack)
    with full_but_for(stack, 80):
        plan = chap(stack, "upgrade", "v2.1.5", "--dry-run")
        (room,) = (check for check in plan["checks"] if check["name"] == "room")
        assert plan["plan"]["keep"] == "dump" and room["status"] == "warn" and "second dump" in room["message"]
        if fault == "loses rows":
            run = Run(stack, "upgrade", "v2.1.5", "--yes")
            assert run.end() == 3, run.stdout + run.stderr[-3000:]
        else:
            run = Run(stack, "upgrade", "v2.1.0", "--yes", at="verify api", hit=lambda run: run.signal(signal.SIGKILL))
            assert run.end() == -signal.SIGKILL
            again = Run(stack, "recover", at="go back", hit=lambda run: run.signal(signal.SIGKILL))
            assert again.end() == -signal.SIGKILL
            last = Run(stack, "recover")
            assert last.end() == 0, last.stdout + last.stderr[-3000:]
        # Where nothing was written between the backup and the stop, the backup itself will do; the server's own
        # upkeep counts as writing, and comes when it likes.
        assert backups(stack) - made in (1, 2)
    assert_old(stack, before)


def test_a_dump_that_grows_too_large_does_not_fill_the_disk(stack: SampleStack, tmp_path: Path) -> None:
    before, path = Picture.of(stack), tmp_path / "grows.sql.gz"
    row = "1\t" + "x" * 1000 + "\n"
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write("-- PostgreSQL database dump\nCREATE TABLE public.grows (a int, b text);\n")
        file.write("COPY public.grows (a, b) FROM stdin;\n")
        for _ in range(DISK * 2):
            file.write(row * 512)
        file.write("\\.\n-- PostgreSQL database dump complete\n")
    run = Run(stack, "restore", str(path), "--yes")
    assert run.end() == 1, run.stdout + run.stderr[-3000:]
    assert "before the disk was full" in run.document["error"]["message"] and run.document["error"]["hint"]
    # A server whose log finds no room stops, with all that it serves.
    assert "No space left" not in stack.compose("logs", stack.database_service).stdout
    assert_old(stack, before)


@pytest.mark.torture
def test_beside_a_prepared_transaction_nothing_begins(stack: SampleStack) -> None:
    before, made = Picture.of(stack), backups(stack)
    with somebody_who_cannot_be_sent_away(stack):
        error = chap(stack, "upgrade", "v2.1.0", "--yes", expect=1)["error"]
        assert error["message"].startswith("Prepared transactions hold the database"), error
    assert backups(stack) == made
    assert_old(stack, before)


@pytest.mark.torture
def test_an_upgrade_that_kept_a_dump_is_undone_by_a_restore(stack: SampleStack) -> None:
    before, made = Picture.of(stack), backups(stack)
    with full_but_for(stack, 80):
        run = Run(stack, "upgrade", "v2.1.0", "--yes")
        assert run.end() == 0, run.stdout + run.stderr[-3000:]
    assert_new(stack, before, "v2.1.0")
    # The backup itself, where nothing was written since.
    assert backups(stack) - made in (1, 2) and run.document["kept_database"] == ""
    kept = json.loads(Path(run.document["backup"], "manifest.json").read_text())
    message = chap(stack, "rollback", "--yes", expect=1)["error"]
    assert f"docker chap restore {run.document['backup']} --with-version" in message["hint"]
    restored = Run(stack, "restore", kept["id"], "--with-version", "--yes")
    assert restored.end() == 0, restored.stdout + restored.stderr[-3000:]
    # The database that the restore replaced is kept; everything else is as it was before the upgrade.
    before.databases = []
    assert_old(stack, before)


def test_values_are_compared_and_put_back_where_a_dump_was_kept(stack: SampleStack) -> None:
    lengths = stack.sql("SELECT id FROM modeltemplatedb WHERE min_prediction_length = 1 ORDER BY id")
    assert len(lengths) >= 8
    with full_but_for(stack, 80):
        run = Run(stack, "upgrade", "v2.2.0", "--yes")
        assert run.end() == 0, run.stdout + run.stderr[-3000:]
    assert run.document["kept_database"] == ""
    (values,) = (check for check in run.document["checks"] if check["name"] == "values")
    assert values["status"] == "warn"
    moved = {value["column"].rpartition(".")[2]: str(value["rows"]) for value in values["details"]["moved"]}
    assert moved["min_prediction_length"] == moved["max_prediction_length"] == str(len(lengths))
    pasted = values["details"]["put_back"]["command"]
    subprocess.run(["sh", "-c", pasted], check=True, cwd="/", env=environment(), capture_output=True)
    # v2.2.0 adds templates of its own, which have 1 too.
    after = stack.sql("SELECT id FROM modeltemplatedb WHERE min_prediction_periods = 1 ORDER BY id")
    assert after[: len(lengths)] == lengths
