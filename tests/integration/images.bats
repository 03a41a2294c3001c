# Images of every kind serve tasks, and what an image says about how it wants to be started means what docs/IMAGES.md says.
load helper

setup_file() {
    local types=(scratch busybox debian tmp0755 nopasswd own volume symlinks) settings=() type
    local refused=(etcvolume volumes9 upvolume armv)
    "$ROOT/scripts/images.sh" "${types[@]}" "${refused[@]}"
    for type in "${types[@]}" "${refused[@]}"; do settings+=("agentConfigs.$type.image=warmpool-test-$type:1"); done
    daemon_start "warmupAgentTypes=$(IFS=, && echo "${types[*]}")" "${settings[@]}" \
        agentConfigs.own.environment=FROM_PROFILE=yes agentConfigs.volume.tmpfsLimits=/data=1m \
        agentConfigs.writable.image=warmpool-test-busybox:1 agentConfigs.writable.readOnlyRootFs=false \
        agentConfigs.named.image=warmpool-test-own:1 agentConfigs.named.user=nobody
    TRANSPORT_USED=$(api GET /v1/status | jq -r .engine.transport)
    export TRANSPORT_USED
}
teardown_file() { daemon_finish; }
teardown() { audit; }

inspect() { # TYPE FORMAT: of its one container
    docker inspect --format "$2" "$(docker ps -q --filter "label=$LABEL=$INSTANCE" --filter "label=io.warmpool.type=$1")"
}

passwd_line() { # what a task of TYPE finds of itself in /etc/passwd
    wp_run "$1" -- /probe read /etc/passwd | grep -c '^swarm:' || true
}

