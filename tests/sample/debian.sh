# Sourced by the scripts beside it: where things are, and packages of another Debian suite
# without touching the system's own sources.

SAMPLE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$SAMPLE/../.." && pwd)
OUT=$ROOT/build/out
mkdir -p "$OUT"
# The second engine's network namespace: another clone on this machine may have one too.
NEW_NETNS=docker-chap-test-new-$(printf %s "$OUT" | cksum | cut -d' ' -f1)

say() { printf '%s\n' "sample: $*" >&2; }
fail() { printf '%s\n' "sample: $*" >&2; exit 1; }
is_debian() { [ -r /etc/debian_version ] && command -v apt-get >/dev/null; }

# The mirror that DEBIAN_MIRROR names, else the one this machine already uses for Debian.
debian_mirror() {
    local site=${DEBIAN_MIRROR:-}
    [ -n "$site" ] || site=$(apt-get indextargets --format '$(SITE)' 'Identifier: Packages' 2>/dev/null | grep -m1 -E '/debian/?$' || true)
    [ -n "$site" ] || fail "This machine knows no Debian mirror. Name one: DEBIAN_MIRROR=URL make demo"
    printf '%s\n' "$site"
}

suite_source() {
    local key=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r $key ] || fail "Install debian-archive-keyring first."
    printf 'deb [signed-by=%s] %s %s main\n' $key "$(debian_mirror)" "$1"
}

# fetch_packages SUITE FOLDER PACKAGE...: download the packages and unpack them into FOLDER.
fetch_packages() {
    local suite=$1 folder=$2 apt=$OUT/apt/$1 deb
    shift 2
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/debs" "$folder"
    suite_source "$suite" >"$apt/sources.list"
    local options=(-qq -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$apt/lists"
        -o "Dir::Cache=$apt" -o APT::Sandbox::User=root -o Acquire::Retries=3)
    if [ -z "$(find "$apt/fresh" -mmin -60 2>/dev/null)" ]; then
        # By itself apt counts a mirror that does not answer as done.
        apt-get "${options[@]}" -o APT::Update::Error-Mode=any update >&2
        touch "$apt/fresh"
    fi
    (cd "$apt/debs" && rm -f ./*.deb && apt-get "${options[@]}" download "$@" >&2)
    for deb in "$apt"/debs/*.deb; do
        dpkg-deb -x "$deb" "$folder"
    done
    rm -f "$apt"/debs/*.deb
}
