# What the scripts share; sourced, never run. Sets ROOT (the source tree) and TARGET (where cargo and these scripts build).

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
PATH=$PATH:/usr/sbin:/sbin # where Debian has some of what any user may run

say() { printf '\033[1m%s\033[0m\n' "$*"; }
warn() { printf '\033[1;33m%s\033[0m\n' "$*" >&2; }
die() {
    printf '\033[1;31m%s\033[0m\n' "$*" >&2
    exit 1
}

# Runs a command whose output matters only if it fails.
quietly() {
    local log
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        die "failed: $*"
    fi
    rm -f "$log"
}

# apt with lists of our own: Debian's sources as this machine names them, and the backports of the same mirror. The machine's own
# configuration stays as it is, and sources that are not Debian's are left out, so that a broken one can't stand in the way.
APT=$TARGET/apt
apt_prepare() {
    command -v apt-get >/dev/null || die "this is not Debian: install by hand what scripts/setup lists, then run this again"
    local list=$APT/sources.list sources codename key=/usr/share/keyrings/debian-archive-keyring.gpg
    APT_OPTIONS=(-o "Dir::Etc::SourceList=$list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$APT/lists" -o "Dir::Cache=$APT/cache"
        -o APT::Sandbox::User= -o DPkg::Lock::Timeout=300)
    if [ -n "$(find "$APT/updated" -mtime -1 2>/dev/null)" ]; then return; fi

    # Asked of apt itself, which reads both forms of source files. The origin is known once the lists were fetched.
    debian_sources() {
        apt-get indextargets --format 'deb [signed-by=KEY] $(REPO_URI) $(RELEASE) $(COMPONENT)' \
            'Created-By: Packages' 'Origin: Debian' 'Component: main' | sed "s|KEY|$key|" | sort -u
    }
    sources=$(debian_sources)
    if [ -z "$sources" ]; then
        [ "$(id -u)" = 0 ] || die "apt has no package lists yet: run 'apt-get update' as root, then this again"
        apt-get update -qq >/dev/null 2>&1 || true # another source may fail; what matters is whether Debian's are there now
        sources=$(debian_sources)
        [ -n "$sources" ] || die "apt finds no Debian package lists: run 'apt-get update' and see what it says"
    fi
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    mkdir -p "$APT/lists/partial" "$APT/cache/archives/partial"
    {
        echo "$sources"
        echo "$sources" | sed -n "s| $codename main$| $codename-backports main|p"
    } | sort -u >"$list"
    quietly apt-get "${APT_OPTIONS[@]}" update -qq
    touch "$APT/updated"
}

# apt_download DIR PACKAGE...: fetches packages into a directory without installing them. apt checks their signatures.
apt_download() {
    local dir=$1
    shift
    apt_prepare
    (cd "$dir" && quietly apt-get "${APT_OPTIONS[@]}" download "$@")
}

# apt_install [apt-get option]... PACKAGE...: installs without a question, and without starting a service. A subshell, for its trap.
apt_install() (
    apt_prepare
    policy=/usr/sbin/policy-rc.d # Debian asks this program before it starts a service
    if [ ! -e $policy ]; then
        trap 'rm -f $policy' EXIT
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
    fi
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get "${APT_OPTIONS[@]}" install -y --no-install-recommends "$@"
)
