# Configurations that are wrong, by mistake or on purpose: an error with line, key, value and what is allowed, in little memory and time.
load helper

setup() {
    cd "$BATS_TEST_TMPDIR"
    DAEMON_LOG=/dev/null
}

# refuses FILE TEXT...: exit 2 within 5 s and 200 MB of address space, and the message has each TEXT.
refuses() {
    local file=$1 text
    shift
    run bash -c 'ulimit -v 200000; exec timeout 5 "$0" config check "$1"' "$BUILD/warmpoold" "$file"
    [ "$status" = 2 ] || { echo "$file: exit $status: $output"; return 1; }
    [ ${#output} -lt 2000 ]
    for text in "$@"; do
        [[ "$output" == *"$text"* ]] || { echo "$file: no \"$text\" in: $output"; return 1; }
    done
}

accepts() {
    run bash -c 'ulimit -v 200000; exec timeout 5 "$0" config check "$1"' "$BUILD/warmpoold" "$1"
    [ "$status" = 0 ] || { echo "$1: exit $status: $output"; return 1; }
    [[ "$output" == *"$1: OK, $2"* ]] || { echo "$output"; return 1; }
}

# written TEXT: to the file f, as printf has it.
written() { printf "$1" >f; } # shellcheck disable=SC2059

times() { # N TEXT
    head -c "$1" /dev/zero | sed "s|\x00|$2|g"
}

@test "sizes and thresholds that contradict each other" {
    written 'scaleUpThreshold: 20\nscaleDownThreshold: 80\n'
    refuses f f:2: 'scaleDownThreshold (80)' 'below scaleUpThreshold (20)'
    written 'minPoolSize: 5\nmaxPoolSize: 4\n'
    refuses f f:1: 'minPoolSize (5)' 'maxPoolSize (4)' allowed
    written 'poolSize: 0\n'
    refuses f f:1: 'poolSize: "0"' 'allowed: a whole number 1 to 1000'
    written 'agentConfigs:\n  coder:\n    maxContainerAge: -5m\n'
    refuses f f:3: 'agentConfigs.coder.maxContainerAge: "-5m"' 'allowed: a time'
}

@test "memory: of one container more than the host has is an error, of the warm ones together a warning" {
    mib=$(($(getconf _PHYS_PAGES) * $(getconf PAGESIZE) >> 20))
    written "memory: $((mib + 1))m\n"
    refuses f f:1: "memory ($((mib + 1)) MiB) is more than this host has ($mib MiB)" "allowed: 6m to ${mib}m"
    written "warmupAgentTypes: [mine]\nmemory: $((mib / 2 + 1))m\npoolSize: 2\n"
    accepts f '3 keys, 1 warning'
    [[ "$output" == *"2 containers that are warm from the start may take"*"this host has $mib MiB"* ]]
    # The engine is elsewhere: who knows.
    written "dockerHost: tcp://192.0.2.1:2375\nmemory: $((mib + 1))m\n"
    accepts f '2 keys, 0 warnings'
}

@test "keys twice, at the top, in a type, under two names" {
    written 'poolSize: 3\n\npoolSize: 3\n'
    refuses f f:3: 'poolSize: given twice' 'line 1'
    written 'agentConfigs:\n  coder: {memory: 1g}\n  coder: {memory: 1g}\n'
    refuses f f:3: 'coder: given twice'
    written 'agentConfigs:\n  coder:\n    image: a\n    dockerImage: b\n'
    refuses f f:4: 'image and dockerImage are both given'
}

@test "tabs, other line ends, a byte order mark" {
    written 'agentConfigs:\n\tcoder:\n'
    refuses f f:2: 'tab character'
    written 'poolSize: 3\r\nagentConfigs:\r\n  coder:\r\n    memory: 1g\r\n'
    accepts f '2 keys'
    written '\xef\xbb\xbfpoolSize: 3\n'
    accepts f '1 key'
    written '\xff\xfep\x00'
    refuses f f:1: UTF-16
    written 'poolSize: 3\r\nmemory: 1x\r\n'
    refuses f f:2: 'memory: "1x"'
}

@test "bytes that are no text: NUL, invalid UTF-8, control characters" {
    printf 'poolSize: 3\nuser: "a\0b"\n' >f
    refuses f f:2: 'NUL byte'
    printf 'poolSize: 3\n\0\nminPoolSize: 0\n' >f
    refuses f f:2: 'NUL byte'
    printf 'user: "a\\0b"\n' >f
    refuses f f:1: NUL
    printf 'poolSize: 3\n# b\xe4r\n' >f
    refuses f f:2: 0xe4 UTF-8
    printf 'user: \xc0\x80\n' >f
    refuses f f:1: UTF-8
    printf 'user: a\x1b[2Jb\n' >f
    refuses f f:1: 'control character (0x1b)'
    printf '"po\\x1b[31mol": 3\n' >f
    refuses f f:1: 'po?[31mol'
    [[ "$output" != *$'\x1b'* ]]
    head -c 100000 /dev/urandom >f
    refuses f f:
}

@test "anchors, aliases, merge keys, tags, directives, other documents" {
    written 'memory: &m 1g\n'
    refuses f f:1: 'an anchor'
    written 'memory: *m\n'
    refuses f f:1: 'an alias'
    written 'agentConfigs:\n  coder:\n    <<: {memory: 1g}\n'
    refuses f f:3: 'a merge key'
    written 'poolSize: !!int 3\n'
    refuses f f:1: 'a tag'
    written '%%YAML 1.2\n---\npoolSize: 3\n'
    refuses f f:1: directive
    written 'poolSize: 3\n---\npoolSize: 4\n'
    refuses f f:3: 'a second document'
    printf -- '---\npoolSize: 3\n...\n' >f
    accepts f '1 key'
}

@test "bombs: laughs, depth, length, numbers of things" {
    {
        echo 'a0: &a0 [lol, lol]'
        for i in 1 2 3 4 5 6 7 8 9; do echo "a$i: &a$i [*a$((i - 1)), *a$((i - 1)), *a$((i - 1)), *a$((i - 1)), *a$((i - 1))]"; done
    } >f
    refuses f f:1: anchor
    { printf 'a: ' && times 200000 '['; } >f
    refuses f f:1: 'more than 8 levels'
    { printf 'a: ' && times 100000 '{a: '; } >f
    refuses f f:1: 'more than 8 levels'
    times 300000 '- ' >f
    refuses f f:1: 'more than 8 levels'
    { printf 'a: [' && times 200000 'a,'; } >f
    refuses f f:1: 'more than 20000 nodes'
    times 100000 % >f
    refuses f f:1: directive
    times 200000 '\&a ' >f
    refuses f f:1:
    times 200000 '? ' >f
    refuses f f:1:
    { printf 'user: "' && times 500000 x && echo '"'; } >f
    refuses f f:1: 'a text of 500000 bytes' 'at most 131072'
    times 10000000 '#' >f
    refuses f 'larger than what is allowed, 1048576 bytes'
    { echo environment: && seq -f '  K%g: v' 9000; } >f
    refuses f f: 'environment: a mapping' 'at most 100'
    { echo agentConfigs: && seq -f '  t%g: {}' 5000; } >f
    refuses f 'too many agent types'
}

@test "what is no file" {
    mkdir d
    refuses d 'is a directory' 'allowed: a file'
    refuses nothing 'No such file'
    mkfifo p
    run timeout 20 "$BUILD/warmpoold" config check p
    [ "$status" = 2 ] && [[ "$output" == *"nothing came out"* ]]
    accepts /dev/null '0 keys'
    run "$BUILD/warmpoold" config check <(echo 'poolSize: 3')
    [ "$status" = 0 ] && [[ "$output" == *"OK, 1 key, 0 warnings"* ]]
    written 'poolSize: 3\n'
    chmod 000 f
    if [ "$(id -u)" = 0 ]; then # who may read everything, but not here
        chown 65534 f
        run setpriv --reuid 65533 --clear-groups "$BUILD/warmpoold" config check "$PWD/f"
    else
        run "$BUILD/warmpoold" config check f
    fi
    [ "$status" = 2 ] && [[ "$output" == *"Permission denied"* ]]
}

@test "check tells all that is wrong, once" {
    written 'poolSize: 0\nmemmory: 1g\nagentConfigs:\n  coder:\n    cpus: many\n'
    refuses f 'f:1: poolSize: "0"' 'f:2: memmory: unknown key; did you mean memory?' 'f:5: agentConfigs.coder.cpus: "many"' '3 errors'
    written 'minPoolSize: 5\nmaxPoolSize: 4\n'
    refuses f minPoolSize
    [ "$(grep -c minPoolSize <<<"$output")" = 1 ]
}

@test "show tells where each value comes from" {
    written 'maxQueue: 3\nagentConfigs:\n  coder:\n    memory: 1g\n'
    shown=$(WARMPOOL_LEASE_TTL=5s "$BUILD/warmpoold" config show --config f --set logLevel=debug)
    grep -qx 'maxQueue: 3  # f:1' <<<"$shown"
    grep -qx 'logLevel: debug  # --set' <<<"$shown"
    grep -qx 'leaseTtl: 5000ms  # WARMPOOL_LEASE_TTL' <<<"$shown"
    grep -qx 'poolSize: 2  # default' <<<"$shown"
    grep -qx '    memory: 1073741824  # f:4' <<<"$shown"
    grep -qx '    cpus: 1.000  # built in' <<<"$shown"
}

@test "a host's directory keeps its files, though it is mounted inside of what each reset empties" {
    # By volumeMounts alone that is refused; an image's VOLUME only shows when a container is made.
    mkdir -m 777 outer root root/bin root/data root/tmp
    echo precious >outer/file
    chmod 666 outer/file
    cp /bin/busybox root/bin/busybox && ln -s busybox root/bin/sh && ln -s busybox root/bin/ls && ln -s busybox root/bin/touch
    tar c -C root . | docker import --change 'VOLUME /data' - wp-config-volume:1 >/dev/null
    daemon_start agentConfigs.coder.image=wp-config-volume:1 "agentConfigs.coder.volumeMounts=$PWD/outer:/data/inner:rw" networkMode=none
    wp_run coder -- sh -c 'ls /data/inner; touch /data/x /data/inner/new' >out || true
    eventually 10 pool_settles coder 1
    wp_run coder -- sh -c 'ls /data' >later || true
    daemon_finish
    docker rmi -f wp-config-volume:1 >/dev/null
    cat out later
    [ "$(cat outer/file)" = precious ]
    [ -e outer/new ]
    [ "$(cat out)" = file ]
    [ "$(cat later)" = inner ]
}
