#!/usr/bin/env bash
# Run an ssh server in the foreground with a configuration of ours; end it with a signal. Root only.
#
#   tests/sample/sshd.sh CONFIG
#   tests/sample/sshd.sh            only fetch it where this machine has none
#
# Nothing of the machine's own ssh is used or changed: a private mount namespace has the account that sshd asks for.
set -euo pipefail
. "$(dirname "$0")/debian.sh"

program=$(PATH=$PATH:/usr/sbin command -v sshd || true)
if [ -z "$program" ]; then
    program=$OUT/sshd/usr/sbin/sshd
    # Two tests may want it at the same time.
    exec 8>"$OUT/sshd.lock"
    flock 8
    if [ ! -x "$program" ]; then
        is_debian || fail "Install openssh-server."
        say "fetching openssh-server"
        fetch_packages "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$OUT/sshd.part" openssh-server libwrap0
        mv "$OUT/sshd.part" "$OUT/sshd"
    fi
    exec 8>&-
    export LD_LIBRARY_PATH=$OUT/sshd/usr/lib/$(uname -m)-linux-gnu
fi
[ $# = 1 ] || exit 0
config=$1
mkdir -p /run/sshd
grep -v '^sshd:' /etc/passwd >"$config.passwd"
echo 'sshd:x:105:65534::/run/sshd:/usr/sbin/nologin' >>"$config.passwd"
# Only root, with no password and not locked: sshd lets no locked account in, and no hash of this machine is copied.
(umask 077 && echo 'root:x:1::::::' >"$config.shadow")
exec unshare --mount sh -c '
    mount --bind "$2.passwd" /etc/passwd && mount --bind "$2.shadow" /etc/shadow && exec "$1" -D -e -f "$2"' sh "$program" "$config"
