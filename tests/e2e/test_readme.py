"""What README and docs promise: every command is in its table, and every example runs as it is printed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from compose_chap import errors
from compose_chap.cli import app
from compose_chap.cli.command_table import EXIT_STATUSES
from tests.e2e.calls import own_crontab, put_files_back
from tests.sample.stack import SampleStack, environment, run_in

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \| .* \| `(docker chap [^`]+)` \|$", README, re.MULTILINE)


def test_every_command_is_in_the_table() -> None:
    context = click.Context(app.chap)
    assert [name for name, _ in ROWS] == app.chap.list_commands(context)


def test_exit_statuses_are_the_same_in_help_and_readme() -> None:
    section = README.partition("| Exit status |")[2].partition("\n\n")[0]
    table = {int(status): words for status, words in re.findall(r"^\| (\d+) \| (.*) \|$", section, re.MULTILINE)}
    assert table == EXIT_STATUSES
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ChapError)]
    assert set(table) == {0, *(kind.exit_status for kind in kinds)}


def test_a_backup_is_restored_by_hand_as_its_own_text_says(small: SampleStack) -> None:
    backup = Path(json.loads(small.docker("chap", "backup", "--json").stdout)["backup"]["folder"])
    before = small.checksum()
    small.sql("DELETE FROM observation")
    commands = re.findall(r"^   (docker .*)$", (backup / "RESTORE.txt").read_text(), re.MULTILINE)
    for command in commands:
        done = subprocess.run(["sh", "-c", command], cwd=backup, env=environment(), capture_output=True, check=False)
        assert done.returncode == 0, command + done.stderr.decode()
    small.wait_ready()
    assert small.checksum() == before and small.databases() == ["chap_core", "postgres"]

    printed = (
        (ROOT / "docs/backups.md")
        .read_text()
        .partition("### By hand")[2]
        .partition("```\n")[2]
        .partition("```")[0]
        .splitlines()
    )
    compose = commands[0].partition(" stop ")[0]
    assert printed == [command.replace(compose, "docker compose") for command in commands[: len(printed)]]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an empty place for copies, whose password is secret."""
    folder = tmp_path_factory.mktemp("copies") / "chap"
    words = ("restic", "init", "-q", "-r", str(folder))
    done = run_in(folder.parent, *words, env={**environment(), "RESTIC_PASSWORD": "secret"})
    assert done.returncode == 0, done.stderr
    return folder


# Each of these takes long, and another test runs the same command.
LONG = ("upgrade", "rehearse", "rollback", "restore")
EXAMPLES = [
    pytest.param(name, line, id=name, marks=[pytest.mark.torture] if name in LONG else []) for name, line in ROWS
]


@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_the_example_runs(small: SampleStack, repository: Path, name: str, line: str, tmp_path: Path) -> None:
    words = shlex.split(line)
    assert "--yes" not in words
    if name == "rollback":
        # There must be something to undo.
        small.docker("chap", "upgrade", "v2.1.0", "--yes")
    if name in ("rollback", "restore"):
        # What a person would answer; a --yes in README would be copied into a terminal, where it skips the question.
        words.append("--yes")
    if name == "attach":
        small.docker("chap", "backup", "--detach")
    variables = environment()
    if name in ("copy", "copies"):
        # The place that the example names is nobody's: a folder of this machine stands for it.
        words[-1] = str(repository)
        variables |= {"RESTIC_PASSWORD": "secret"}
    if name == "schedule":
        # Not with this machine's own systemd or cron, which would do the work of a sample every night.
        words += ["--by", "cron"]
        variables |= {"PATH": f"{own_crontab(tmp_path)}:{variables['PATH']}"}
    done = run_in(small.folder, *words, env=variables)
    assert done.returncode == 0 and done.stdout.strip(), done.stdout + done.stderr


@pytest.mark.torture
def test_a_new_machine_gets_everything_back_by_the_commands_of_the_docs(small: SampleStack, tmp_path: Path) -> None:
    """Lose the server, and follow docs/copies.md, from the first password on."""
    docs = (ROOT / "docs/copies.md").read_text()
    password, repository = tmp_path / "copies.password", tmp_path / "copies"
    first = docs.partition("## Begin")[2].partition("```\n")[2].partition("```")[0]
    first = first.replace("/etc/chap-copies.password", str(password))
    small.docker("chap", "backup")
    shell(small.folder, first.replace("sftp:chap@backup.example.org:/srv/chap", str(repository)))
    rows, files = small.checksum(), {file: file.read_bytes() for file in (*small.files, small.folder / ".env")}

    small.compose("down", "--volumes")
    stays = small.folder.rename(small.folder.with_name("lost"))
    try:
        blocks = re.findall(r"```\n(.*?)```", docs.partition("## On a new machine")[2], re.DOTALL)
        assert len(blocks) == 3, "the files, a checkout, the data"
        known = {
            "/root/copies.password": password,
            "/srv/chap-copy": tmp_path / "copy",
            "-r REPOSITORY": f"-r {repository}",
            "--from REPOSITORY": f"--from {repository} --yes",
            "PROJECT": small.project,
        }
        for name, value in known.items():
            blocks = [block.replace(name, str(value)) for block in blocks]
        exports, listing, bring = blocks[0].strip().splitlines()
        listed = shell(tmp_path, f"{exports}\n{listing}").splitlines()
        newest = [line for line in listed if re.match(r"[0-9a-f]{8} ", line)][-1].split()[0]
        shell(tmp_path, f"{exports}\n{bring.replace(' ID ', f' {newest} ')}")
        put_files_back(tmp_path / "copy")
        assert {file: file.read_bytes() for file in files} == files
        shell(small.folder, blocks[2])
        assert small.checksum() == rows
    finally:
        small.folder.mkdir(exist_ok=True)
        for path in stays.iterdir():
            if not (small.folder / path.name).exists():
                path.rename(small.folder / path.name)


def shell(folder: Path, script: str) -> str:
    """Run commands as a person types them into a terminal, each of which has to succeed."""
    done = run_in(folder, "bash", "-euc", script, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
