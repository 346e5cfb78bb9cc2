"""What others can see and what they can slip in: no piece of a secret anywhere outside of the project's own files,
and no name that is run.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e.registries import private_registry
from tests.sample.stack import SampleStack, _ask, environment, registry

# What a careless shell would run, and what a careless reader of words would split.
TRAP = "$(touch hacked) `touch hacked`; touch hacked 'one\" \\two"

# With what parts a URL, a DSN, a header or a quoted text in two. Nobody may see even a piece of one.
DATABASE = "dbRk7w/dbVt3m@dbXq9%dbLz4\"dbHy6'dbWp3$dbJu8#dbGc5"
DSN = "dsTb2n/dsQf8@dsMv5'dsKd7\\dsZr9 dsEh4"
SITE = 'pwNx6/pwCj3@pwSg9%41pwYm2"pwUb7,pwFz5'
REPORTS = "rpDw4/rpHk8@rpTj2:rpXv6"
TOKEN = "tkBn5/tkRw9+tkLm3=="
DHIS2 = 'dhGy7/dhPq4@dhVc2%dhZt8"dhKs6:dhWn3'
REGISTRY = "rgTzQa/rgLk2hW@rgXd9%rgPm4\"rgHc7'rgBw3$rgJu6"
# That password, as `htpasswd -B` writes it.
USER = "chap:$2b$05$abcdefghijklmnopqrstuuNMpfX4mPr6BmRK8Rq/CTxaPmGgsZ50e"
PIECES = re.findall(r"[a-z]{2}[A-Z]\w{2,4}", " ".join((DATABASE, DSN, SITE, REPORTS, TOKEN, DHIS2, REGISTRY)))
LOGIN = base64.b64encode(f"chap:{REGISTRY}".encode()).decode()

# CHAP logs its environment, as an operator who looks for a fault lets it do, and so does the database's health check.
TELL = 'env; echo "connecting: $$SITE_DSN"; exec "$$@"'
SERVICES = {
    "chap": "gunicorn -c gunicorn.conf.py chap_core.rest_api.app:app",
    "chap-worker": "celery -A chap_core.rest_api.celery_tasks worker --loglevel=info --without-mingle --concurrency=1",
}


class OddStack(SampleStack):
    """A stack whose DHIS2 has another password."""

    def dhis2(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        """Ask the sample DHIS2 as its administrator."""
        login = base64.b64encode(f"admin:{DHIS2}".encode()).decode()
        return _ask(f"http://127.0.0.1:{self.dhis2_port}{path}", method, body, {"Authorization": f"Basic {login}"}, 15)


def site() -> str:
    """Return a Compose file with the secrets."""
    url = f"postgresql://chap:{quote(DATABASE, safe=chr(47) + chr(39) + '#')}@chap-postgres:5432/chap_core"
    dsn = "host=site user=site password='" + DSN.replace("\\", "\\\\").replace("'", "\\'") + "' dbname=site"
    variables = {
        "CHAP_DATABASE_URL": url,
        "SITE_DSN": dsn,
        "SITE_PWD": SITE,
        "REPORTS_AT": f"https://reports:{quote(REPORTS, safe='/:')}@reports.example/x",
    }
    services: dict[str, Any] = {
        name: {"environment": escaped(variables), "entrypoint": ["sh", "-c", TELL, "sh"], "command": command.split()}
        for name, command in SERVICES.items()
    }
    services["chap-postgres"] = {
        "environment": escaped({"POSTGRES_PASSWORD": DATABASE}),
        "healthcheck": {"test": ["CMD-SHELL", "env; pg_isready -h 127.0.0.1"]},
    }
    return json.dumps({"services": services})


def escaped(variables: dict[str, str]) -> dict[str, str]:
    return {name: value.replace("$", "$$") for name, value in variables.items()}


@pytest.fixture(scope="module", params=["small", pytest.param("bundled", marks=pytest.mark.torture)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleStack]:
    """Give a stack full of secrets, in a folder with a hostile name and with a table that is hostile too.

    Its images come from a registry with a password.
    """
    settings = {"CHAP_API_TOKEN": TOKEN, "DHIS2_ADMIN_PASSWORD": f"'{DHIS2}'"}
    made = SampleStack.create(tmp_path_factory.mktemp("exposure") / TRAP, kind=request.param, settings=settings)
    stack = OddStack(**vars(made))
    stack.files.append(stack.folder / "compose.site.yml")
    stack.files[-1].write_text(site())
    with private_registry(tmp_path_factory.mktemp("registry"), USER) as address:
        names = from_registry(stack, address)
        try:
            stack.up()
            stack.fill(rows=2_000)
            name = TRAP.replace('"', '""')
            stack.sql(f'CREATE TABLE "{name}" ("{name}" int); INSERT INTO "{name}" VALUES (1)')
            yield stack
        finally:
            stack.down()
            versions = [name.replace("v2.0.0", version) for name in names for version in ("v2.0.0", "v2.1.0", "v2.1.1")]
            stack.docker("rmi", *(f"{address}{name}" for name in versions), check=False)


def from_registry(stack: SampleStack, address: str) -> set[str]:
    """Name a stack's images after another registry, and return them without it."""
    ours = rf"{re.escape(registry())}(/\S+/chap-(?:core|worker):v2.0.0)"
    names: set[str] = set()
    for file in stack.folder.glob("*.yml"):
        names |= set(re.findall(ours, file.read_text()))
        file.write_text(re.sub(ours, rf"{address}\1", file.read_text()))
    for name in names:
        stack.docker("pull", "-q", f"{registry()}{name}")
        stack.docker("tag", f"{registry()}{name}", f"{address}{name}")
    (stack.folder / "docker").mkdir()
    (stack.folder / "docker/config.json").write_text(json.dumps({"auths": {address: {"auth": LOGIN}}}))
    (stack.folder / "docker/cli-plugins").symlink_to(Path(environment()["DOCKER_CONFIG"], "cli-plugins"))
    return names


