"""How a container differs from what the files now say of its service: what Compose would make it anew for.

Pure: it is given what `docker inspect` knows of a container and of its image, and what `docker compose config` says.
Ports, volumes, networks and the like are named with both values. Of variables, labels and commands only the
name is told: they may hold secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_Facts = Mapping[str, Any]

_COMPOSE_LABELS = "com.docker.compose."
# Docker's own settings give every container these, whatever the files say.
_PROXY = re.compile(r"(http|https|ftp|no|all)_proxy", re.I)
_UNITS = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_HEALTHCHECK = (("interval", "Interval"), ("timeout", "Timeout"), ("start_period", "StartPeriod"))
_SILENT = ("command", "entrypoint", "healthcheck", "logging")


def differences(container: _Facts, image: _Facts, service: _Facts, config: _Facts) -> list[str]:
    """Return, in words, each setting of a container that is not what the files say; none where nothing is found.

    `container` is what `docker inspect` says of it, `image` the Config of its image, `service` the service and `config`
    the whole project as `docker compose config --format json` has them.
    """
    if not container:
        return []
    runs, says = _running(container), _written(service, config, image)
    found = list(_named("variables", *_environments(container["Config"], image, service)))
    found += _named("labels", *_labels(container["Config"], image, service))
    for name, wanted in says.items():
        if wanted is not None and runs[name] != wanted:
            told = f" ({_said(runs[name])} runs, the files say {_said(wanted)})"
            found.append(name + ("" if name in _SILENT else told))
    return found


def settings(container: _Facts) -> dict[str, Any]:
    """Return what a container was made with and no secret can be in, by name, as JSON can hold it."""
    runs = _running(container) if container else {}
    return {name: value for name, value in runs.items() if name not in (*_SILENT, "hostname")}


def changes(before: _Facts, now: _Facts) -> list[str]:
    """Return, in words, each of two `settings` that is not the same."""
    return [
        f"{name} ({_said(value)} before, {_said(now[name])} now)"
        for name, value in before.items()
        if name in now and now[name] != value
    ]


def _named(what: str, runs: Mapping[str, str], says: Mapping[str, str]) -> Iterator[str]:
    names = sorted(name for name in {*runs, *says} if runs.get(name) != says.get(name))
    if names:
        yield f"{what} {', '.join(names)}"


def _said(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return str(value) if value != "" else "none"


def _running(container: _Facts) -> dict[str, Any]:
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


def _written(service: _Facts, config: _Facts, image: _Facts) -> dict[str, Any]:
    """Return what the files say, in the words of `_running`; None is what is left to the engine or cannot be told."""
    entrypoint, limits = service.get("entrypoint"), _part(service, "deploy", "resources", "limits")
    # Who names another entrypoint does not get the image's command.
    command = image.get("Cmd") if service.get("command") is None and entrypoint is None else service.get("command")
    memory, cpus = service.get("mem_limit") or limits.get("memory"), service.get("cpus") or limits.get("cpus")
    grace = service.get("stop_grace_period")
    log = service.get("logging")
    return {
        "ports": sorted(
            _port(one.get("host_ip"), one.get("published"), one["target"], one.get("protocol", "tcp"))
            for one in service.get("ports") or ()
        ),
        "volumes": sorted(filter(None, (_mount_of_files(one, config) for one in service.get("volumes") or ()))),
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


def _part(service: _Facts, *names: str) -> _Facts:
    found: _Facts = service
    for name in names:
        found = found.get(name) or {}
    return found


def _items(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _plain(words: Any) -> list[str]:
    # Compose writes a $ as $$.
    return [str(word).replace("$$", "$") for word in _items(words)]


def _port(address: str | None, published: Any, target: Any, protocol: str) -> str:
    where = f"{address}:" if address and address != "0.0.0.0" else ""
    return f"{where}{published or 'any'}->{target}" + ("" if protocol == "tcp" else f"/{protocol}")


def _mount(source: str, target: str, read_only: bool) -> str:
    return f"{source}:{target}" + (":ro" if read_only else "")


def _mount_of_container(mount: _Facts) -> str:
    target = str(mount["Destination"])
    if mount["Type"] == "volume":
        # One without a name is the image's own or the files'; either way nothing of it can be moved.
        name = str(mount.get("Name") or "")
        return "" if re.fullmatch(r"[0-9a-f]{64}", name) else _mount(name, target, not mount["RW"])
    # Compose mounts secrets too, and they are no volumes to whoever wrote the files.
    known = mount["Type"] == "bind" and not target.startswith("/run/secrets/")
    return _mount(str(mount["Source"]), target, not mount["RW"]) if known else ""


def _mount_of_files(entry: _Facts, config: _Facts) -> str:
    source, kind = str(entry.get("source") or ""), entry.get("type")
    if not source or kind not in ("volume", "bind"):
        return ""
    if kind == "volume":
        source = str(_part(config, "volumes", source).get("name") or source)
    return _mount(source, str(entry["target"]), bool(entry.get("read_only")))


def _networks(service: _Facts, config: _Facts) -> list[str] | None:
    mode = service.get("network_mode")
    if mode:
        return [str(mode)] if mode in ("host", "none", "bridge") else None
    names = service.get("networks") or {"default": None}
    return sorted(str(_part(config, "networks", name).get("name") or name) for name in names)


def _capabilities(names: Iterable[str] | None) -> list[str]:
    return sorted(name.upper().removeprefix("CAP_") for name in names or ())


def _hosts(entries: Any) -> list[str]:
    if isinstance(entries, dict):
        entries = [f"{name}:{address}" for name, found in entries.items() for address in _items(found)]
    return sorted(re.sub("[=:]", ":", entry, count=1) for entry in entries or ())


def _healthcheck(written: _Facts | None, of_image: _Facts) -> dict[str, Any] | None:
    if not written:
        return dict(of_image)
    if written.get("disable"):
        return {"Test": ["NONE"]}
    found = {"Test": _plain(written.get("test")) or of_image.get("Test")}
    for ours, theirs in _HEALTHCHECK:
        if value := _nanoseconds(written.get(ours)) or of_image.get(theirs):
            found[theirs] = value
    if retries := written.get("retries") or of_image.get("Retries"):
        found["Retries"] = int(retries)
    # Not every engine knows this one.
    return None if written.get("start_interval") else found


def _nanoseconds(duration: Any) -> int:
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|us|ns|h|m|s)", str(duration or ""))
    return int(sum(float(number) * _UNITS[unit] for number, unit in parts))


def _environments(own: _Facts, image: _Facts, service: _Facts) -> tuple[dict[str, str], dict[str, str]]:
    runs = dict(entry.partition("=")[::2] for entry in own.get("Env") or ())
    says = dict(entry.partition("=")[::2] for entry in image.get("Env") or ())
    written = service.get("environment") or {}
    says |= {name: str(value).replace("$$", "$") for name, value in written.items() if value is not None}
    return {name: value for name, value in runs.items() if name in says or not _PROXY.fullmatch(name)}, says


def _labels(own: _Facts, image: _Facts, service: _Facts) -> tuple[dict[str, str], dict[str, str]]:
    says = dict(image.get("Labels") or {})
    says |= {name: str(value).replace("$$", "$") for name, value in (service.get("labels") or {}).items()}
    both = (own.get("Labels") or {}, says)
    runs, says = ({name: found[name] for name in found if not name.startswith(_COMPOSE_LABELS)} for found in both)
    return runs, says