# What holds whatever the image is made of.
serves() {
    local type=$1 uid first second
    uid=$(inspect "$type" '{{.Config.User}}')
    [ "${uid%:*}" -ge 2000000000 ]
    run -7 --separate-stderr wp_run "$type" -- /probe id cwd mode /tmp mode /workspace mode /dev/shm \
        variable HOME variable USER variable LOGNAME variable TMPDIR variable AGENT_TYPE echo 'to  stdout' error 'to stderr' \
        exit 7
    [ "$output" = "$uid
/workspace
1777 0:0
1777 0:0
1777 0:0
/workspace
swarm
swarm
/tmp
$type
to  stdout" ]
    [ "$stderr" = 'to stderr' ]
    [ "$(printf 'in and out' | warmpool run "$type" -i -- /probe read /dev/stdin)" = 'in and out' ]
    run -127 wp_run "$type" -- no-such-program
    # The image's own files cannot be changed, the writable places can, and the next task finds nothing there.
    run -0 wp_run "$type" -- /probe write /here
    [[ $output == '! /here: Read-only file system' ]]
    eventually 5 pool_settles "$type" 1
    first=$(wp_run "$type" --json -- /probe write /tmp/x write /workspace/x write /dev/shm/x)
    [ "$(jq -r .output <<<"$first")" = $'written\nwritten\nwritten' ]
    eventually 5 pool_settles "$type" 1
    second=$(wp_run "$type" --json -- /probe read /tmp/x read /workspace/x read /dev/shm/x list /tmp list /dev/shm)
    [ "$(jq -r .metadata.containerId <<<"$first")" = "$(jq -r .metadata.containerId <<<"$second")" ]
    [ "$(jq -r .output <<<"$second")" = '! /tmp/x: No such file or directory
! /workspace/x: No such file or directory
! /dev/shm/x: No such file or directory
0
0' ]
}

@test "from scratch: one static program, no directory besides" { serves scratch; }
@test "busybox" { serves busybox; }
@test "Debian" { serves debian; }
@test "/tmp and /workspace are 0755 and root's in the image" { serves tmp0755; }
@test "no /etc at all" { serves nopasswd; }
@test "/tmp and /etc/passwd are links, /workspace is absent" { serves symlinks; }
@test "ENTRYPOINT, CMD, USER, ENV, WORKDIR and more" { serves own; }
@test "VOLUMEs" { serves volume; }

@test "over the socket each knows its uid by name, over the attach stream as the image has it" {
    for type in scratch busybox debian nopasswd symlinks own; do
        if [ "$TRANSPORT_USED" = socket ]; then
            [ "$(passwd_line $type)" = 1 ]
        else
            [ "$(passwd_line $type)" = 0 ]
        fi
    done
    [ "$TRANSPORT_USED" = attach ] || [ "$(wp_run debian -- id -un)" = swarm ]
    [ "$TRANSPORT_USED" = attach ] || [ "$(wp_run debian -- perl -e 'print((getpwuid($<))[7])')" = /workspace ]
}

@test "a container without /proc, /sys and /dev in its image has them" {
    [ "$(wp_run scratch -- /probe read /proc/self/comm mode /dev/null mode /sys mode /etc/hosts mode /etc/resolv.conf)" = 'probe
666 0:0
555 0:0
644 0:0
644 0:0' ]
}

@test "a link is emptied where it leads" {
    [ "$(wp_run symlinks -- /probe write /tmp/x list /var/tmp mode /var/tmp)" = $'written\n1\n1777 0:0' ]
    eventually 5 pool_settles symlinks 1
    [ "$(wp_run symlinks -- /probe list /var/tmp)" = 0 ]
}

@test "readOnlyRootFs false: the image's writable places take files, and the next task finds none" {
    first=$(wp_run writable --json -- /probe write /var/tmp/x)
    second=$(wp_run writable --json -- /probe list /var/tmp)
    [ "$(jq -r .output <<<"$first")" = written ]
    [ "$(jq -r .output <<<"$second")" = 0 ]
    [ "$(jq -r .metadata.containerId <<<"$first")" != "$(jq -r .metadata.containerId <<<"$second")" ]
}

@test "ENTRYPOINT and CMD are not run" {
    # Both would have ended the container, or shown as its processes' arguments.
    [ "$(inspect own '{{json .Config.Cmd}} {{index .Config.Entrypoint 0}}')" = 'null /.warmpool/runner' ] ||
        [ "$(inspect own '{{json .Config.Cmd}} {{index .Config.Entrypoint 0}}')" = '[] /.warmpool/runner' ]
    [ "$(wp_run own -- sh -c 'echo "$#"; cat /proc/1/comm')" = $'0\nrunner' ]
}

@test "USER gives way to the container's own uid; a user of the image's is named in the profile" {
    [ "$(wp_run own -- sh -c 'id -u')" -ge 2000000000 ]
    [ "$(wp_run named -- /probe id)" = 65534:65534 ]
    [ "$(wp_run named -- id -un)" = nobody ]
}

@test "ENV: the image's below warmpool's, below the profile's, below the task's" {
    run -0 wp_run own -- /probe variable GREETING variable FROM_PROFILE variable NODE_ENV variable HOME
    [ "$output" = $'hello\nyes\nproduction\n/workspace' ]
    run -0 wp_run own -e GREETING=task -e NODE_ENV=task -e HOME=/tmp -- /probe variable GREETING variable NODE_ENV variable HOME
    [ "$output" = $'task\ntask\n/tmp' ]
}

@test "PATH is the image's, and programs are looked up on it" {
    [ "$(wp_run own -- tool)" = 'a tool in /opt/bin' ]
    [ "$(wp_run own -- /probe variable PATH)" = /opt/bin:/bin ]
    [ "$(wp_run scratch -- /probe variable PATH)" = /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ]
    run -127 wp_run own -e PATH=/bin -- tool
}

@test "WORKDIR is there for --workdir; a task begins in /workspace" {
    [ "$(wp_run own -- /probe cwd)" = /workspace ]
    [ "$(wp_run own --workdir /srv/app -- /probe cwd read file)" = $'/srv/app\nthe image\'s own file' ]
}

@test "EXPOSE publishes nothing" {
    [ "$(inspect own '{{json .HostConfig.PortBindings}} {{.HostConfig.PublishAllPorts}}')" = 'null false' ] ||
        [ "$(inspect own '{{json .HostConfig.PortBindings}} {{.HostConfig.PublishAllPorts}}')" = '{} false' ]
    [ "$(inspect own '{{range .NetworkSettings.Ports}}{{range .}}{{.HostPort}}{{end}}{{end}}')" = '' ]
}

@test "HEALTHCHECK is switched off: the runner is asked instead" {
    # The image's fails at once and once a second; a container that has a check shows its state from the start on.
    [ "$(inspect own '{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}')" = none ]
}

@test "LABELs are kept, but warmpool's own are warmpool's" {
    [ "$(inspect own '{{.Config.Labels.maintainer}}')" = somebody ]
    [ "$(inspect own '{{index .Config.Labels "io.warmpool.instance"}} {{index .Config.Labels "io.warmpool.type"}}')" = "$INSTANCE own" ]
}

@test "STOPSIGNAL does not reach tasks: they end by SIGTERM first" {
    run -124 wp_run own --timeout 300ms -- sh -c 'trap "echo told; exit 3" TERM; while :; do sleep 0.05; done'
    [[ $output == *told* ]]
}

@test "VOLUMEs are empty, writable, bounded, and emptied between tasks" {
    first=$(wp_run volume --json -- /probe list /data mode /data mode /workspace/cache write /data/x write /workspace/cache/x)
    [ "$(jq -r .output <<<"$first")" = $'0\n1777 0:0\n1777 0:0\nwritten\nwritten' ]
    eventually 5 pool_settles volume 1
    second=$(wp_run volume --json -- /probe list /data list /workspace/cache read /data/x)
    [ "$(jq -r .output <<<"$second")" = $'0\n0\n! /data/x: No such file or directory' ]
    [ "$(jq -r .metadata.containerId <<<"$first")" = "$(jq -r .metadata.containerId <<<"$second")" ]
    # /data as tmpfsLimits says, /workspace/cache its share of a sixteenth of 256 MiB.
    run -0 wp_run volume -- sh -c 'for at in /data /workspace/cache; do cat /dev/zero >$at/fill 2>/dev/null; wc -c <$at/fill; done'
    [ "${lines[0]}" = 1048576 ]
    [ "${lines[1]}" -gt 1000000 ]
    [ "${lines[1]}" -le 16777216 ]
}

@test "files go in and out, through a link for /tmp and of VOLUMEs" {
    local file=$PLACE/file type at
    head -c 100000 /dev/urandom >"$file"
    for type in scratch debian tmp0755 nopasswd own symlinks; do
        wp_run $type --copy-in "$file:/tmp/" --copy-out "/tmp/file:$PLACE/$type" -- /probe mode /tmp/file
        cmp "$file" "$PLACE/$type"
    done
    for at in /data /workspace/cache; do
        eventually 5 pool_settles volume 1
        rm -f "$PLACE/back"
        wp_run volume --copy-in "$file:$at/" --copy-out "$at/file:$PLACE/back" -- /probe mode $at/file
        cmp "$file" "$PLACE/back"
    done
}

@test "a container's volumes carry the instance's label, those of the image too" {
    eventually 5 pool_settles volume 1
    for volume in $(inspect volume '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}'); do
        [ "$(docker volume inspect --format "{{index .Labels \"$LABEL\"}}" "$volume")" = "$INSTANCE" ]
    done
}

@test "a VOLUME that cannot be emptied is refused, with the reason" {
    run -125 wp_run etcvolume -- /probe id
    [[ $output == *'VOLUME /etc/app, which cannot be emptied'* ]]
    run -125 wp_run upvolume -- /probe id
    [[ $output == *'VOLUME /data/../etc, which cannot be emptied'* ]]
    run -125 wp_run volumes9 -- /probe id
    [[ $output == *'it declares 9 VOLUMEs; at most 8 can be mounted'* ]]
}

@test "an image for another architecture is refused, with the reason" {
    run -125 wp_run armv -- /probe id
    [[ $output == *'it is made for linux/'*', the engine'\''s host is linux/'* ]]
}
