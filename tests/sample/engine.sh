#!/usr/bin/env bash
# Make sure that a Docker Engine and Compose v2 answer; quick when they do.
#
#   tests/sample/engine.sh          use the engine that answers, or install and start one (Debian and Ubuntu, root)
#   tests/sample/engine.sh --new    start a second, newer engine beside it, in a network namespace of its own
#   . build/out/env.sh              what every later command needs in its environment
#
# An engine that already answers is used as it is.
set -euo pipefail
. "$(dirname "$0")/debian.sh"

COMPOSE_AT_LEAST=2.20
CONFIG=$OUT/docker-config
PLUGINS=$CONFIG/cli-plugins

at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }
engine_answers() { command -v docker >/dev/null && timeout 20 docker version >/dev/null 2>&1; }

compose_fits() {
    local version
    version=$(docker compose version --short 2>/dev/null) && at_least "${version#v}" $COMPOSE_AT_LEAST
}

# After a power cut another process may have got the old pid, and dockerd would refuse to start.
drop_stale() { # drop_stale PIDFILE NAME
    if [ -s "$1" ] && [ "$(cat "/proc/$(cat "$1")/comm" 2>/dev/null)" != "$2" ]; then
        rm -f "$1"
    fi
}

start_engine() {
    local log=$OUT/dockerd.log tries
    drop_stale /var/run/docker.pid dockerd
    drop_stale /var/run/docker/containerd/containerd.pid containerd
    say "starting dockerd (log: build/out/dockerd.log)"
    setsid nohup dockerd </dev/null >>"$log" 2>&1 9>&- &
    echo $! >"$OUT/dockerd.pid"
    disown
    for tries in $(seq 300); do
        engine_answers && return 0
        kill -0 "$(cat "$OUT/dockerd.pid")" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$log" >&2
    fail "dockerd did not start. Its log is build/out/dockerd.log."
}

install_engine() {
    [ "$(id -u)" = 0 ] || fail "No Docker Engine answers. Start it, install it (https://docs.docker.com/engine/install/), or run this as root on Debian or Ubuntu."
    if ! command -v dockerd >/dev/null || ! command -v iptables >/dev/null || ! command -v mmdebstrap >/dev/null; then
        is_debian || fail "No Docker Engine answers. Install Docker Engine and Compose v2: https://docs.docker.com/engine/install/"
        say "installing docker.io, iptables and mmdebstrap with apt"
        # build/venv may run beside this, and apt works for one at a time.
        local apt=(flock -o "$OUT/apt.lock" apt-get -qq)
        local install=("${apt[@]}" install -y --no-install-recommends docker.io iptables mmdebstrap debian-archive-keyring)
        export DEBIAN_FRONTEND=noninteractive
        "${install[@]}" >"$OUT/apt.log" 2>&1 9>&- || { "${apt[@]}" update 9>&- && "${install[@]}" >"$OUT/apt.log" 2>&1 9>&-; } ||
            { tail -n 20 "$OUT/apt.log" >&2; fail "apt could not install docker.io."; }
    fi
    # A service manager may have started it.
    engine_answers || start_engine
}

# A private DOCKER_CONFIG keeps the user's own plugins and settings out of the tests; the engine stays the same one.
write_config() {
    mkdir -p "$PLUGINS"
    [ -s "$CONFIG/config.json" ] || echo '{}' >"$CONFIG/config.json"
    local host name path
    host=$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null || true)
    docker info --format '{{range .ClientInfo.Plugins}}{{.Name}} {{.Path}}{{"\n"}}{{end}}' 2>/dev/null |
        while read -r name path; do
            case $name in
                compose) compose_fits && ln -sf "$path" "$PLUGINS/docker-compose" ;;
                buildx) ln -sf "$path" "$PLUGINS/docker-buildx" ;;
            esac
        done
    {
        echo "# Written by tests/sample/engine.sh."
        echo "export DOCKER_CONFIG='$CONFIG'"
        case $host in
            '' | unix:///var/run/docker.sock) ;;
            *) echo "export DOCKER_HOST='$host'" ;;
        esac
    } >"$OUT/env.sh.part"
    mv "$OUT/env.sh.part" "$OUT/env.sh"
}

fetch_compose() {
    is_debian || fail "Docker Compose $COMPOSE_AT_LEAST or newer, or buildx, is missing: https://docs.docker.com/compose/install/"
    say "fetching Compose v2 and buildx from Debian forky"
    fetch_packages forky "$OUT/forky" docker-compose docker-buildx
    local name
    mkdir -p "$PLUGINS"
    for name in docker-compose docker-buildx; do
        cp "$(find "$OUT/forky/usr" -type f -path "*/cli-plugins/$name" | head -n1)" "$PLUGINS/$name.part"
        chmod 755 "$PLUGINS/$name.part"
        mv "$PLUGINS/$name.part" "$PLUGINS/$name"
    done
}

