"""Read the engine's description of a container into our own record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from compose_chap import compose_labels
from compose_chap.model import Container


def container_of(facts: Mapping[str, Any]) -> Container:
    """Return the part of `docker inspect` that matters here."""
    config, state = facts["Config"], facts["State"]
    labels = config.get("Labels") or {}
    networks = dict((facts.get("NetworkSettings") or {}).get("Networks") or {})
    name = facts["Name"].lstrip("/")
    service = labels.get(compose_labels.SERVICE, "")

    return Container(
        id=facts["Id"],
        name=name,
        project=labels.get(compose_labels.PROJECT, ""),
        service=service,
        image=config["Image"],
        image_id=facts["Image"],
        state=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        exit_status=int(state.get("ExitCode", 0)),
        restarts=int(facts.get("RestartCount", 0)),
        started_at=state.get("StartedAt", ""),
        command=(*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())),
        names=_names(facts, {name, service}, networks),
        addresses=frozenset(
            network[kind]
            for network in networks.values()
            for kind in ("IPAddress", "GlobalIPv6Address")
            if network.get(kind)
        ),
        labels=labels,
        environment=dict(item.partition("=")[::2] for item in config.get("Env") or ()),
        links=_links(facts, networks),
        published=_published(facts),
    )


def _names(facts: Mapping[str, Any], own: set[str], networks: Mapping[str, Any]) -> frozenset[str]:
    """Return every name that reaches a container: its own, its short id, and each name with `.NETWORK` behind it."""
    own = own | {facts["Id"][:12]}
    of_networks = {
        network: own | set(endpoint.get("Aliases") or ()) | set(endpoint.get("DNSNames") or ())
        for network, endpoint in networks.items()
    }
    full = {f"{name}.{network}" for network, names in of_networks.items() for name in names}
    return frozenset(own.union(full, *of_networks.values()))


def _published(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return where a running container's TCP ports are reached on the engine's machine, `host:port` each."""
    ports = (facts.get("NetworkSettings") or {}).get("Ports") or {}
    bindings = [binding for port, entries in ports.items() if port.endswith("/tcp") for binding in entries or ()]
    # A port on all addresses is bound for IPv4 and IPv6; list it once.
    hosts = {"": "localhost", "0.0.0.0": "localhost", "::": "localhost"}
    return tuple(
        dict.fromkeys(
            f"{hosts.get(entry.get('HostIp', ''), entry.get('HostIp'))}:{entry['HostPort']}" for entry in bindings
        )
    )


def _links(facts: Mapping[str, Any], networks: Mapping[str, Any]) -> dict[str, str]:
    """Return the names that only a container itself knows, in lower case: its links and what is in its hosts file."""
    host = facts.get("HostConfig") or {}
    linked = [
        *(host.get("Links") or ()),
        *(link for network in networks.values() for link in network.get("Links") or ()),
    ]
    # `container:alias`, and in the oldest form `/container:/this/alias`
    targets = {link.partition(":")[2].rpartition("/")[2]: link.partition(":")[0].lstrip("/") for link in linked}
    # `name:address`, where an address may have colons too; a newer engine takes `name=address` as well.
    for entry in host.get("ExtraHosts") or ():
        name, address = re.split("[:=]", entry, maxsplit=1)
        targets.setdefault(name, address.strip("[]"))
    return {name.lower(): target for name, target in targets.items()}
