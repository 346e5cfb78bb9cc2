#!/usr/bin/env bash
# Make sure that the registry of the sample images runs on 127.0.0.1; print its address. Quick when it does.
#
# Its port is 5899, or the next free one; the images' names carry it.
set -euo pipefail
. "$(dirname "$0")/debian.sh"

# The second engine cannot reach the first one's registry, so it has one of its own, on the same files.
STORAGE=$OUT/registry/storage
DIR=$OUT/registry
[ "${CHAP_SAMPLE_ENGINE:-}" = new ] && DIR=$OUT/new/registry
PIDFILE=$DIR/pid
mkdir -p "$DIR" "$STORAGE"

alive() {
    local pid
    pid=$(cat "$PIDFILE" 2>/dev/null) || return 1
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = docker-registry ] && answers "$(cat "$DIR/port")"
}
answers() { timeout 5 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" && printf "GET /v2/ HTTP/1.0\r\n\r\n" >&3 && grep -q " 200 " <&3' "$1" 2>/dev/null; }
taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

if alive; then
    echo "127.0.0.1:$(cat "$DIR/port")"
    exit 0
fi

program=$(command -v docker-registry || true)
if [ -z "$program" ]; then
    program=$OUT/registry/unpacked/usr/bin/docker-registry
    if [ ! -x "$program" ]; then
        is_debian || fail "Install docker-registry: the program of https://github.com/distribution/distribution."
        say "fetching docker-registry from Debian forky"
        fetch_packages forky "$OUT/registry/unpacked" docker-registry
    fi
fi

port=$(cat "$DIR/port" 2>/dev/null || cat "$OUT/registry/port" 2>/dev/null || echo "${CHAP_SAMPLE_PORT:-5899}")
while taken "$port"; do port=$((port + 1)); done
cat >"$DIR/config.yml" <<CONFIG
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: '$STORAGE'}, delete: {enabled: true}}
http: {addr: '127.0.0.1:$port'}
CONFIG
OTEL_TRACES_EXPORTER=none setsid nohup "$program" serve "$DIR/config.yml" </dev/null >>"$OUT/registry.log" 2>&1 9>&- &
echo $! >"$PIDFILE"
disown
echo "$port" >"$DIR/port"
for _ in $(seq 100); do
    if answers "$port"; then
        say "registry on 127.0.0.1:$port"
        echo "127.0.0.1:$port"
        exit 0
    fi
    sleep 0.1
done
fail "The registry did not start. Its log is build/out/registry.log."
