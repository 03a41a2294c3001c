# A task's terminal: what a person at one sees, and the terminal that is left behind.
load helper

setup_file() { daemon_start poolSize=2; }
teardown_file() { daemon_finish; }
teardown() { audit; }

at_terminal() { # SCENARIO
    timeout 60 expect "$BATS_TEST_DIRNAME/terminal.exp" "$1" "$BUILD/warmpool" "$SOCKET"
}

@test "a task with -t has a terminal on 0, 1 and 2" {
    run -0 wp_run -t coder -- sh -c 'test -t 0 && test -t 1 && test -t 2 && tty && echo "$TERM"'
    [[ "${lines[0]}" == /dev/pts/* ]]
    run ! wp_run coder -- sh -c 'test -t 0 || test -t 1 || test -t 2'
}

@test "the window's size is the request's" {
    run -0 api POST /v1/tasks -d '{"agentType":"coder","command":["stty","size"],"terminal":{"rows":11,"columns":222,"term":"vt100"}}'
    [ "$(jq -r .output <<<"$output" | tr -d '\r')" = "11 222" ]
    [ "$(jq -r .error <<<"$output")" = "" ]
}

@test "a bad terminal is refused" {
    [ "$(api POST /v1/tasks -d '{"agentType":"coder","command":["true"],"terminal":{"rows":0}}' | jq -r .error.code)" = invalid ]
    [ "$(api POST /v1/tasks -d '{"agentType":"coder","command":["true"],"terminal":{"high":1}}' | jq -r .error.code)" = invalid ]
    [ "$(api POST /v1/tasks -d '{"agentType":"coder","command":["true"],"terminal":7}' | jq -r .error.code)" = invalid ]
}

@test "stdin that is no terminal goes in, its end is Ctrl-D" {
    run -0 bash -c 'printf "one\ntwo\n" | "$BUILD/warmpool" --socket "$SOCKET" run -it coder -- cat'
    [[ "$output" == *two* ]]
}

@test "10 MB through a terminal, and its exit code" {
    run -5 bash -c 'set -o pipefail; "$BUILD/warmpool" --socket "$SOCKET" run -t coder -- sh -c "head -c 10000000 /dev/zero | tr \\\\0 x; exit 5" </dev/null | wc -c'
    [ "$output" = 10000000 ]
}

@test "a shell: keys edit, Ctrl-C ends what runs in it, its code is the client's" { [[ "$(at_terminal shell)" == *restored ]]; }

@test "Ctrl-D ends the shell" { [[ "$(at_terminal end_of_file)" == *restored ]]; }

@test "a window that changes its size" { [[ "$(at_terminal resize)" == *restored ]]; }

@test "a shell that is killed leaves the terminal as it was" { [[ "$(at_terminal killed_task)" == *restored ]]; }

@test "a client ended by a signal leaves the terminal as it was" {
    local signal
    for signal in term hup quit int; do
        run -0 at_terminal $signal
        [[ "$output" == *restored ]]
    done
}

@test "a client that is stopped gives the terminal back meanwhile" {
    run -0 at_terminal stop
    [[ "$output" == *"state T"*restored ]]
}

@test "a terminal that goes away ends the task" {
    at_terminal gone
    eventually 15 pool_settles coder 2
}

