"""The engine of the tests, reached as one on another machine is: over ssh, and over TCP with TLS.

with ssh_server(folder) as remote:
    remote.docker_context("north")
    subprocess.run(["docker", "--context", "north", "chap", "status"], env=remote.environment)
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.sample.stack import SAMPLE, SampleError, environment, free_port

LOOPBACK = "127.0.0.1"


@dataclass
class Remote:
    """A way to an engine: its address as Docker has it, and the environment in which Docker can go there."""

    address: str
    environment: dict[str, str]
    log: Path
    tls: str = ""

    def docker_context(self, name: str) -> None:
        """Make a Docker context of it, in the configuration of `environment`."""
        self.docker("context", "create", name, "--docker", f"host={self.address}{self.tls}")

    def docker(self, *words: str) -> str:
        """Run docker in this environment."""
        done = subprocess.run(["docker", *words], env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SampleError(f"docker {' '.join(words)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    @property
    def logins(self) -> int:
        """How often somebody has logged in over ssh so far."""
        return len(re.findall(r"Accepted publickey", self.log.read_text())) if self.log.exists() else 0


def private_config(folder: Path) -> dict[str, str]:
    """Return the tests' environment with a Docker configuration of its own, and no DOCKER_HOST."""
    config = folder / "docker-config"
    config.mkdir(parents=True)
    (config / "config.json").write_text("{}")
    (config / "cli-plugins").symlink_to(Path(environment()["DOCKER_CONFIG"], "cli-plugins"))
    variables = {
        **environment(),
        "DOCKER_CONFIG": str(config),
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder / "data"),
    }
    variables.pop("DOCKER_HOST", None)
    # What is unpacked already, so that a home of its own does not mean to unpack it again.
    variables["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
    return variables


@contextlib.contextmanager
def ssh_server(folder: Path, host: str = LOOPBACK) -> Iterator[Remote]:
    """Run sshd on a free port with keys of its own; who logs in has the engine of the tests as Docker's own."""
    folder.mkdir(parents=True)
    port = free_port(host)
    for name in ("host", "user"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    engine = environment().get("DOCKER_HOST", "unix:///var/run/docker.sock")
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress {host}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "StrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nPidFile none\n"
        # Other tests' stacks are on this engine too: more is asked of it at once than of any server.
        f"SetEnv DOCKER_HOST={engine}\nMaxSessions 100\nMaxStartups 100\n"
    )
    known = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[{host}]:{port} {known}\n")
    (folder / "bin").mkdir()
    wrapper = folder / "bin" / "ssh"
    (folder / "ssh_config").write_text(
        f"IdentityFile {folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known_hosts\nBatchMode yes\n"
    )
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    wrapper.chmod(0o755)
    variables = private_config(folder)
    variables["PATH"] = f"{wrapper.parent}{os.pathsep}{variables['PATH']}"
    log = folder / "sshd.log"
    with log.open("wb") as stderr:
        server = subprocess.Popen([SAMPLE / "sshd.sh", config], stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
    try:
        wait_for(host, port, server, log)
        yield Remote(f"ssh://root@{host}:{port}", variables, log)
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def tls_server(folder: Path, host: str = LOOPBACK) -> Iterator[Remote]:
    """Serve the engine of the tests over TCP, to who has the right certificate only."""
    folder.mkdir(parents=True)
    _certificates(folder, host)
    engine = environment().get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server((host, 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=[connection], daemon=True).start()

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, socket.socket(socket.AF_UNIX) as remote:
            with context.wrap_socket(connection, server_side=True) as local:
                remote.connect(engine)
                _carry(local, remote)

    threading.Thread(target=accept, daemon=True).start()
    address = f"tcp://{host}:{listener.getsockname()[1]}"
    tls = f",ca={folder}/ca.pem,cert={folder}/client.pem,key={folder}/client.key"
    try:
        yield Remote(address, private_config(folder), folder / "no.log", tls)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _carry(local: ssl.SSLSocket, remote: socket.socket) -> None:
    """Carry bytes both ways until both ends have said all."""
    open_ends: dict[socket.socket, socket.socket] = {local: remote, remote: local}
    while open_ends:
        ready = [local] if local in open_ends and local.pending() else select.select(list(open_ends), [], [])[0]
        for source in ready:
            data = source.recv(65536)
            if data:
                open_ends.get(source, local).sendall(data)
                continue
            target = open_ends.pop(source)
            if target is local:
                return
            target.shutdown(socket.SHUT_WR)


def _certificates(folder: Path, host: str) -> None:
    new = ("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    _run(*new, "-x509", "-subj", "/CN=test ca", "-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.pem")
    for name, use in (("server", f"subjectAltName=IP:{host}"), ("client", "extendedKeyUsage=clientAuth")):
        (folder / f"{name}.ext").write_text(use)
        request = f"{folder}/{name}.csr"
        _run(*new, "-subj", f"/CN={name}", "-keyout", f"{folder}/{name}.key", "-out", request)
        signed = ("-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca.key", "-CAcreateserial", "-days", "2")
        _run(
            "openssl",
            "x509",
            "-req",
            "-in",
            request,
            *signed,
            "-extfile",
            f"{folder}/{name}.ext",
            "-out",
            f"{folder}/{name}.pem",
        )


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SampleError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")


def wait_for(host: str, port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server listens. Raise SampleError with its log when it ends before."""
    end = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
            return
        time.sleep(0.1)
    raise SampleError(f"it does not listen on {host}:{port}: {log.read_text()}")
