"""How a container differs from its service in the files: the differences for which Compose would recreate it.

Pure: it gets the `docker inspect` of a container and of its image, and the output of `docker compose config`.
Ports, volumes, networks and the like are reported with both values; variables, labels and commands by name only,
because they may hold secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from compose_chap import compose_labels
from compose_chap.project.variables import unescaped

_Json = Mapping[str, Any]

# Docker's own configuration gives these to every container, whatever the files say.
_PROXY = re.compile(r"(http|https|ftp|no|all)_proxy", re.I)
_UNITS = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_HEALTHCHECK = (("interval", "Interval"), ("timeout", "Timeout"), ("start_period", "StartPeriod"))
_SILENT = ("command", "entrypoint", "healthcheck", "logging")


def differences(container: _Json, image: _Json, service: _Json, config: _Json) -> list[str]:
    """Return, for people, every property of a container that differs from the files.

    `container` is its `docker inspect`, `image` the Config of its image, `service` the service and `config` the whole
    project as in `docker compose config --format json`.
    """
    if not container:
        return []
    actual, declared = _actual(container), _declared(service, config, image)
    differing = list(_named("variables", *_environments(container["Config"], image, service)))
    differing += _named("labels", *_labels(container["Config"], image, service))
    for name, wanted in declared.items():
        if wanted is not None and actual[name] != wanted:
            values = f" ({_shown(actual[name])} runs, the files say {_shown(wanted)})"
            differing.append(name + ("" if name in _SILENT else values))
    return differing


def configuration(container: _Json) -> dict[str, Any]:
    """Return the properties that a container was created with, without those that may hold secrets. Plain JSON."""
    actual = _actual(container) if container else {}
    return {name: value for name, value in actual.items() if name not in (*_SILENT, "hostname")}


def changes(before: _Json, now: _Json) -> list[str]:
    """Return, for people, every property that differs between two results of `configuration`."""
    return [
        f"{name} ({_shown(value)} before, {_shown(now[name])} now)"
        for name, value in before.items()
        if name in now and now[name] != value
    ]


def _named(what: str, actual: Mapping[str, str], declared: Mapping[str, str]) -> Iterator[str]:
    names = sorted(name for name in {*actual, *declared} if actual.get(name) != declared.get(name))
    if names:
        yield f"{what} {', '.join(names)}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return str(value) if value != "" else "none"


def _actual(container: _Json) -> dict[str, Any]:
    own, host = container["Config"], container["HostConfig"]
    policy = host.get("RestartPolicy") or {}
    retries = policy.get("MaximumRetryCount") or 0
    log = host.get("LogConfig") or {}
    return {
        "ports": sorted(
            _port(binding.get("HostIp"), binding.get("HostPort"), *port.split("/"))
            for port, bindings in (host.get("PortBindings") or {}).items()
            for binding in bindings or ()
        ),
        "volumes": sorted(filter(None, map(_mount_of_container, container.get("Mounts") or ()))),
        "tmpfs": sorted(":".join(filter(None, pair)) for pair in (host.get("Tmpfs") or {}).items()),
        "networks": sorted((container.get("NetworkSettings") or {}).get("Networks") or ()),
        "command": own.get("Cmd") or [],
        "entrypoint": own.get("Entrypoint") or [],
        "user": own.get("User") or "",
        "working_dir": own.get("WorkingDir") or "",
        "hostname": own.get("Hostname") or "",
        "restart": (policy.get("Name") or "no") + (f":{retries}" if retries else ""),
        "read_only": bool(host.get("ReadonlyRootfs")),
        "privileged": bool(host.get("Privileged")),
        "init": bool(host.get("Init")),
        "cap_add": _capabilities(host.get("CapAdd")),
        "cap_drop": _capabilities(host.get("CapDrop")),
        "security_opt": sorted(host.get("SecurityOpt") or ()),
        "extra_hosts": sorted(host.get("ExtraHosts") or ()),
        "healthcheck": own.get("Healthcheck") or {},
        "stop_grace_period": own.get("StopTimeout") or 0,
        "memory": int(host.get("Memory") or 0),
        "cpus": int(host.get("NanoCpus") or 0) / 1e9,
        "logging": (log.get("Type"), log.get("Config") or {}),
    }


def _declared(service: _Json, config: _Json, image: _Json) -> dict[str, Any]:
    """Return what the files say, by the names of `_actual`; None where the engine decides, or it cannot be known."""
    entrypoint, limits = service.get("entrypoint"), _part(service, "deploy", "resources", "limits")
    # A service with its own entrypoint does not get the image's command.
    command = image.get("Cmd") if service.get("command") is None and entrypoint is None else service.get("command")
    memory, cpus = service.get("mem_limit") or limits.get("memory"), service.get("cpus") or limits.get("cpus")
    grace = service.get("stop_grace_period")
    log = service.get("logging")
    return {
        "ports": sorted(
            _port(entry.get("host_ip"), entry.get("published"), entry["target"], entry.get("protocol", "tcp"))
            for entry in service.get("ports") or ()
        ),
        "volumes": sorted(filter(None, (_mount_of_files(entry, config) for entry in service.get("volumes") or ()))),
        "tmpfs": sorted(_items(service.get("tmpfs"))),
        "networks": _networks(service, config),
        "command": _plain(command or []),
        "entrypoint": _plain((image.get("Entrypoint") if entrypoint is None else entrypoint) or []),
        "user": str(service.get("user") or image.get("User") or ""),
        "working_dir": str(service.get("working_dir") or image.get("WorkingDir") or ""),
        "hostname": service.get("hostname"),
        "restart": None if _part(service, "deploy", "restart_policy") else str(service.get("restart") or "no"),
        "read_only": bool(service.get("read_only")),
        "privileged": bool(service.get("privileged")),
        "init": bool(service.get("init")),
        "cap_add": _capabilities(service.get("cap_add")),
        "cap_drop": _capabilities(service.get("cap_drop")),
        "security_opt": None if service.get("privileged") else sorted(service.get("security_opt") or ()),
        "extra_hosts": _hosts(service.get("extra_hosts")),
        "healthcheck": _healthcheck(service.get("healthcheck"), image.get("Healthcheck") or {}),
        "stop_grace_period": _nanoseconds(grace) // 10**9 if grace else 0,
        "memory": int(memory or 0) if str(memory or 0).isdigit() else None,
        "cpus": float(cpus or 0),
        "logging": (log.get("driver", "json-file"), log.get("options") or {}) if log else None,
    }


def _part(service: _Json, *names: str) -> _Json:
    part: _Json = service
    for name in names:
        part = part.get(name) or {}
    return part


def _items(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _plain(words: Any) -> list[str]:
    return [unescaped(word) for word in _items(words)]


def _port(address: str | None, published: Any, target: Any, protocol: str) -> str:
    where = f"{address}:" if address and address != "0.0.0.0" else ""
    return f"{where}{published or 'any'}->{target}" + ("" if protocol == "tcp" else f"/{protocol}")


def _mount(mounted: str, target: str, read_only: bool) -> str:
    return f"{mounted}:{target}" + (":ro" if read_only else "")


def _mount_of_container(mount: _Json) -> str:
    target = str(mount["Destination"])
    if mount["Type"] == "volume":
        # An anonymous volume, of the image or the files: it has no name to compare.
        name = str(mount.get("Name") or "")
        return "" if re.fullmatch(r"[0-9a-f]{64}", name) else _mount(name, target, not mount["RW"])
    # Compose mounts secrets too, which are not volumes in the files.
    known = mount["Type"] == "bind" and not target.startswith("/run/secrets/")
    return _mount(str(mount["Source"]), target, not mount["RW"]) if known else ""


def _mount_of_files(entry: _Json, config: _Json) -> str:
    mounted, kind = str(entry.get("source") or ""), entry.get("type")
    if not mounted or kind not in ("volume", "bind"):
        return ""
    if kind == "volume":
        mounted = str(_part(config, "volumes", mounted).get("name") or mounted)
    return _mount(mounted, str(entry["target"]), bool(entry.get("read_only")))


def _networks(service: _Json, config: _Json) -> list[str] | None:
    mode = service.get("network_mode")
    if mode:
        return [str(mode)] if mode in ("host", "none", "bridge") else None
    names = service.get("networks") or {"default": None}
    return sorted(str(_part(config, "networks", name).get("name") or name) for name in names)


def _capabilities(names: Iterable[str] | None) -> list[str]:
    return sorted(name.upper().removeprefix("CAP_") for name in names or ())


def _hosts(entries: Any) -> list[str]:
    if isinstance(entries, dict):
        entries = [f"{name}:{address}" for name, addresses in entries.items() for address in _items(addresses)]
    return sorted(re.sub("[=:]", ":", entry, count=1) for entry in entries or ())


def _healthcheck(written: _Json | None, of_image: _Json) -> dict[str, Any] | None:
    if not written:
        return dict(of_image)
    if written.get("disable"):
        return {"Test": ["NONE"]}
    result = {"Test": _plain(written.get("test")) or of_image.get("Test")}
    for ours, theirs in _HEALTHCHECK:
        if value := _nanoseconds(written.get(ours)) or of_image.get(theirs):
            result[theirs] = value
    if retries := written.get("retries") or of_image.get("Retries"):
        result["Retries"] = int(retries)
    # Not every engine knows start_interval.
    return None if written.get("start_interval") else result


def _nanoseconds(duration: Any) -> int:
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|us|ns|h|m|s)", str(duration or ""))
    return int(sum(float(number) * _UNITS[unit] for number, unit in parts))


def _environments(own: _Json, image: _Json, service: _Json) -> tuple[dict[str, str], dict[str, str]]:
    actual = dict(entry.partition("=")[::2] for entry in own.get("Env") or ())
    declared = dict(entry.partition("=")[::2] for entry in image.get("Env") or ())
    written = service.get("environment") or {}
    declared |= {name: unescaped(value) for name, value in written.items() if value is not None}
    return {name: value for name, value in actual.items() if name in declared or not _PROXY.fullmatch(name)}, declared


def _labels(own: _Json, image: _Json, service: _Json) -> tuple[dict[str, str], dict[str, str]]:
    declared = dict(image.get("Labels") or {})
    declared |= {name: unescaped(value) for name, value in (service.get("labels") or {}).items()}
    both = (own.get("Labels") or {}, declared)
    actual, declared = (
        {name: labels[name] for name in labels if not name.startswith(compose_labels.PREFIX)} for labels in both
    )
    return actual, declared
