#!/usr/bin/env bash
# What the tests of copies need: restic, and rclone as its server. Quick when both are here.
set -euo pipefail
. "$(dirname "$0")/debian.sh"

if command -v restic >/dev/null && command -v rclone >/dev/null; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! is_debian; then
    say "the tests of copies need restic and rclone, which are not installed"
    exit 0
fi
say "installing restic and rclone with apt"
# build/venv may run beside this, and apt works for one at a time.
apt=(flock -o "$OUT/apt.lock" apt-get -qq)
export DEBIAN_FRONTEND=noninteractive
install=("${apt[@]}" install -y --no-install-recommends restic rclone)
"${install[@]}" >"$OUT/apt.log" 2>&1 || { "${apt[@]}" update && "${install[@]}" >"$OUT/apt.log" 2>&1; } ||
    { tail -n 20 "$OUT/apt.log" >&2; fail "apt could not install restic and rclone."; }
