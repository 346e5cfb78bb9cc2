"""Break a run of `docker chap` at a step, bring it to its end, and look whether all is new or all is old.

The product has no hooks for this: it is watched from outside (its progress is one JSON line per step, reported
right after the step is in the journal) and hit by what happens to real runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.calls import as_promised, no_json_lines, until
from tests.sample.stack import OUT, SAMPLE, SampleStack, environment, registry

WRITERS = ("chap", "chap-worker")
# CHAP itself puts its list of models into these when it starts.
SEEDED = ("modeltemplatedb", "configuredmodeldb")
SECRETS = {"CHAP_DB_PASSWORD": "pw-5tgbNHY6-secret", "CHAP_API_TOKEN": "token-9ijnBGT5-secret"}
LONGEST_RUN = 400


def _default_signals() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Run:
    """A run of the plugin itself, without docker in between, so that its process is the one that is hit."""

    def __init__(
        self,
        stack: SampleStack,
        *words: str,
        at: str = "",
        hit: Callable[[Run], None] | None = None,
        environ: dict[str, str] | None = None,
    ) -> None:
        plugin = Path(environment()["DOCKER_CONFIG"], "cli-plugins", "docker-chap")
        self._command, self._at, self._hit, self.stdout = words[0], at, hit, ""
        self.reached = False
        self._striker: threading.Thread | None = None
        self.steps: list[str] = []
        self.stderr = ""
        self.process = subprocess.Popen(
            [plugin, "chap", "--progress", "json", "--json", *words],
            cwd=stack.folder,
            env=environment() | (environ or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A test that runs in the background has signals ignored, and so would its children.
            preexec_fn=_default_signals,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.stderr += line
                with suppress(ValueError, TypeError, KeyError):
                    self._saw(json.loads(line)["step"])

    def _saw(self, step: str) -> None:
        if step != "wait" and step not in self.steps[-1:]:
            self.steps.append(step)
            if step == self._at and not self.reached and self._hit:
                self.reached = True
                self._striker = threading.Thread(target=self._hit, args=[self], daemon=True)
                self._striker.start()

    def end(self) -> int:
        """Wait for the end and return the exit status; `stdout` is there then."""
        assert self.process.stdout is not None
        timer = threading.Timer(LONGEST_RUN, self.process.kill)
        timer.start()
        # A Compose that outlives a killed run does not hold these pipes: it has its own.
        self.stdout = self.process.stdout.read()
        self.process.wait()
        timer.cancel()
        self._reader.join(20)
        if self._striker:
            self._striker.join(60)
        self.process.stdout.close()
        return self.process.returncode

    def signal(self, number: int) -> None:
        """Send a signal to the plugin, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    @property
    def document(self) -> Any:
        """The result."""
        return as_promised(self.stdout, self._command, self.process.returncode)


@dataclass
class Picture:
    """Everything about a stack that has to be as it was, or as it should be."""

    files: dict[str, bytes]
    containers: dict[str, dict[str, Any]]
    columns: dict[str, list[str]]
    checksum: dict[str, tuple[int, str]]
    databases: list[str]

    @classmethod
    def of(cls, stack: SampleStack) -> Picture:
        """Look at a stack."""
        columns = stack.columns()
        return cls(
            {path.name: path.read_bytes() for path in (*stack.files, stack.folder / ".env") if path.is_file()},
            stack.containers(),
            columns,
            stack.checksum(columns=columns),
            stack.databases(),
        )


def assert_old(stack: SampleStack, before: Picture) -> None:
    """Look that files, images, containers and rows are what they were."""
    now = Picture.of(stack)
    assert now.files == before.files
    assert _images(now) == _images(before)
    assert now.columns == before.columns
    assert now.checksum == before.checksum
    _assert_nothing_else_touched(stack, before, now)


def assert_new(stack: SampleStack, before: Picture, version: str) -> None:
    """Look that files, images and version are new, and that every old row is there."""
    now = Picture.of(stack)
    assert now.files.keys() == before.files.keys() and now.files != before.files
    for name, content in now.files.items():
        assert re.sub(rb"v2\.\d\.\d+", b"", content) == re.sub(rb"v2\.\d\.\d+", b"", before.files[name])
    assert all(now.containers[name]["image"].endswith(f":{version}") for name in WRITERS)
    assert stack.version() == version.removeprefix("v")
    rows = stack.checksum(columns=before.columns)
    assert {table: mark for table, mark in rows.items() if table not in SEEDED} == {
        table: mark for table, mark in before.checksum.items() if table not in SEEDED
    }
    _assert_nothing_else_touched(stack, before, now)


def _images(picture: Picture) -> dict[str, tuple[str, str]]:
    return {name: (container["image"], container["image_id"]) for name, container in picture.containers.items()}


