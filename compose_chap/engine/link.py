"""The way to an engine, wherever it is. What is not a Unix socket is reached as the Docker CLI itself reaches it.

`docker system dial-stdio` speaks the engine's HTTP on its standard input and output, for every kind of Docker
context: TCP, TLS, ssh. Over ssh that would be a login for each connection, and each `docker compose` makes several.
So one connection is held open, and every ssh that a child starts is a session on it.
"""

from __future__ import annotations

import atexit
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
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from compose_chap.errors import EngineError

_LOGIN_LIMIT = 30
_LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|::1")


@dataclass(frozen=True)
class Link:
    """The way to one engine: its address as Docker has it, and the Unix socket that leads there.

    `environment` is for every child that goes there too. `folder` has the socket of a bridge and what its
    processes wrote on standard error; there is none where the address is a Unix socket already.
    """

    address: str
    socket: str
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def local(self) -> bool:
        """Whether the address is one of this machine."""
        parts = urlsplit(self.address)
        return parts.scheme in ("unix", "npipe") or bool(_LOOPBACK.fullmatch(parts.hostname or ""))

    @property
    def said(self) -> str:
        """The last line that the way to the engine had to say, empty for none."""
        try:
            lines = (self.folder / "said").read_text(errors="replace").split("\n") if self.folder else []
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def link(docker: Sequence[str], address: str) -> Link:
    """Open the way to the engine at `address` (`unix://`, `tcp://`, `ssh://`), which `docker` leads to.

    Raise EngineError when ssh cannot log in there. The way ends with this process, however that ends.
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
    """Return a Unix socket; each connection to it is handed to a new process of `command` as stdin and stdout."""
    path = folder / "engine.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    everything = {**os.environ, **environment}
    ways: list[subprocess.Popen[bytes]] = []

    @atexit.register
    def end() -> None:
        # One to a server that says nothing more would outlive this process for as long as that is silent.
        for way in list(ways):
            way.terminate()

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            with connection, open(folder / "said", "ab") as said:
                fd = connection.fileno()
                ways.append(
                    subprocess.Popen(command, stdin=fd, stdout=fd, stderr=said, env=everything, start_new_session=True)
                )

    threading.Thread(target=accept, daemon=True).start()
    return path


def _share_ssh(address: str, folder: Path) -> dict[str, str]:
    """Log in once and return the environment in which every `ssh` to that server is a session on this login.

    Where ssh's own settings share connections already, or ssh is missing, nothing is added.
    """
    ssh, server = shutil.which("ssh"), urlsplit(address)
    if not ssh or not server.hostname:
        return {}
    there = [*(["-l", server.username] if server.username else []), *(["-p", str(server.port)] if server.port else [])]
    there += ["--", server.hostname]
    settings = subprocess.run([ssh, "-G", *there], capture_output=True, text=True, check=False).stdout
    if re.search(r"^controlpath (?!none$)", settings, re.MULTILINE):
        return {}

    shared = f"ControlPath={folder}/%C"
    options = ["-o", "ControlMaster=yes", "-o", shared, "-o", f"ConnectTimeout={_LOGIN_LIMIT}", "-T"]
    with open(folder / "said", "ab") as said:
        # A command that waits for its standard input: when this process dies, however, that ends, and so does ssh.
        login = subprocess.Popen(
            [ssh, *options, *there, "docker", "system", "dial-stdio"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )
    atexit.register(_end, login)
    limit = time.monotonic() + _LOGIN_LIMIT
    while not any(path.is_socket() for path in folder.iterdir()):
        if login.poll() is not None or time.monotonic() > limit:
            words = Link(address, "", folder=folder).said or "it does not answer"
            raise EngineError(
                f"Cannot log in to the Docker engine's server at {address}: {words}",
                state="Nothing can be said of the stack until it can be reached.",
                hint=f"Try it by hand, it must ask for nothing: ssh {shlex.join([*there[:-2], server.hostname])} true",
            )
        time.sleep(0.02)

    wrapper = folder / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(ssh)} -o ControlMaster=no -o {shlex.quote(shared)} "$@"\n')
    wrapper.chmod(0o700)
    return {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def _end(login: subprocess.Popen[bytes]) -> None:
    login.terminate()
    login.wait()
