"""A registry that lets nobody in without a password."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.sample.stack import OUT, free_port, registry

CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: '{storage}'}}}}
http: {{addr: '{address}'}}
auth: {{htpasswd: {{realm: chap, path: '{folder}/htpasswd'}}}}
"""


@contextmanager
def private_registry(folder: Path, user: str) -> Iterator[str]:
    """Run a registry with the sample's images, and yield its address. `user` is a line of htpasswd, with bcrypt."""
    registry()  # there is one program, and one storage
    address = f"127.0.0.1:{free_port()}"
    (folder / "htpasswd").write_text(f"{user}\n")
    (folder / "config.yml").write_text(CONFIG.format(storage=OUT / "registry/storage", address=address, folder=folder))
    program = shutil.which("docker-registry") or str(OUT / "registry/unpacked/usr/bin/docker-registry")
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(folder / "config.yml")],
            env=os.environ | {"OTEL_TRACES_EXPORTER": "none"},
            stdout=log,
            stderr=log,
        )
    try:
        for _ in range(200):
            if refuses(address):
                break
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


def refuses(address: str) -> bool:
    """Whether something answers there and asks for a password."""
    try:
        urllib.request.urlopen(f"http://{address}/v2/", timeout=5)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        pass
    return False
