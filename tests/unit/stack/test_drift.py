"""What a container has that the files no longer say, by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from compose_chap.stack.drift import differences

IMAGE = {
    "Env": ["PATH=/bin", "LANG=C"],
    "Cmd": ["serve"],
    "Entrypoint": ["/entry"],
    "User": "chap",
    "WorkingDir": "/app",
    "Labels": {"maker": "chap"},
}
CONTAINER: dict[str, Any] = {
    "Config": {
        "Env": ["PATH=/bin", "LANG=C", "CHAP_TOKEN=s3cret", "PRICE=$5", "HTTPS_PROXY=http://proxy"],
        "Cmd": ["serve"],
        "Entrypoint": ["/entry"],
        "User": "chap",
        "WorkingDir": "/app",
        "Hostname": "abc",
        "Labels": {"maker": "chap", "com.docker.compose.project": "p"},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 90 * 10**9, "Retries": 3},
    },
    "HostConfig": {
        "PortBindings": {
            "8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8000"}],
            "53/udp": [{"HostIp": "", "HostPort": "53"}],
        },
        "Tmpfs": {"/tmp": "size=1m"},
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "ReadonlyRootfs": True,
        "Init": True,
        "CapDrop": ["CAP_NET_RAW"],
        "SecurityOpt": ["no-new-privileges:true"],
        "ExtraHosts": ["host.docker.internal:host-gateway"],
        "Memory": 536870912,
        "NanoCpus": 1500000000,
        "LogConfig": {"Type": "json-file", "Config": {}},
    },
    "Mounts": [
        {"Type": "volume", "Name": "p_logs", "Source": "/var/lib", "Destination": "/data/logs", "RW": True},
        {"Type": "volume", "Name": "a" * 64, "Source": "/var/lib", "Destination": "/data", "RW": True},
        {"Type": "bind", "Source": "/srv/chap/config", "Destination": "/config", "RW": False},
        {"Type": "bind", "Source": "/srv/secret", "Destination": "/run/secrets/token", "RW": False},
    ],
    "NetworkSettings": {"Networks": {"p_default": {}}},
}
SERVICE: dict[str, Any] = {
    "environment": {"CHAP_TOKEN": "s3cret", "PRICE": "$$5", "UNSET": None},
    "command": None,
    "entrypoint": None,
    "ports": [
        {"mode": "ingress", "host_ip": "127.0.0.1", "target": 8000, "published": "8000", "protocol": "tcp"},
        {"mode": "ingress", "target": 53, "published": "53", "protocol": "udp"},
    ],
    "volumes": [
        {"type": "volume", "source": "logs", "target": "/data/logs", "volume": {}},
        {"type": "bind", "source": "/srv/chap/config", "target": "/config", "read_only": True},
    ],
    "tmpfs": ["/tmp:size=1m"],
    "networks": {"default": None},
    "restart": "on-failure:3",
    "read_only": True,
    "init": True,
    "cap_drop": ["NET_RAW"],
    "security_opt": ["no-new-privileges:true"],
    "extra_hosts": ["host.docker.internal=host-gateway"],
    "healthcheck": {"test": ["CMD", "true"], "interval": "1m30s", "retries": 3},
    "deploy": {"resources": {"limits": {"memory": "536870912", "cpus": 1.5}}},
}
CONFIG = {
    "volumes": {"logs": {"name": "p_logs"}, "other": {"name": "p_other"}},
    "networks": {"default": {"name": "p_default"}, "dhis2": {"name": "dhis2_net"}},
}


def test_a_container_as_the_files_say_differs_in_nothing() -> None:
    assert differences(CONTAINER, IMAGE, SERVICE, CONFIG) == []


def put(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    """Return what puts a value at a place of a service."""

    def change(service: dict[str, Any]) -> None:
        *above, last = path
        for name in above:
            service = service[name]
        service[last] = to

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (put("environment", "CHAP_TOKEN", to="other"), "variables CHAP_TOKEN"),
        (put("environment", to={"PRICE": "$$5", "NEW": "1"}), "variables CHAP_TOKEN, NEW"),
        (put("labels", to={"team": "x"}), "labels team"),
        (
            put("ports", to=[{"target": 8000, "published": "9000", "host_ip": "127.0.0.1"}]),
            "ports (127.0.0.1:8000->8000 53->53/udp runs, the files say 127.0.0.1:9000->8000)",
        ),
        (
            put("volumes", to=[{"type": "volume", "source": "other", "target": "/data/logs"}]),
            "volumes (/srv/chap/config:/config:ro p_logs:/data/logs runs, the files say p_other:/data/logs)",
        ),
        (put("tmpfs", to="/tmp:size=2m"), "tmpfs (/tmp:size=1m runs, the files say /tmp:size=2m)"),
        (
            put("networks", to={"dhis2": None, "default": None}),
            "networks (p_default runs, the files say dhis2_net p_default)",
        ),
        (put("network_mode", to="host"), "networks (p_default runs, the files say host)"),
        (put("command", to=["serve", "--token", "s3cret"]), "command"),
        (put("entrypoint", to=["/other"]), "command, entrypoint"),
        (put("user", to="root"), "user (chap runs, the files say root)"),
        (put("working_dir", to="/"), "working_dir (/app runs, the files say /)"),
        (put("restart", to=None), "restart (on-failure:3 runs, the files say no)"),
        (put("read_only", to=False), "read_only (True runs, the files say False)"),
        (put("cap_drop", to=["ALL"]), "cap_drop (NET_RAW runs, the files say ALL)"),
        (put("healthcheck", "interval", to="15s"), "healthcheck"),
        (put("healthcheck", to={"disable": True}), "healthcheck"),
        (put("logging", to={"driver": "local"}), "logging"),
        (
            put("deploy", "resources", "limits", "memory", to="1073741824"),
            "memory (536870912 runs, the files say 1073741824)",
        ),
        (
            put("extra_hosts", to={"db": ["10.0.0.9"]}),
            "extra_hosts (host.docker.internal:host-gateway runs, the files say db:10.0.0.9)",
        ),
    ],
)
def test_each_difference_is_named_without_secrets(change: Callable[[dict[str, Any]], None], expected: str) -> None:
    service = copy.deepcopy(SERVICE)
    change(service)
    result = ", ".join(differences(CONTAINER, IMAGE, service, CONFIG))
    assert result == expected and "s3cret" not in result


def test_ignored_properties_are_not_reported() -> None:
    assert differences(CONTAINER, IMAGE, {**SERVICE, "ulimits": {"nofile": 1024}}, CONFIG) == []
    assert differences({}, {}, SERVICE, CONFIG) == []
