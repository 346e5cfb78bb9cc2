"""Real servers that keep copies: sftp (OpenSSH), restic's own protocol (rclone), S3 (moto)."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.calls import until
from tests.sample.stack import environment

PASSWORD = "a pass word'"
SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/client.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
PidFile none
Subsystem sftp internal-sftp
"""
SSH = """#!/bin/sh
set -- -i {folder}/client -o UserKnownHostsFile={folder}/known -o StrictHostKeyChecking=accept-new "$@"
exec {ssh} "$@"
"""


@dataclass
class Store:
    """A repository: the words that name it, what its environment needs, and its server, if it has one."""

    location: str
    words: list[str]
    variables: dict[str, str] = field(default_factory=dict)
    server: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """End its server at once."""
        assert self.server
        self.server.kill()
        self.server.wait()

    def restic(self, *words: str, password: str = PASSWORD, expect: int = 0) -> str:
        """Run restic itself on the repository and return what it writes."""
        variables = {**environment(), **self.variables, "RESTIC_PASSWORD": password}
        done = subprocess.run(
            ["restic", "-r", self.location, *words], env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr


@contextmanager
def folder(root: Path) -> Iterator[Store]:
    """Give a folder that does not exist yet."""
    yield Store(str(root / "copies"), _words(root))


@contextmanager
def rest(root: Path, *options: str, port: int = 0) -> Iterator[Store]:
    """Give a server of restic's protocol; with the option --append-only nothing can be removed from it."""
    port = port or _free_port()
    data = root / "rest"
    server = ["rclone", "serve", "restic", *options, "--addr", f"127.0.0.1:{port}", str(data)]
    with _running(server, port, root, {"XDG_CONFIG_HOME": str(root)}) as process:
        yield Store(f"rest:http://127.0.0.1:{port}/chap/", _words(root), server=process)


@contextmanager
def sftp(root: Path) -> Iterator[Store]:
    """Give an sftp server, and an ssh that logs into it with a key of its own."""
    port = _free_port()
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", root / name], check=True)
    (root / "sshd_config").write_text(SSHD.format(port=port, folder=root))
    Path("/run/sshd").mkdir(exist_ok=True)
    programs = root / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(SSH.format(ssh=shutil.which("ssh"), folder=root))
    (programs / "ssh").chmod(0o755)
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin") or "sshd"
    with _running([sshd, "-D", "-e", "-f", str(root / "sshd_config")], port, root) as process:
        variables = {"PATH": f"{programs}:{environment()['PATH']}"}
        yield Store(f"sftp://root@127.0.0.1:{port}/{root}/sftp", _words(root), variables, process)


@contextmanager
def s3(root: Path) -> Iterator[Store]:
    """Give a bucket of an S3 server that does not exist yet; its keys are in a file."""
    port = _free_port()
    keys = {"AWS_ACCESS_KEY_ID": "the-id", "AWS_SECRET_ACCESS_KEY": "the key's secret"}
    file = root / "keys"
    file.write_text("# of the sample\n" + "".join(f'export {name}="{value}"\n' for name, value in keys.items()))
    file.chmod(0o600)
    with _running(["moto_server", "-p", str(port)], port, root) as process:
        words = [*_words(root), "--keys", str(file)]
        yield Store(f"s3:http://127.0.0.1:{port}/copies/chap", words, server=process)


def _words(root: Path) -> list[str]:
    file = root / "password"
    file.write_text(f"{PASSWORD}\n")
    file.chmod(0o600)
    return ["--password-file", str(file)]


@contextmanager
def _running(
    command: Sequence[str], port: int, root: Path, variables: Mapping[str, str] = {}
) -> Iterator[subprocess.Popen[bytes]]:
    if not shutil.which(command[0]):
        pytest.fail(f"{command[0]} is needed: apt-get install rclone openssh-server; pip install 'moto[server]'")
    with open(root / "server.log", "ab") as log:
        process = subprocess.Popen(command, env={**environment(), **variables}, stdout=log, stderr=log)
        try:
            until(lambda: _answers(port), 60)
            yield process
        finally:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