def _assert_nothing_else_touched(stack: SampleStack, before: Picture, now: Picture) -> None:
    others = {name: container["id"] for name, container in before.containers.items() if name not in WRITERS}
    assert {name: container["id"] for name, container in now.containers.items() if name not in WRITERS} == others
    assert all(container["state"] == "running" for container in now.containers.values()), now.containers
    assert stack.api("/health/ready")[0] == 200

    ours = ("--filter", f"label=com.docker.compose.project={stack.project}")
    names = stack.docker("ps", "-a", *ours, "--format", "{{.Names}}")
    assert sorted(names.stdout.split()) == sorted(f"{stack.project}-{name}-1" for name in now.containers)

    status = json.loads(stack.docker("chap", "status", "--json").stdout)
    assert status["open_run"] is None
    assert set(now.databases) - {"postgres", stack.database} <= set(status["database"]["kept"])
    assert not stack.sql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'docker_chap%'")
    tags = stack.docker("images", "docker-chap/kept", "--format", "{{.Tag}}").stdout.split()
    assert {tag for tag in tags if tag.startswith(stack.project)} <= set(status["kept_images"])
    assert not stack.docker("exec", f"{stack.project}-{stack.database_service}-1", "sh", "-c", "ls /tmp").stdout.strip()

    records = stack.folder / ".docker-chap"
    assert not (records / "journal.json").exists() and not (records / "room").exists()
    assert not list(records.rglob("*.tmp")) and not list(stack.folder.glob(".*.tmp"))
    assert not list(stack.folder.glob("backups/*.partial"))
    with open(records / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def assert_no_secret(stack: SampleStack, *outputs: str) -> None:
    """Look that no password and no token is in what was printed or recorded."""
    seen = {"output": "".join(outputs)}
    for path in (*(stack.folder / ".docker-chap").rglob("*"), *stack.folder.glob("backups/*/manifest.json")):
        if path.is_file():
            seen[str(path)] = path.read_bytes().decode(errors="replace")
            assert path.stat().st_mode & 0o077 == 0, path
    for name, text in seen.items():
        for secret in SECRETS.values():
            assert secret not in text, name


def server_crashes(stack: SampleStack) -> int:
    """Return how often PostgreSQL took one of our processes for a crash of its own."""
    logs = stack.docker("logs", f"{stack.project}-{stack.database_service}-1")
    return (logs.stdout + logs.stderr).count("reinitializing")


# The faults


def send(number: int) -> Callable[[SampleStack], Callable[[Run], None]]:
    """Return what sends a signal to the run."""
    return lambda stack: lambda run: run.signal(number)


def kill_database(stack: SampleStack) -> Callable[[Run], None]:
    """Return what kills the database's container."""
    return lambda run: _docker_quietly("kill", f"{stack.project}-{stack.database_service}-1")


def _docker_quietly(*words: str) -> None:
    subprocess.run(["docker", *words], env=environment(), capture_output=True, check=False)


def twice(number: int) -> Callable[[SampleStack], Callable[[Run], None]]:
    """Return what sends a signal, and soon after once more: an impatient operator."""

    def hit(run: Run) -> None:
        for _ in range(6):
            run.signal(number)
            time.sleep(0.4)

    return lambda stack: hit


def lose_the_terminal(stack: SampleStack) -> Callable[[Run], None]:
    """Return what a lost connection does: nobody reads any more, and a hangup."""

    def hit(run: Run) -> None:
        assert run.process.stderr is not None
        run.signal(signal.SIGHUP)

    return hit


def cut_the_power(stack: SampleStack) -> Callable[[Run], None]:
    """Return what a power cut does, or an engine that is killed: the run and every container die at once."""

    def hit(run: Run) -> None:
        run.signal(signal.SIGKILL)
        ids = stack.docker("ps", "-q", "--filter", f"label=com.docker.compose.project={stack.project}").stdout.split()
        _docker_quietly("kill", *ids)

    return hit


class Cut:
    """A way to a socket that can be cut, with all that goes through it, and mended."""

    def __init__(self, listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
        self.open, self._listener, self._connect = True, listener, connect
        self._ends: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=[near], daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with closing(near), suppress(OSError):
            if not self.open:
                return
            with closing(self._connect()) as far:
                self._ends |= {near, far}
                back = threading.Thread(target=self._pump, args=[far, near], daemon=True)
                back.start()
                self._pump(near, far)
                back.join()
                self._ends -= {near, far}

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        # The other way may still have something to say.
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """End every connection, and refuse new ones."""
        self.open = False
        for end in list(self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        self.open = True


def way_to_the_engine(folder: Path) -> tuple[Cut, str]:
    """Return a way to the engine that can be cut, and its address."""
    host = environment().get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "engine.sock"))
    listener.listen()

    def connect() -> socket.socket:
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(host)
        except OSError:
            # An engine that was killed.
            far.close()
            raise
        return far

    return Cut(listener, connect), f"unix://{folder / 'engine.sock'}"


def way_to_the_registry() -> tuple[Cut, str]:
    """Return a way to the registry that can be cut, and its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    host, _, port = registry().partition(":")
    cut = Cut(listener, lambda: socket.create_connection((host, int(port))))
    return cut, f"127.0.0.1:{listener.getsockname()[1]}"


@dataclass
class Ways:
    """The ways by which a run reaches the world, each of which can fail, and the environment that leads there."""

    engine: Cut
    registry: Cut
    environ: dict[str, str]
    compose_fails: Path
    plain_dump: Path

    @classmethod
    def of(cls, stack: SampleStack, folder: Path) -> Ways:
        """Lead a stack's runs through ways of our own; its files then name the registry's other address."""
        engine, host = way_to_the_engine(folder)
        images, address = way_to_the_registry()
        for file in stack.files:
            file.write_text(file.read_text().replace(registry(), address))
        config, failing = folder / "config", folder / "compose-fails"
        (config / "cli-plugins").mkdir(parents=True)
        own = Path(environment()["DOCKER_CONFIG"], "cli-plugins")
        for name in ("docker-chap", "docker-buildx"):
            (config / "cli-plugins" / name).symlink_to(own / name)
        compose = config / "cli-plugins" / "docker-compose"
        compose.write_text(
            "#!/bin/sh\n"
            f'case " $* " in *" up "*|*" config "*) rm "{failing}" 2>/dev/null && echo broken >&2 && exit 1;; esac\n'
            f'exec "{own / "docker-compose"}" "$@"\n'
        )
        compose.chmod(0o755)
        return cls(engine, images, {"DOCKER_HOST": host, "DOCKER_CONFIG": str(config)}, failing, folder / "dump.sql")

    def mend(self, stack: SampleStack) -> None:
        """Let everything work again."""
        self.engine.mend()
        self.registry.mend()
        self.compose_fails.unlink(missing_ok=True)
        (stack.folder / "filler").unlink(missing_ok=True)


def lose_the_engine(stack: SampleStack, ways: Ways) -> Callable[[Run], None]:
    """Return what an engine does that dies and is started again: its containers end, and for a while nobody answers."""

    def hit(run: Run) -> None:
        ids = stack.docker("ps", "-q", "--filter", f"label=com.docker.compose.project={stack.project}").stdout.split()
        ways.engine.cut()
        _docker_quietly("kill", *ids)
        time.sleep(4)
        ways.engine.mend()

    return hit


def kill_the_engine(stack: SampleStack) -> Callable[[Run], None]:
    """Return what kills the second engine, and starts it again a moment later."""

    def hit(run: Run) -> None:
        os.kill(int((OUT / "new" / "dockerd.pid").read_text()), signal.SIGKILL)
        time.sleep(3)
        subprocess.run([SAMPLE / "engine.sh", "--new"], check=True, capture_output=True)

    return hit


def kill_the_engine_and_the_run(stack: SampleStack) -> Callable[[Run], None]:
    """Return what kills the second engine and the run, and starts the engine again."""

    def hit(run: Run) -> None:
        run.signal(signal.SIGKILL)
        kill_the_engine(stack)(run)

    return hit


@dataclass(frozen=True)
class Fault:
    """A fault: what it does, and whether the engine or the run is still able to clean up after it."""

    hit: Callable[[SampleStack], Callable[[Run], None]] = lambda stack: lambda run: None
    recovery_killed: bool = False
    way: Callable[[SampleStack, Ways], Callable[[Run], None]] | None = None
    containers_die: bool = False


FAULTS = {
    "SIGINT": Fault(send(signal.SIGINT)),
    "SIGINT again and again": Fault(twice(signal.SIGINT)),
    "SIGTERM": Fault(send(signal.SIGTERM)),
    "hangup": Fault(lose_the_terminal),
    "SIGKILL": Fault(send(signal.SIGKILL)),
    "SIGKILL, recovery too": Fault(send(signal.SIGKILL), recovery_killed=True),
    "database killed": Fault(kill_database),
    "power cut": Fault(cut_the_power, containers_die=True),
    "engine lost": Fault(way=lose_the_engine, containers_die=True),
    "registry gone": Fault(way=lambda stack, ways: lambda run: ways.registry.cut()),
    "Compose fails": Fault(way=lambda stack, ways: lambda run: ways.compose_fails.touch()),
}


@dataclass
class Outcome:
    """What came of a run that was hit."""

    operation: str
    step: str
    fault: str
    delay: float
    reached: bool = False
    status: int | None = None
    recovered: str = ""
    state: str = ""
    seconds: float = 0
    runs: list[Run] = field(default_factory=list, repr=False)

    def row(self) -> list[str]:
        """Return it as a row of the table."""
        status = "" if self.status is None else str(self.status)
        cells = [self.operation, self.step, self.fault, f"{self.delay:.1f}", status, self.recovered, self.state]
        return [*cells, f"{self.seconds:.0f}"]


def break_and_look(
    stack: SampleStack,
    operation: str,
    words: tuple[str, ...],
    step: str,
    fault: str,
    delay: float,
    before: Picture,
    after: Picture | str,
    ways: Ways,
) -> Outcome:
    """Hit a run at a step, bring it to its end, look at everything, and return what came of it."""
    chosen = FAULTS[fault]
    crashes, begun = server_crashes(stack), time.monotonic()
    outcome = Outcome(operation, step, fault, delay)
    hit = chosen.way(stack, ways) if chosen.way else chosen.hit(stack)

    def later(run: Run) -> None:
        time.sleep(delay)
        hit(run)

    run = Run(stack, *words, at=step, hit=later, environ=ways.environ)
    outcome.runs.append(run)
    outcome.status = run.end()
    outcome.reached = run.reached
    assert run.reached, f"{step} was never reached: {run.stderr[-2000:]}"
    output = [run.stdout, run.stderr]
    assert "Traceback" not in run.stderr and "This is a bug" not in run.stderr, run.stderr
    assert not (other := no_json_lines(run.stderr)), other

    ways.mend(stack)
    new = outcome.status == 0
    if (stack.folder / ".docker-chap" / "journal.json").exists() or outcome.status in (4, -9):
        if chosen.recovery_killed:
            first = Run(stack, "recover", environ=ways.environ)
            time.sleep(random.uniform(1, 10))
            first.signal(signal.SIGKILL)
            first.end()
            output += [first.stdout, first.stderr]
        recovery = Run(stack, "recover", environ=ways.environ)
        outcome.runs.append(recovery)
        status = recovery.end()
        output += [recovery.stdout, recovery.stderr]
        assert status == 0, recovery.stdout + recovery.stderr[-3000:]
        outcome.recovered = recovery.document.get("outcome", "nothing to do")
        new = outcome.recovered == "finished" or (new and outcome.recovered == "nothing to do")
        if outcome.recovered == "nothing to do":
            last = json.loads(stack.docker("chap", "history", "--json").stdout)["runs"]
            new = bool(last) and last[-1]["operation"] == words[0] and last[-1]["result"] == "done"
    elif not new:
        assert outcome.status in (1, 3, 130), (outcome.status, run.stderr[-3000:])

    if chosen.containers_die:
        # Where the run had ended, or never needs them, nobody starts them again.
        stack.compose("start", environ=ways.environ)
        stack.wait_ready(90)
    if fault == "database killed":
        # Nobody restarts it when the run had ended or never needed it.
        stack.docker("start", f"{stack.project}-{stack.database_service}-1")
        stack.wait_ready(60)
        before.containers[stack.database_service]["started_at"] = ""
    if new and isinstance(after, str):
        assert_new(stack, before, after)
    elif new and isinstance(after, Picture):
        # Undone and restored is what there was at first.
        assert_old(stack, after)
    else:
        assert_old(stack, before)
    assert_no_secret(stack, *output)
    until(lambda: not throwaways(stack, outcome.runs))
    if fault != "database killed" and not chosen.containers_die:
        assert server_crashes(stack) == crashes
    outcome.state = "all new" if new else "all old"
    outcome.seconds = time.monotonic() - begun
    return outcome


def throwaways(stack: SampleStack, runs: list[Run]) -> list[str]:
    """Return the throwaway containers that are left of some runs."""
    words = ("ps", "-a", "--filter", "label=docker-chap.throwaway", "--format")
    lines = stack.docker(*words, '{{.ID}} {{.Label "docker-chap.throwaway"}}').stdout.splitlines()
    owners = {f"{run.process.pid}@{socket.gethostname()}" for run in runs}
    return [line for line in lines if line.split()[1] in owners]


@contextmanager
def tiny_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a small disk at a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill_the_disk(stack: SampleStack) -> Callable[[Run], None]:
    """Return what fills the disk that the stack's folder lies on."""

    def hit(run: Run) -> None:
        with suppress(OSError), open(stack.folder / "filler", "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

    return hit


FAULTS["disk full"] = Fault(fill_the_disk)

# The engine that everybody else works with is killed by no test: only the second one, by what runs inside it.
if os.environ.get("CHAP_SAMPLE_ENGINE") == "new":
    FAULTS["engine killed"] = Fault(kill_the_engine, containers_die=True)
    FAULTS["engine and run killed"] = Fault(kill_the_engine_and_the_run, containers_die=True)
