"""What dd writes about a copy, as GNU and BusyBox word it."""

from __future__ import annotations

import math

import pytest

from compose_chap.postgres.copy_speed import measured

GNU = "512+0 records in\n512+0 records out\n33554432 bytes (34 MB, 32 MiB) copied, 0.0745654 s, 450 MB/s\n"
BUSYBOX = "512+0 records in\n512+0 records out\n33554432 bytes (32.0MB) copied, 0.074565 seconds, 429.2MB/s\n"


@pytest.mark.parametrize("output", [GNU, GNU * 4, BUSYBOX * 4, GNU.replace("0.07", "1.07") + GNU])
def test_the_rate_is_that_of_the_fastest_piece(output: str) -> None:
    assert measured(output) == pytest.approx(450e6, rel=1e-3)


def test_a_clone_takes_no_time() -> None:
    assert measured("cloned\n") == math.inf


@pytest.mark.parametrize(
    "output",
    [
        "",
        "sh: dd: not found\n",
        "dd: error writing 'base/pgsql_tmp/x': No space left on device\n",
        "dd: failed to open 'base/pgsql_tmp/x': Read-only file system\n",
        # The file ended: 1 MiB says nothing.
        "16+0 records in\n16+0 records out\n1048576 bytes (1.0 MB, 1.0 MiB) copied, 0.001 s, 1.0 GB/s\n",
        GNU.replace("0.0745654 s", "0 s"),
    ],
)
def test_what_says_too_little_is_no_rate(output: str) -> None:
    assert measured(output) == 0
