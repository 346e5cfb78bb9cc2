#!/bin/sh
# docker-chap @VERSION@: this script, and behind it a zip archive of Python packages.

# Docker asks every plugin what it is, at each `docker --help`. The answer needs no Python.
if [ "${1-}" = docker-cli-plugin-metadata ]; then
    printf '%s\n' '@METADATA@'
    exit
fi

# Print the path of the Python that $1 names, if it is 3.10 or newer.
accept() {
    real=$(readlink -f "$(command -v "$1")" 2>/dev/null)
    case ${real##*/} in
        "${1##*/}") ;;  # not a link; a version manager's shim for nothing may have any name
        python3.1[0-9]) echo "$real" && return ;;  # what it links to says the version, and saves a start
    esac
    "$1" -I -S -c 'import sys; sys.version_info >= (3, 10) and print(sys.executable)' 2>/dev/null
}

for name in ${CHAP_PYTHON:+"$CHAP_PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
    python=$(accept "$name")
    [ -z "$python" ] || exec "$python" -I -S "$0" "$@"
done
echo "Error: docker chap needs Python 3.10 or newer and found none.
Install it (on Debian or Ubuntu: sudo apt-get install python3), or set CHAP_PYTHON to its path." >&2
exit 1
