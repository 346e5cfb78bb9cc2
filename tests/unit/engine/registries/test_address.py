"""Which registries Docker speaks to without TLS."""

from __future__ import annotations

import pytest

from compose_chap.engine.registries.address import is_loopback, is_within

NETWORKS = ("10.0.0.0/8", "::1/128", "fd00::/8")


@pytest.mark.parametrize(
    ("registry", "within"),
    [
        ("10.1.2.3:5000", True),
        ("10.1.2.3", True),
        ("11.1.2.3:5000", False),
        ("[fd00::7]:5000", True),
        ("[fe80::7]:5000", False),
        ("registry.moh.example:5000", False),
        ("", False),
    ],
)
def test_an_address_lies_within_a_network_or_not(registry: str, within: bool) -> None:
    assert is_within(registry, NETWORKS) == within
    assert not is_within(registry, ())


@pytest.mark.parametrize("registry", ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3"])
def test_this_machine_is_loopback(registry: str) -> None:
    assert is_loopback(registry) and not is_loopback(f"x{registry}")