ready() {
    [ -s "$OUT/env.sh" ] && (. "$OUT/env.sh" && engine_answers && compose_fits && [ -e "$PLUGINS/docker-buildx" ])
}

write_new_config() { # write_new_config FOLDER: Docker's settings with the oldest Compose, else as for the first engine
    local plugins=$1/cli-plugins
    mkdir -p "$plugins"
    [ -s "$1/config.json" ] || echo '{}' >"$1/config.json"
    if [ ! -x "$plugins/docker-compose" ]; then
        say "fetching Compose of Debian trixie"
        fetch_packages trixie "$OUT/trixie" docker-compose
        cp "$OUT/trixie/usr/libexec/docker/cli-plugins/docker-compose" "$plugins/docker-compose.part"
        mv "$plugins/docker-compose.part" "$plugins/docker-compose"
    fi
    ln -sf "$PLUGINS/docker-buildx" "$PLUGINS/docker-chap" "$plugins/"
}

# Two engines on one machine fight over docker0 and iptables, so the new one lives in a network namespace of its own.
# Everything that talks to it or to its containers' ports must be run in there: build/out/new/run COMMAND...
# It has the oldest Compose that Debian has and this tool takes, so that the two engines are both ends of what is tried.
start_new() {
    local dir=$OUT/new name=$NEW_NETNS bin sbin tries
    local socket=$dir/docker.sock
    if [ -x "$dir/run" ] && "$dir/run" docker version >/dev/null 2>&1; then
        return 0
    fi
    [ "$(id -u)" = 0 ] && is_debian || fail "A second engine can be started on Debian or Ubuntu only, by root."
    command -v ip >/dev/null && command -v iptables >/dev/null && command -v runc >/dev/null || fail "Install iproute2, iptables and runc first."
    mkdir -p "$dir"
    bin=$dir/unpacked/usr/bin sbin=$dir/unpacked/usr/sbin
    if [ ! -x "$sbin/dockerd" ]; then
        say "fetching the engine of Debian forky"
        fetch_packages forky "$dir/unpacked" docker.io containerd tini-static
    fi
    write_new_config "$dir/docker-config"
    # From inside there is no way out to fetch it.
    "$SAMPLE/sshd.sh"
    [ -e /run/netns/$name ] || ip netns add $name
    # Not `ip netns exec`: that one mounts a fresh /sys, without the cgroups.
    nsenter --net=/run/netns/$name ip link set lo up
    cat >"$dir/run.part" <<RUN
#!/bin/sh
exec nsenter --net=/run/netns/$name env DOCKER_CONFIG='$dir/docker-config' DOCKER_HOST='unix://$socket' CHAP_SAMPLE_ENGINE=new "\$@"
RUN
    chmod 755 "$dir/run.part"
    mv "$dir/run.part" "$dir/run"
    rm -f "$dir/docker.pid"
    say "starting a second engine (log: build/out/new/dockerd.log)"
    PATH=$bin:$sbin:$PATH setsid nohup nsenter --net=/run/netns/$name "$sbin/dockerd" -H "unix://$socket" --data-root "$dir/data" \
        --exec-root "$dir/exec" --pidfile "$dir/docker.pid" --init-path "$bin/tini-static" --userland-proxy-path "$sbin/docker-proxy" \
        </dev/null >>"$dir/dockerd.log" 2>&1 9>&- &
    echo $! >"$dir/dockerd.pid"
    disown
    for tries in $(seq 300); do
        if "$dir/run" docker version >/dev/null 2>&1; then
            say "second engine $("$dir/run" docker version --format '{{.Server.Version}}'): build/out/new/run COMMAND..."
            return 0
        fi
        kill -0 "$(cat "$dir/dockerd.pid")" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$dir/dockerd.log" >&2
    fail "The second engine did not start. Its log is build/out/new/dockerd.log."
}

if [ "${1:-}" = --new ]; then
    start_new
    exit 0
fi
# In the second engine's namespace there is nothing to install.
if [ "${CHAP_SAMPLE_ENGINE:-}" = new ]; then
    engine_answers || fail "The second engine does not answer: tests/sample/engine.sh --new"
    exit 0
fi
ready && exit 0
if [ ! -s "$OUT/env.sh" ] || ! (. "$OUT/env.sh" && engine_answers); then
    engine_answers || install_engine
    write_config
fi
. "$OUT/env.sh"
if ! compose_fits || [ ! -e "$PLUGINS/docker-buildx" ]; then
    fetch_compose
    compose_fits || fail "Compose does not answer: $(docker compose version 2>&1 | head -n1)"
fi
say "engine $(docker version --format '{{.Server.Version}}'), Compose $(docker compose version --short)"
