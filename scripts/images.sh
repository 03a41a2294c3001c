#!/bin/bash
# Images of every kind for the tests: warmpool-test-NAME:1, each with the probe of tests/images/probe.c at /probe. What is there
# and was made by this recipe is left alone.
#
#     scripts/images.sh NAME...      scratch busybox debian tmp0755 nopasswd own volume etcvolume volumes9 upvolume symlinks armv
#     scripts/images.sh example      warmpool-example:1, a Debian with the tools that `make example` uses
#     scripts/images.sh --remove     all of them
set -eu -o pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
label=io.warmpool.test-image
recipe=$(cat "$0" "$here/tests/images/probe.c" "$here/scripts/debian-tar.sh" | cksum | cut -d ' ' -f 1)

if [ "${1:-}" = --remove ]; then
    docker images -q --filter "label=$label" | sort -u | xargs -r docker rmi -f >/dev/null
    exit 0
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/warmpool-images-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
root=$work/root
native=$(docker version --format "{{.Server.Arch}}")

probe() {
    [ -e "$work/probe" ] || musl-gcc -std=c17 -Os -static -s -o "$work/probe" "$here/tests/images/probe.c"
    install -m 755 "$work/probe" "$root/probe"
}

# An image without the directories that an engine mounts over would tell nothing about warmpool: busybox and what stands on
# it have them, "scratch" is the one without.
busybox() {
    mkdir -p "$root"/{bin,dev,etc,proc,sys,var/tmp} "$root/tmp" "$root/workspace"
    chmod 1777 "$root/tmp" "$root/workspace" "$root/var/tmp"
    install -m 755 "$(type -P busybox)" "$root/bin/busybox"
    local applet
    for applet in sh cat echo env id ls mkdir pwd rm sleep stat touch true wc; do
        ln -s busybox "$root/bin/$applet"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
}

image_scratch() { :; }
image_busybox() { busybox; }
image_tmp0755() {
    busybox
    chmod 0755 "$root/tmp" "$root/workspace"
}
image_nopasswd() {
    busybox
    rm -r "$root/etc"
}
image_own() { # everything that an image can say about how it wants to be started
    busybox
    mkdir -p "$root/opt/bin" "$root/srv/app"
    echo 'the image'\''s own file' >"$root/srv/app/file"
    printf '#!/bin/sh\necho a tool in /opt/bin\n' >"$root/opt/bin/tool"
    chmod 755 "$root/opt/bin/tool"
    echo 'nobody:x:65534:65534:nobody:/:/bin/false' >>"$root/etc/passwd"
    config='"Entrypoint": ["/bin/false"], "Cmd": ["--never", "seen"], "User": "nobody", "WorkingDir": "/srv/app",
        "Env": ["PATH=/opt/bin:/bin", "GREETING=hello", "HOME=/opt", "NODE_ENV=testing"], "ExposedPorts": {"8080/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "/bin/false"], "Interval": 1000000000, "Retries": 1}, "StopSignal": "SIGKILL",'
    labels='"io.warmpool.instance": "another", "io.warmpool.type": "another", "maintainer": "somebody",'
}
image_volume() {
    busybox
    mkdir -p "$root/data"
    chmod 1777 "$root/data"
    echo 'from the image' >"$root/data/seed"
    config='"Volumes": {"/data": {}, "/workspace/cache/": {}, "/tmp": {}},'
}
image_etcvolume() {
    busybox
    config='"Volumes": {"/etc/app": {}},'
}
image_volumes9() {
    busybox
    config='"Volumes": {"/1": {}, "/2": {}, "/3": {}, "/4": {}, "/5": {}, "/6": {}, "/7": {}, "/8": {}, "/9": {}},'
}
image_upvolume() {
    busybox
    config='"Volumes": {"/data/../etc": {}},'
}
image_symlinks() {
    busybox
    rmdir "$root/tmp" "$root/workspace"
    ln -s /var/tmp "$root/tmp"
    mkdir -p "$root/usr/share"
    mv "$root/etc/passwd" "$root/usr/share/passwd"
    ln -s /usr/share/passwd "$root/etc/passwd"
}
image_armv() {
    busybox
    architecture=arm64
    [ "$native" != arm64 ] || architecture=amd64
}

# `docker import` can say neither the architecture nor STOPSIGNAL: an image as `docker save` writes it.
load() { # IMAGE LAYER.TAR
    local digest
    digest=$(sha256sum "$2" | cut -d ' ' -f 1)
    cat >"$work/config.json" <<END
{"architecture": "$architecture", "os": "linux", "config": {$config "Labels": {$labels "$label": "$recipe"}},
 "history": [{"created_by": "scripts/images.sh"}], "rootfs": {"type": "layers", "diff_ids": ["sha256:$digest"]}}
END
    echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"$1\"], \"Layers\": [\"layer.tar\"]}]" >"$work/manifest.json"
    docker rmi "$1" >/dev/null 2>&1 || true # of an older recipe
    tar --create --dereference --directory "$work" manifest.json config.json layer.tar | docker load --quiet >/dev/null
}

for name in "$@"; do
    image=warmpool-test-$name:1
    [ "$name" != example ] || image=warmpool-example:1
    [ "$(docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$image" 2>/dev/null)" != "$recipe" ] || continue
    rm -rf "$root"
    mkdir "$root"
    config='' labels='' architecture=$native
    rm -f "$work/layer.tar"
    if [ "$name" = example ]; then
        tar=$("$here/scripts/debian-tar.sh" gcc libc6-dev make python3 cppcheck)
        ln -s "$tar" "$work/layer.tar"
    elif [ "$name" = debian ]; then
        tar=$("$here/scripts/debian-tar.sh")
        cp "$tar" "$work/layer.tar"
        probe
        tar --append --file "$work/layer.tar" --directory "$root" --owner 0 --group 0 ./probe
    elif [ "$(type -t "image_$name")" = function ]; then
        "image_$name"
        probe
        tar --create --file "$work/layer.tar" --directory "$root" --owner 0 --group 0 .
    else
        echo "images: no image is named $name; look at the top of $0" >&2
        exit 2
    fi
    load "$image" "$work/layer.tar"
done
