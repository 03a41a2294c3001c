#!/bin/bash
# Files in and out beside `docker cp`, medians of three: 10,000 small files, then 1 GiB in one file. Part of `make bench`.
#
#     bench/files.sh [BUILD]
set -eu
cd "$(dirname "$0")/.."
build=$(realpath "${1:-build}")
place=$(mktemp -d "${TMPDIR:-/tmp}/warmpool-files-XXXXXX")
label=io.warmpool.bench=$(basename "$place")
image=warmpool-agent:latest
wp() { "$build/warmpool" --socket "$place/api.sock" "$@"; }

cleanup() {
    wp down --force >/dev/null 2>&1 || true
    docker ps -aq --filter "label=$label" | xargs -r docker rm -f -v >/dev/null 2>&1 || true
    rm -rf "$place"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# timed NAME COMMAND...: runs it, adds the milliseconds to the file NAME.
timed() {
    local name=$1 begun
    shift
    begun=$(date +%s%N)
    "$@" >/dev/null
    echo $((($(date +%s%N) - begun) / 1000000)) >>"$place/$name.ms"
}
median() { sort -n "$place/$1.ms" | sed -n 2p; }

# row WHAT OURS THEIRS: a line of the table, and an object of the figures.
row() {
    local what=$1 ours theirs
    ours=$(median "$2") theirs=$(median "$3")
    printf '  %-22s %10d ms %10d ms %9.1f x\n' "$what" "$ours" "$theirs" "$(jq -n "$theirs / $ours")"
    [ ! -s "$build/bench.json" ] || {
        jq --arg what "$what" --argjson ours "$ours" --argjson theirs "$theirs" \
            '. + [{variant: "files", way: $what, warmpool_ms: $ours, docker_cp_ms: $theirs}]' "$build/bench.json" \
            >"$place/figures" && cp "$place/figures" "$build/bench.json"
    }
}
digest_of() { # of a file, or of a directory's files in the order of their names
    [ ! -d "$1" ] && sha256sum <"$1" && return
    (cd "$1" && find . -type f | LC_ALL=C sort | xargs -d '\n' cat | sha256sum)
}
same() { [ "$1" = "$2" ] || { echo "bench: $3: what came back differs from what went in" >&2 && exit 1; }; }

mkdir "$place/small"
for i in $(seq 10000); do
    echo "file $i of ten thousand, $((i * i))" >"$place/small/$i.txt"
done
head -c 1073741824 /dev/urandom >"$place/big"
small=$(digest_of "$place/small") big=$(digest_of "$place/big")

# docker cp's side is a volume on the disk: it does not reach a tmpfs of a running container. Out is the difference of a task
# with both copies and one with the copy in alone.
wp up --set stateDir="$place/daemon" --set warmupAgentTypes=files --set poolSize=1 --set autoScaling=false \
    --set agentConfigs.files.cpus=2 --set agentConfigs.files.memory=6g 2>"$place/up.log" || { cat "$place/up.log" >&2 && exit 1; }
docker run -d --rm --label "$label" --network none -v /workspace "$image" sleep 3600 >"$place/container"
container=$(cat "$place/container")
daemon=$(wp status --json | jq .pid)

# measure WHAT SOURCE DIGEST: three rounds of one source, in and out, ours and docker cp's, one after the other. Nothing is removed
# before all was measured: ext4 spares inodes that were freed within the last five seconds, and looks for others one by one.
measure() {
    local what=$1 source=$2 digest=$3 round ours theirs
    for round in 1 2 3; do
        ours=$place/$what-ours-$round theirs=$place/$what-theirs-$round
        timed "$what-in" wp run files --copy-in "$source:/workspace/in" -- true
        timed "$what-docker-in" docker cp -q "$source" "$container:/workspace/$what-$round"
        timed "$what-both" wp run files --copy-in "$source:/workspace/in" --copy-out "/workspace/in:$ours" -- true
        timed "$what-docker-out" docker cp -q "$container:/workspace/$what-$round" "$theirs"
        echo $(($(tail -1 "$place/$what-both.ms") - $(tail -1 "$place/$what-in.ms"))) >>"$place/$what-out.ms"
        same "$(digest_of "$ours")" "$digest" "--copy-out"
        same "$(digest_of "$theirs")" "$digest" "docker cp"
    done
}

echo "files in and out beside docker cp, medians of three"
printf '  %-22s %13s %13s\n' "" warmpool "docker cp"
measure small "$place/small" "$small"
row "10,000 files in" small-in small-docker-in
row "10,000 files out" small-out small-docker-out
measure big "$place/big" "$big"
row "1 GiB in" big-in big-docker-in
row "1 GiB out" big-out big-docker-out
echo "  every byte came back right by sha256; the daemon's greatest resident memory: $(awk '/^VmHWM/ { print $2 }' "/proc/$daemon/status") KiB"
wp down 2>/dev/null
