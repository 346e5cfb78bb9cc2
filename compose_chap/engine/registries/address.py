"""Where a registry is, by its address (`host:port`)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network


def is_loopback(registry: str) -> bool:
    """Whether a registry is on this machine; Docker speaks to it without TLS."""
    host = _host(registry)
    return host == "localhost" or host.startswith("127.")


def is_within(registry: str, networks: Iterable[str]) -> bool:
    """Whether a registry's address lies in one of these networks, such as `10.0.0.0/8`; its name is not looked up."""
    try:
        address = ip_address(_host(registry).strip("[]"))
    except ValueError:
        return False
    return any(address in ip_network(network, strict=False) for network in networks)


def _host(registry: str) -> str:
    return re.sub(r":\d+$", "", registry)
