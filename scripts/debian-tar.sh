#!/bin/sh
# Makes the root file system of a small Debian as a tar, of the suite and from the mirror that this machine's apt uses, and
# prints its path. It is kept in $WARMPOOL_IMAGE_CACHE, or ~/.cache/warmpool: the second time costs nothing.
#
#     scripts/debian-tar.sh [PACKAGE...]
set -eu

cache=${WARMPOOL_IMAGE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/warmpool}
packages=$(echo "$*" | tr ' ' ',')
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
recipe=$(cksum <"$0" | cut -d ' ' -f 1)-$(echo "$suite $packages" | cksum | cut -d ' ' -f 1)
tar=$cache/debian-$suite-$recipe.tar
if [ ! -s "$tar" ]; then
    mkdir -p "$cache"
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
        awk -v suite="$suite" '$2 == suite && $3 == "main" { print $1; exit }')
    [ -n "$mirror" ] || mirror=http://deb.debian.org/debian
    part=$(mktemp "$cache/part-XXXXXX")
    trap 'rm -f "$part"' EXIT
    trap 'exit 130' INT TERM
    echo "debian-tar: $suite from $mirror${packages:+ with $packages}; once, then it is kept in $cache" >&2
    # Nobody reads manuals in a container. The image's size is what the engine takes time to unpack.
    if ! mmdebstrap --variant=minbase --format=tar ${packages:+"--include=$packages"} \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --aptopt='APT::Install-Recommends "false"' \
        "$suite" - "deb $mirror $suite main" >"$part" 2>"$part.log"; then
        tail -n 20 "$part.log" >&2
        rm -f "$part.log"
        echo "debian-tar: mmdebstrap failed; what it said stands above" >&2
        exit 1
    fi
    rm -f "$part.log"
    rm -f "$cache/debian-$suite-"*"-${recipe#*-}.tar" # by an older version of this script
    chmod 644 "$part"
    mv "$part" "$tar"
fi
echo "$tar"
