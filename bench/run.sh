#!/bin/bash
# `make bench`: one run, one machine, all ways beside each other. Everything that is printed was measured here; nothing is left behind.
#
#     bench/run.sh [BUILD]
set -eu
cd "$(dirname "$0")/.."
build=$(realpath "${1:-build}")
place=$(mktemp -d "${TMPDIR:-/tmp}/warmpool-bench-XXXXXX")
label=io.warmpool.bench=$(basename "$place")
image=warmpool-agent:latest
wp() { "$build/warmpool" --socket "$place/api.sock" "$@"; }

# record FILTER A B ...: adds an object to the figures.
record() {
    local filter=$1 a=$2 b=$3 c=$4 d=$5
    jq --arg a "$a" --arg b "$b" --arg c "$c" --arg d "$d" ". + [$filter]" "$build/bench.json" >"$place/figures" &&
        cp "$place/figures" "$build/bench.json"
}

cleanup() {
    wp down --force >/dev/null 2>&1 || true
    "$build/warmpool" --socket "$place/attach.sock" down --force >/dev/null 2>&1 || true
    docker ps -aq --filter "label=$label" | xargs -r docker rm -f >/dev/null 2>&1 || true
    rm -rf "$place"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

echo "machine: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores, Linux $(uname -r)," \
    "Docker $(docker version --format '{{.Server.Version}}'), $(date -u +%F)"
echo "the agent type of the benchmark has cpus: 2, so that the CPU quota does not slow a loop of tasks down"

mkdir -p "$place/bin" "$place/state"
cp "$build/bench/tiny" "$place/bin/tiny"
cp /bin/busybox "$place/bin/busybox"
wp up --set stateDir="$place/daemon" --set warmupAgentTypes=bench --set agentConfigs.bench.cpus=2 \
    --set "volumeMounts=$place/bin:/bench" --set autoScaling=false 2>/dev/null
docker run -d --rm --label "$label" --network none -v "$place/bin:/bench:ro" "$image" sleep 3600 >"$place/container"

BENCH_DIR=$place/bin BENCH_STATE=$place/state BENCH_SOCKET=$place/api.sock BENCH_CLI=$build/warmpool \
    BENCH_CONTAINER=$(cat "$place/container") BENCH_IMAGE=$image "$build/bench/bench" "$build/bench.json"

echo
echo "100 MB of output, every line different"
daemon=$(wp status --json | sed 's/.*"pid":\([0-9]*\).*/\1/')
private() { awk '/^Private_Dirty/ { sum += $2 } END { print sum }' "/proc/$daemon/smaps_rollup" 2>/dev/null; }
sample() { # the daemon's greatest private memory, KiB, into the file peak
    local peak=0 now
    while sleep 0.02; do
        now=$(private) || break
        [ "${now:-0}" -le "$peak" ] || { peak=$now && echo "$peak" >"$place/peak"; }
    done
}
script='seq 1 12500000 | head -c 100000000'
through_cli() { wp run bench -- sh -c "$script"; }
through_api() {
    jq -cn --arg script "$script" '{agentType: "bench", command: ["sh", "-c", $script]}' |
        curl -s -N --unix-socket "$place/api.sock" -H 'Accept: application/x-ndjson' --data-binary @- http://bench/v1/tasks |
        jq -j 'select(.type == "stdout") | .data'
}
here=$(sh -c "$script" | sha256sum)
for way in cli api; do
    sample &
    sampler=$!
    begun=$(date +%s%N)
    there=$(through_$way | sha256sum)
    took=$((($(date +%s%N) - begun) / 1000000))
    kill $sampler 2>/dev/null || true
    wait $sampler 2>/dev/null || true
    [ "$there" = "$here" ] && right=true || right=false
    case $way in cli) name="warmpool run" ;; api) name="API, events" ;; esac
    printf '  %-14s sha256 %s, %d ms, the daemon'"'"'s private memory at most %d KiB\n' "$name" \
        "$([ $right = true ] && echo "is right" || echo "IS WRONG")" $took "$(cat "$place/peak")"
    record '{variant: "100 MB", way: $a, sha256_right: ($b == "true"), ms: ($c | tonumber), daemon_peak_kib: ($d | tonumber)}' \
        "$name" $right $took "$(cat "$place/peak")"
done

echo
echo "1 GiB of zeros in pieces of 64 KiB, to /dev/null"
attached() { "$build/warmpool" --socket "$place/attach.sock" "$@"; }
attached up --set stateDir="$place/attached" --set warmupAgentTypes=bench --set agentConfigs.bench.cpus=2 --set transport=attach \
    --set autoScaling=false 2>/dev/null
flood='dd if=/dev/zero bs=64k count=16000 2>/dev/null'
through_socket() { wp run bench -- sh -c "$flood"; }
through_attach() { attached run bench -- sh -c "$flood"; }
through_exec() { docker exec "$(cat "$place/container")" sh -c "$flood"; }
for round in 1 2 3; do
    for way in socket attach exec; do
        begun=$(date +%s%N)
        through_$way >/dev/null
        echo $((1048576000000 / ($(date +%s%N) - begun))) >>"$place/rate-$way"
    done
done
exec_rate=$(sort -n "$place/rate-exec" | sed -n 2p)
for way in socket attach exec; do
    rate=$(sort -n "$place/rate-$way" | sed -n 2p) # MB/s, the median of three
    case $way in socket) name="warmpool run, socket" ;; attach) name="warmpool run, attach" ;; exec) name="docker exec" ;; esac
    printf '  %-22s %6d MB/s  %5.1f x docker exec\n' "$name" "$rate" "$(jq -n "$rate / $exec_rate")"
    record '{variant: "output", way: $a, mb_per_s: ($b | tonumber), times_docker_exec: ($c | tonumber)}' "$name" "$rate" \
        "$(jq -n "$rate / $exec_rate")" ""
done
attached down 2>/dev/null
wp down 2>/dev/null

if [ -x bench/files.sh ]; then
    echo
    bench/files.sh "$build"
fi

echo
echo "memory by pool size (five agent types), and what waiting costs"
printf '%-26s %14s %14s %14s %12s\n' "" "containers" "daemon KiB" "runner KiB" "idle CPU"
for size in 1 2; do
    wp up --set stateDir="$place/daemon" --set poolSize=$size --set autoScaling=false 2>/dev/null
    daemon=$(wp status --json | sed 's/.*"pid":\([0-9]*\).*/\1/')
    runner=$(wp ps --json | sed 's/.*"pid":\([0-9]*\).*/\1/')
    wp run coder -- true
    before=$(awk '{ print $14 + $15 }' "/proc/$daemon/stat")
    sleep 10
    ticks=$(($(awk '{ print $14 + $15 }' "/proc/$daemon/stat") - before))
    idle=$(awk -v t=$ticks -v hz="$(getconf CLK_TCK)" 'BEGIN { printf "%.2f", 100 * t / hz / 10 }')
    memory=$(private) resident=$(awk '/^VmRSS/ { print $2 }' "/proc/$runner/status")
    printf '%-26s %14s %14s %14s %11s%%\n' "5 types x $size" $((5 * size)) "$memory" "$resident" "$idle"
    record '{variant: "memory", containers: ($a | tonumber), daemon_kib: ($b | tonumber), runner_kib: ($c | tonumber),
        idle_cpu_percent: ($d | tonumber)}' $((5 * size)) "$memory" "$resident" "$idle"
    wp down 2>/dev/null
done
echo
echo "the same figures: $build/bench.json"
