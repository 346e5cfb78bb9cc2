"""The connection to an engine, wherever it is. Without a local Unix socket, it goes the way the Docker CLI goes.

`docker system dial-stdio` speaks the engine's HTTP on its standard input and output, for every kind of Docker
context: TCP, TLS, ssh. Over ssh that would be a login for each connection, and each `docker compose` makes several.
So one ssh connection stays open, and every ssh that a child starts is a session on it.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from compose_chap.errors import EngineError
from compose_chap.processes import process

_LOGIN_LIMIT = 30
# Where Docker's CLI looks for the engine, if no option, none of these variables and no configuration names another.
_DEFAULT = "unix:///var/run/docker.sock"
_CHOICES = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS")
_LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|::1")


@dataclass(frozen=True)
class Link:
    """The connection to one engine: its address as Docker has it, and the Unix socket that leads to it.

    `environment` is for every child process that talks to the engine too. `folder` has the socket of a bridge and the
    standard error of its processes; it is None where the address is a Unix socket already.
    """

    address: str
    socket: str
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def local(self) -> bool:
        """Whether the address is on this machine."""
        parts = urlsplit(self.address)
        return parts.scheme in ("unix", "npipe") or bool(_LOOPBACK.fullmatch(parts.hostname or ""))

    @property
    def last_error(self) -> str:
        """The last line on standard error of the processes that connect, empty for none."""
        try:
            lines = (self.folder / "stderr").read_text(errors="replace").split("\n") if self.folder else []
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def link_of(docker: Sequence[str]) -> Link:
    """Return the connection to the engine that a docker command reaches. Raise EngineError when it knows none."""
    if not (docker[1:] or _chosen(os.environ)):
        return Link(_DEFAULT, _DEFAULT)
    # Asked of the CLI itself: the SDK falls back to the local socket where the CLI would refuse.
    question = [*docker, "context", "inspect", "--format", "{{json .Endpoints.docker}}"]
    answer = process.run(question)
    if answer.status != 0:
        raise EngineError(f"Docker does not know where its engine is.\n{answer.last_lines}", hint="docker context ls")
    return link(docker, str(json.loads(answer.stdout)["Host"]))


def _chosen(environment: Mapping[str, str]) -> bool:
    """Whether anything but an option may tell the Docker CLI of an engine. Where nothing does, it need not be asked."""
    if any(name.startswith(_CHOICES) for name in environment):
        return True
    config = Path(environment.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"), "config.json")
    try:
        # As the CLI reads it, capital letters do not matter.
        return b"currentcontext" in config.read_bytes().lower() if config.is_file() else config.exists()
    except OSError:
        return True


def link(docker: Sequence[str], address: str) -> Link:
    """Connect to the engine at `address` (`unix://`, `tcp://`, `ssh://`), which the command `docker` uses.

    Raise EngineError when ssh cannot log in. The connection ends with this process, however that ends.
    """
    if address.startswith(("unix://", "npipe://")):
        return Link(address, address)
    # Not TMPDIR: the path of a socket may have 100 letters, and macOS alone takes half of them.
    folder = Path(tempfile.mkdtemp(prefix="docker-chap-", dir="/tmp" if os.path.isdir("/tmp") else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    environment = _share_ssh(address, folder) if address.startswith("ssh://") else {}
    path = _bridge([*docker, "system", "dial-stdio"], folder, environment)
    return Link(address, f"unix://{path}", environment, folder)


def _bridge(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Path:
    """Return a Unix socket; each connection to it becomes stdin and stdout of a new process of `command`."""
    path = folder / "engine.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    full_environment = {**os.environ, **environment}
    children: list[subprocess.Popen[bytes]] = []

    @atexit.register
    def end() -> None:
        # A child that waits for a silent server would outlive this process.
        for child in list(children):
            child.terminate()

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            # Asking how they are ends those that have ended.
            children[:] = [child for child in children if child.poll() is None]
            # Without a process behind it, the connection closes, and whoever asked is answered with that.
            with connection, suppress(OSError), open(folder / "stderr", "ab") as stderr:
                fd = connection.fileno()
                children.append(
                    subprocess.Popen(
                        command, stdin=fd, stdout=fd, stderr=stderr, env=full_environment, start_new_session=True
                    )
                )

    threading.Thread(target=accept, daemon=True).start()
    return path


def _share_ssh(address: str, folder: Path) -> dict[str, str]:
    """Log in once and return the environment in which every `ssh` to that server is a session on this login.

    Where ssh's configuration shares connections already, or ssh is missing, nothing is added.
    """
    ssh, server = shutil.which("ssh"), urlsplit(address)
    if not ssh or not server.hostname:
        return {}
    destination = [
        *(["-l", server.username] if server.username else []),
        *(["-p", str(server.port)] if server.port else []),
    ]
    destination += ["--", server.hostname]
    ssh_config = subprocess.run([ssh, "-G", *destination], capture_output=True, text=True, check=False).stdout
    if re.search(r"^controlpath (?!none$)", ssh_config, re.MULTILINE):
        return {}

    shared = f"ControlPath={folder}/%C"
    options = ["-o", "ControlMaster=yes", "-o", shared, "-o", f"ConnectTimeout={_LOGIN_LIMIT}", "-T"]
    # A line that is dead for two minutes ends every session on it. Without that, a backup would wait for hours.
    options += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=8"]
    with open(folder / "stderr", "ab") as stderr:
        # A command that waits for its standard input: when this process dies, the input closes, and ssh ends.
        login = subprocess.Popen(
            [ssh, *options, *destination, "docker", "system", "dial-stdio"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    atexit.register(_end, login)
    limit = time.monotonic() + _LOGIN_LIMIT
    while not any(path.is_socket() for path in folder.iterdir()):
        if login.poll() is not None or time.monotonic() > limit:
            reason = Link(address, "", folder=folder).last_error or "it does not answer"
            by_hand = f"ssh {shlex.join([*destination[:-2], server.hostname])} true"
            raise EngineError(
                f"Cannot log in to the Docker engine's server at {address}: {reason}",
                state="The state of the stack is unknown until the engine can be reached.",
                hint=f"Try it by hand, it must ask for nothing: {by_hand}",
            )
        time.sleep(0.02)

    wrapper = folder / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(ssh)} -o ControlMaster=no -o {shlex.quote(shared)} "$@"\n')
    wrapper.chmod(0o700)
    return {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def _end(login: subprocess.Popen[bytes]) -> None:
    login.terminate()
    login.wait()
