"""What the engine's client loads."""

from __future__ import annotations

import subprocess
import sys

_LOAD = """
import sys
import compose_chap.engine.engine
import docker, requests
assert not [name for name in sys.modules if name.startswith("charset_normalizer.")]
answer = requests.Response()
answer._content = "größer".encode()
assert answer.text == "größer"
"""

_STATUS = """
import sys
import compose_chap.cli.app, compose_chap.cli.commands.status
import compose_chap.operations.status
assert not {"docker", "requests", "urllib3", "httpx"} & set(sys.modules)
"""


def test_no_tables_are_loaded_to_guess_what_is_utf_8() -> None:
    # With warnings as errors: the HTTP library warns where it has no library that it accepts.
    subprocess.run([sys.executable, "-W", "error", "-c", _LOAD], check=True)


def test_status_needs_no_sdk() -> None:
    subprocess.run([sys.executable, "-c", _STATUS], check=True)