@pytest.fixture
def variables(tmp_path: Path, stack: SampleStack) -> dict[str, str]:
    """Return the environment of the commands: all that they write outside of the stack's folder is in a single one."""
    return {
        "DHIS2_USERNAME": "admin",
        "DHIS2_PASSWORD": DHIS2,
        "DOCKER_CONFIG": str(stack.folder / "docker"),
        "DOCKER_CHAP_TIMELINE": str(tmp_path / "timeline"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path),
    }


@contextmanager
def watched() -> Iterator[set[str]]:
    """Gather the command lines of all processes of this machine, those in containers too, while the block runs."""
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    seen.add(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            time.sleep(0.03)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


# Each with its exit status.
FEW: list[tuple[tuple[str, ...], int]] = [
    (("check", "v2.1.1"), 0),
    (("backup", "--reason", TRAP), 0),
    (("verify", "latest"), 0),
    (("backup", "--dump-only", f"{TRAP}.dump"), 0),
    (("upgrade", "v2.1.1", "--yes"), 3),
    (("status",), 0),
    (("history",), 0),
    (("history", "--json"), 0),
    (("report", "-o", "-"), 0),
]
MANY = [
    *FEW,
    (("upgrade", "v2.1.0", "--dry-run"), 0),
    (("rehearse", "v2.1.0"), 0),
    (("upgrade", "v2.1.0", "--yes", "--progress", "json"), 0),
    (("rollback", "--yes", "--progress", "plain"), 0),
    (("restore", f"{TRAP}.dump", "--yes", "--json"), 0),
    (("restore", "--undo", "--yes"), 0),
    (("verify", "latest", "--deep"), 0),
    (("backups", "--json"), 0),
    (("versions", "--json"), 0),
    (("recover",), 0),
    (("report", "--json"), 0),
    (("prune", "--dry-run"), 0),
    (("status", "--all-stacks", "--json"), 0),
    (("pin", "v9.9.9"), 1),
]


def test_no_piece_of_a_secret_is_anywhere_and_no_name_is_run(
    stack: SampleStack, variables: dict[str, str], tmp_path: Path
) -> None:
    logs, rows = stack.compose("logs", "--no-log-prefix").stdout, stack.counts()
    logged = [piece for piece in PIECES if piece[:2] in ("db", "ds", "pw", "rp", "tk")]
    assert not [piece for piece in logged if piece not in logs], "nothing to hide"
    assert rows[TRAP] == 1
    with watched() as seen:
        wanted = MANY if stack.kind == "bundled" else FEW
        outputs = {str(words): run(stack, variables, status, *words) for words, status in wanted}
    assert any("pg_dump" in line for line in seen) and any("compose" in line for line in seen)
    assert_no_piece(outputs)
    assert_no_piece({line: line for line in seen})

    folders = (stack.folder / ".docker-chap", stack.folder / "backups", tmp_path)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if path.stat().st_mode & 0o077 and tmp_path not in path.parents]
    # Copies of the project's own files, and the code of the plugin as it unpacks itself.
    others = {"files", "local-changes.diff", "site-packages"}
    assert_no_piece({str(path): text_of(path) for path in files if not others & {*path.parts}})
    assert {"manifest.json", "RESTORE.txt", "timeline"} <= {path.name for path in files}
    # What was kept of the run that failed did hold secrets: the log of the API, and what the health check printed.
    for name, hidden in {"chap-1.log": "SITE_PWD=***", "chap-postgres-1.json": "POSTGRES_PASSWORD=***"}.items():
        assert hidden in next(path for path in files if path.name == f"{stack.project}-{name}").read_text()

    assert stack.counts()[TRAP] == 1 and set(rows) <= set(stack.counts())
    hacked = [*stack.folder.parent.rglob("hacked"), *Path.cwd().glob("hacked")]
    inside = stack.docker("exec", f"{stack.project}-chap-postgres-1", "find", "/", "-xdev", "-name", "hacked")
    assert not hacked and not inside.stdout


def run(stack: SampleStack, variables: dict[str, str], expected: int, *words: str) -> str:
    """Run a command and return all that it printed."""
    done = subprocess.run(
        ["docker", "--debug", "chap", *words],
        cwd=stack.folder,
        env=environment() | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def text_of(path: Path) -> str:
    """Return a file's content, and that of what it holds in base64."""
    text = path.read_bytes().decode(errors="replace")
    packed = re.findall(r"(?:[A-Za-z0-9+/]{4}){6,}", text)
    return text + "".join(base64.b64decode(part).decode(errors="replace") for part in packed)


def assert_no_piece(texts: dict[str, str]) -> None:
    """Look that no piece of a secret is in any of the texts."""
    leaks = {name: [piece for piece in (*PIECES, LOGIN[:12]) if piece in text] for name, text in texts.items()}
    assert not {name: pieces for name, pieces in leaks.items() if pieces}
    assert texts
