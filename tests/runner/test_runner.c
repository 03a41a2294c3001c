/* The runner alone, as PID 1 of namespaces of its own, spoken with frame by frame: what a daemon never does, does only
 * once in a while, or cannot see. Both transports. Needs root. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "wire/frame.h"
#include "wire/message.h"

#define UID        54321
#define WAIT_MS    10000
#define TOKEN_TEXT "10112233445566778899aabbccddeeff"

static const uint8_t token[SYNC_TOKEN_BYTES] = {0x10, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                                0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};

struct peer {
    char directory[64];
    pid_t outer;  /* whose child is PID 1 */
    int to, from; /* the same for a socket */
    int listener; /* -1: attach */
    uint8_t in[4 * 1024 * 1024];
    size_t length;
    uint8_t marker;
    struct message_hello hello;
};

/* --- starting one -------------------------------------------------------------------------------------- */

static const char *runner_path(void)
{
    const char *path = getenv("WARMPOOL_RUNNER");
    assert_non_null(path);
    return path;
}

static void copy_runner(const char *to)
{
    char command[512];
    snprintf(command, sizeof command, "cp '%s' '%s' && chmod 0711 '%s'", runner_path(), to, to);
    assert_int_equal(system(command), 0);
}

static void inner(const struct peer *peer, int in, int out, const char *orphan)
{
    char work[96], program[96], socket_path[96];
    snprintf(work, sizeof work, "%s/work", peer->directory);
    snprintf(program, sizeof program, "%s/runner", peer->directory);
    snprintf(socket_path, sizeof socket_path, "%s/sock", peer->directory);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("proc", "/proc", "proc", 0, NULL) < 0 ||
        mount("tmpfs", work, "tmpfs", MS_NOSUID | MS_NODEV, "size=16m,mode=1777") < 0 || chdir(work) < 0)
        _exit(90);
    if (in >= 0 && (dup2(in, 0) < 0 || dup2(out, 1) < 0))
        _exit(91);
    if (setresgid(UID, UID, UID) < 0 || setresuid(UID, UID, UID) < 0)
        _exit(92);
    char *const env[] = {"PATH=/usr/bin:/bin", "KEPT=yes", in >= 0 ? SYNC_TOKEN_VARIABLE "=" TOKEN_TEXT : NULL, NULL};
    char *const attach[] = {program, "--attach", "--orphan-timeout", (char *)orphan, work, NULL};
    char *const socket[] = {program, "--socket", socket_path, "--orphan-timeout", (char *)orphan, work, NULL};
    execve(program, in >= 0 ? attach : socket, env);
    _exit(93);
}

static void listen_for_runner(struct peer *peer)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/sock", peer->directory);
    peer->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(peer->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(chmod(address.sun_path, 0777), 0);
    assert_int_equal(listen(peer->listener, 8), 0);
}

static struct peer *peer_start(bool attach, const char *orphan)
{
    struct peer *peer = calloc(1, sizeof *peer);
    int to[2] = {-1, -1}, from[2] = {-1, -1};
    char path[96];
    assert_non_null(peer);
    snprintf(peer->directory, sizeof peer->directory, "/tmp/wp-runner-XXXXXX");
    assert_non_null(mkdtemp(peer->directory));
    chmod(peer->directory, 0755);
    snprintf(path, sizeof path, "%s/work", peer->directory);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/runner", peer->directory);
    copy_runner(path);
    peer->listener = peer->to = peer->from = -1;
    if (attach) {
        assert_int_equal(pipe2(to, O_CLOEXEC), 0);
        assert_int_equal(pipe2(from, O_CLOEXEC), 0);
    } else {
        listen_for_runner(peer);
    }
    peer->outer = fork();
    if (peer->outer == 0) {
        if (unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET) < 0)
            _exit(94);
        pid_t pid = fork();
        if (pid == 0)
            inner(peer, to[0], from[1], orphan);
        int status;
        close(to[0]);
        close(to[1]);
        close(from[0]);
        close(from[1]);
        waitpid(pid, &status, 0);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
    if (attach) {
        close(to[0]);
        close(from[1]);
        peer->to = to[1];
        peer->from = from[0];
    }
    return peer;
}

/* Its exit status. */
static int peer_wait(struct peer *peer)
{
    int status;
    assert_int_equal(waitpid(peer->outer, &status, 0), peer->outer);
    peer->outer = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void peer_stop(struct peer *peer)
{
    char command[128], path[64];
    if (peer->outer > 0) { /* its only child is PID 1 there, with which the namespace ends */
        snprintf(path, sizeof path, "/proc/%d/task/%d/children", peer->outer, peer->outer);
        FILE *children = fopen(path, "re");
        int pid = 0;
        if (children != NULL && fscanf(children, "%d", &pid) == 1)
            kill(pid, SIGKILL);
        if (children != NULL)
            fclose(children);
        peer_wait(peer);
    }
    if (peer->to >= 0)
        close(peer->to);
    if (peer->from >= 0 && peer->from != peer->to)
        close(peer->from);
    if (peer->listener >= 0)
        close(peer->listener);
    snprintf(command, sizeof command, "rm -rf '%s'", peer->directory);
    assert_int_equal(system(command), 0);
    free(peer);
}

/* --- bytes and frames ------------------------------------------------------------------------------------ */

static void say(struct peer *peer, const void *data, size_t size)
{
    const uint8_t *next = data;
    while (size > 0) {
        ssize_t written = write(peer->to, next, size);
        assert_true(written > 0);
        next += written;
        size -= (size_t)written;
    }
}

/* Returns its size: of what follows a frame of the present conversation. */
static size_t put_tail(const struct peer *peer, uint8_t *out)
{
    if (peer->listener >= 0)
        return 0;
    memset(out, peer->marker, FRAME_TAIL_MARKER);
    out[FRAME_TAIL_MARKER] = 0;
    return FRAME_TAIL_BYTES;
}

static void say_frame(struct peer *peer, uint8_t type, uint8_t flags, uint32_t task, const void *payload, size_t size)
{
    uint8_t header[FRAME_HEADER_BYTES], tail[FRAME_TAIL_BYTES];
    frame_encode_header(header, type, flags, task, (uint32_t)size);
    say(peer, header, sizeof header);
    say(peer, payload, size);
    say(peer, tail, put_tail(peer, tail));
}

/* More bytes into the buffer; false when none come within `ms`, or the other end closed. */
static bool hear(struct peer *peer, int ms)
{
    struct pollfd poll_fd = {.fd = peer->from, .events = POLLIN};
    if (poll(&poll_fd, 1, ms) <= 0)
        return false;
    assert_true(peer->length < sizeof peer->in);
    ssize_t got = read(peer->from, peer->in + peer->length, sizeof peer->in - peer->length);
    if (got <= 0)
        return false;
    peer->length += (size_t)got;
    return true;
}

static void forget(struct peer *peer, size_t size)
{
    memmove(peer->in, peer->in + size, peer->length - size);
    peer->length -= size;
}

/* As the engine does while nobody is attached. */
static void lose_everything(struct peer *peer, int quiet_ms)
{
    while (hear(peer, quiet_ms))
        peer->length = 0;
    peer->length = 0;
}

/* The next frame; its payload is copied to `payload` (of FRAME_DATA_MAX). */
static struct frame next_frame(struct peer *peer, uint8_t *payload)
{
    struct frame frame;
    for (;;) {
        ptrdiff_t taken = frame_decode(peer->in, peer->length, &frame);
        assert_true(taken >= 0);
        if (taken > 0) {
            assert_true(frame.length <= FRAME_DATA_MAX);
            memcpy(payload, frame.payload, frame.length);
            frame.payload = payload;
            forget(peer, (size_t)taken);
            return frame;
        }
        assert_true(hear(peer, WAIT_MS));
    }
}

static size_t encode_sync(struct peer *peer, const struct message_sync *resume, uint8_t *out)
{
    struct message_sync sync = resume != NULL ? *resume : (struct message_sync){0};
    sync.version = WIRE_VERSION;
    memset(sync.marker, ++peer->marker, sizeof sync.marker);
    frame_encode_header(out, FRAME_SYNC, 0, 0, MESSAGE_SYNC_BYTES);
    message_sync_encode(&sync, out + FRAME_HEADER_BYTES);
    return FRAME_HEADER_BYTES + MESSAGE_SYNC_BYTES + put_tail(peer, out + FRAME_HEADER_BYTES + MESSAGE_SYNC_BYTES);
}

/* Skips to the HELLO with our marker, as a daemon has to. */
static void await_hello(struct peer *peer)
{
    uint8_t marker[SYNC_MARKER_BYTES];
    memset(marker, peer->marker, sizeof marker);
    for (;;) {
        uint8_t *found = memmem(peer->in, peer->length, marker, sizeof marker);
        if (found != NULL && found - peer->in >= 18) {
            if (peer->listener >= 0) /* a new connection has nothing of an old one */
                assert_int_equal(found - peer->in, 18);
            forget(peer, (size_t)(found - peer->in) - 18);
            break;
        }
        assert_true(hear(peer, WAIT_MS));
    }
    uint8_t payload[FRAME_DATA_MAX];
    struct frame frame = next_frame(peer, payload);
    assert_int_equal(frame.type, FRAME_HELLO);
    assert_int_equal(message_hello_decode(frame.payload, frame.length, &peer->hello), 0);
}

static void begin(struct peer *peer, const struct message_sync *resume)
{
    uint8_t sync[256];
    if (peer->listener >= 0) {
        if (peer->to >= 0)
            close(peer->to);
        peer->length = 0;
        struct pollfd poll_fd = {.fd = peer->listener, .events = POLLIN};
        assert_int_equal(poll(&poll_fd, 1, WAIT_MS), 1);
        peer->to = peer->from = accept4(peer->listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(peer->to >= 0);
    } else {
        say(peer, token, sizeof token);
    }
    say(peer, sync, encode_sync(peer, resume, sync));
    await_hello(peer);
}

struct asked {
    uint32_t task, flags, credit, timeout_ms, cpu_limit_s;
    uint16_t rows, columns;
};

static size_t encode_run(const struct peer *peer, const struct asked *asked, const char *const argv[],
                         const char *const env[], uint8_t **out)
{
    struct message_run run = {.flags = asked->flags,
                              .timeout_ms = asked->timeout_ms,
                              .kill_timeout_ms = 100,
                              .credit_stdout = asked->credit,
                              .credit_stderr = asked->credit,
                              .cpu_limit_s = asked->cpu_limit_s,
                              .rows = asked->rows,
                              .columns = asked->columns,
                              .workdir = ""};
    size_t size = message_run_size(&run, argv, env);
    *out = calloc(1, FRAME_HEADER_BYTES + size + FRAME_TAIL_BYTES);
    assert_non_null(*out);
    frame_encode_header(*out, FRAME_RUN, 0, asked->task, (uint32_t)size);
    message_run_encode(&run, argv, env, *out + FRAME_HEADER_BYTES, size);
    return FRAME_HEADER_BYTES + size + put_tail(peer, *out + FRAME_HEADER_BYTES + size);
}

static void run_shell(struct peer *peer, const struct asked *asked, const char *script)
{
    const char *const argv[] = {"sh", "-c", script, NULL}, *const env[] = {NULL};
    uint8_t *frame;
    size_t size = encode_run(peer, asked, argv, env, &frame);
    say(peer, frame, size);
    free(frame);
}

struct outcome {
    uint8_t out[2 * 1024 * 1024];
    size_t size;
    uint32_t credited;
    struct message_exit exit;
};

/* Output and credits until EXIT; what comes of stdout goes behind what is there. */
static void gather(struct peer *peer, struct outcome *outcome)
{
    uint8_t payload[FRAME_DATA_MAX];
    for (;;) {
        struct frame frame = next_frame(peer, payload);
        struct message_credit credit;
        switch (frame.type) {
        case FRAME_STDOUT:
            assert_true(outcome->size + frame.length <= sizeof outcome->out);
            memcpy(outcome->out + outcome->size, frame.payload, frame.length);
            outcome->size += frame.length;
            break;
        case FRAME_CREDIT:
            assert_int_equal(message_credit_decode(frame.payload, frame.length, &credit), 0);
            outcome->credited += credit.bytes;
            break;
        case FRAME_EXIT:
            assert_int_equal(message_exit_decode(frame.payload, frame.length, &outcome->exit), 0);
            return;
        case FRAME_STDERR:
            break;
        default:
            fail_msg("%s came", frame_type_name(frame.type));
        }
    }
}

static void finish(struct peer *peer, uint32_t task)
{
    uint8_t payload[FRAME_DATA_MAX];
    struct receipt receipt;
    char difference[128];
    say_frame(peer, FRAME_ACK, 0, task, NULL, 0);
    say_frame(peer, FRAME_RESET, 0, 0, NULL, 0);
    struct frame frame = next_frame(peer, payload);
    assert_int_equal(frame.type, FRAME_RECEIPT);
    assert_int_equal(receipt_decode(frame.payload, frame.length, &receipt), 0);
    if (receipt_differs(&peer->hello.baseline, &receipt, difference, sizeof difference))
        fail_msg("%s", difference);
}

static struct outcome *outcome_new(void)
{
    struct outcome *outcome = calloc(1, sizeof *outcome);
    assert_non_null(outcome);
    return outcome;
}

static void expect_lines(const struct outcome *outcome, unsigned count)
{
    size_t at = 0;
    for (unsigned i = 1; i <= count; i++) {
        char line[16];
        int length = snprintf(line, sizeof line, "%u\n", i);
        assert_true(at + (size_t)length <= outcome->size);
        assert_memory_equal(outcome->out + at, line, (size_t)length);
        at += (size_t)length;
    }
    assert_int_equal(at, outcome->size);
}

#define BOTH(name)                                                                                                     \
    static void name##_attach(void **state)                                                                            \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        name(true);                                                                                                    \
    }                                                                                                                  \
    static void name##_socket(void **state)                                                                            \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        name(false);                                                                                                   \
    }

/* --- both transports ---------------------------------------------------------------------------------------- */

static void test_tasks_and_resets(bool attach)
{
    struct peer *peer = peer_start(attach, "60000");
    begin(peer, NULL);
    assert_int_equal(peer->hello.flags, 0);
    assert_int_equal(peer->hello.task_state, HELLO_TASK_NONE);
    for (uint32_t task = 1; task <= 3; task++) {
        struct outcome *outcome = outcome_new();
        run_shell(
            peer, &(struct asked){.task = task, .credit = 65536},
            "env | grep -c TOKEN; cat /proc/1/environ 2>&1 | grep -c Permission; echo $KEPT; echo x >file; exit 3");
        gather(peer, outcome);
        assert_string_equal((char *)outcome->out, "0\n1\nyes\n");
        assert_int_equal(outcome->exit.outcome, EXIT_EXITED);
        assert_int_equal(outcome->exit.exit_code, 3);
        free(outcome);
        finish(peer, task);
    }
    peer_stop(peer);
}
BOTH(test_tasks_and_resets)

/* What was on its way when the connection broke comes again on the next, from the very byte. */
static void test_lost_output_comes_again(bool attach)
{
    struct peer *peer = peer_start(attach, "60000");
    struct outcome *outcome = outcome_new();
    uint8_t payload[FRAME_DATA_MAX];
    begin(peer, NULL);
    run_shell(peer, &(struct asked){.task = 7, .credit = 400000}, "seq 100000");
    while (outcome->size < 50000) {
        struct frame frame = next_frame(peer, payload);
        assert_int_equal(frame.type, FRAME_STDOUT);
        memcpy(outcome->out + outcome->size, frame.payload, frame.length);
        outcome->size += frame.length;
    }
    if (attach)
        lose_everything(peer, 300);
    begin(peer, &(struct message_sync){.task = 7, .received = {outcome->size, 0}, .granted = {1000000, 65536}});
    assert_int_equal(peer->hello.task, 7);
    assert_int_equal(peer->hello.resumed[0], outcome->size);
    gather(peer, outcome);
    expect_lines(outcome, 100000);
    finish(peer, 7);
    free(outcome);
    peer_stop(peer);
}
BOTH(test_lost_output_comes_again)

/* A link that is emptied just while the last of a burst goes into it: the rest does not wait for something else to
 * happen. */
static void test_bursts_come_whole(bool attach)
{
    struct peer *peer = peer_start(attach, "60000");
    uint8_t payload[FRAME_DATA_MAX];
    const size_t burst = 330000;
    begin(peer, NULL);
    run_shell(peer, &(struct asked){.task = 5, .flags = RUN_FLAG_STDIN, .credit = burst},
              "while read go; do head -c 330000 /dev/zero; done");
    for (int i = 0; i < 300; i++) {
        struct message_credit credit = {.stream = WIRE_STDOUT, .bytes = (uint32_t)burst};
        uint8_t more[MESSAGE_CREDIT_BYTES];
        message_credit_encode(&credit, more);
        say_frame(peer, FRAME_STDIN, 0, 5, "\n", 1);
        usleep((useconds_t)(i % 50) * 100);
        for (size_t got = 0; got < burst;) {
            struct frame frame = next_frame(peer, payload);
            got += frame.type == FRAME_STDOUT ? frame.length : 0;
        }
        say_frame(peer, FRAME_CREDIT, 0, 5, more, sizeof more);
    }
    struct outcome *outcome = outcome_new();
    say_frame(peer, FRAME_STDIN, FRAME_FLAG_EOF, 5, "", 0);
    gather(peer, outcome);
    finish(peer, 5);
    free(outcome);
    peer_stop(peer);
}
BOTH(test_bursts_come_whole)

/* The end of a task that nobody heard is told to whoever comes next, output first; and again, until it is acknowledged.
 */
static void test_unacknowledged_end_comes_again(bool attach)
{
    struct peer *peer = peer_start(attach, "60000");
    begin(peer, NULL);
    run_shell(peer, &(struct asked){.task = 9, .credit = 65536}, "seq 1000; exit 41");
    for (int round = 0; round < 3; round++) {
        struct outcome *outcome = outcome_new();
        if (attach)
            lose_everything(peer, 300);
        else
            usleep(300000);
        begin(peer, &(struct message_sync){.task = 9, .granted = {65536, 65536}});
        assert_int_equal(peer->hello.task_state, HELLO_TASK_EXITED);
        assert_int_equal(peer->hello.flags, HELLO_FLAG_DIRTY);
        gather(peer, outcome);
        expect_lines(outcome, 1000);
        assert_int_equal(outcome->exit.exit_code, 41);
        free(outcome);
    }
    /* A daemon that knows nothing of the task gets all there is. */
    struct outcome *outcome = outcome_new();
    begin(peer, NULL);
    gather(peer, outcome);
    expect_lines(outcome, 1000);
    /* One that has its end already gets nothing but that. */
    outcome->size = 0;
    begin(peer, &(struct message_sync){.task = 9, .received = {UINT64_MAX, UINT64_MAX}});
    gather(peer, outcome);
    assert_int_equal(outcome->size, 0);
    free(outcome);
    finish(peer, 9);
    peer_stop(peer);
}
BOTH(test_unacknowledged_end_comes_again)

/* More than a ring is not kept: what is left comes, and HELLO says from where on. */
static void test_only_the_tail_is_kept(bool attach)
{
    struct peer *peer = peer_start(attach, "60000");
    struct outcome *outcome = outcome_new();
    begin(peer, NULL);
    run_shell(peer, &(struct asked){.task = 1, .credit = 3000000}, "seq 150000");
    gather(peer, outcome);
    expect_lines(outcome, 150000);
    uint64_t total = outcome->size;
    begin(peer, NULL);
    assert_int_equal(peer->hello.resumed[0], total - 512 * 1024);
    uint8_t *tail = malloc(total);
    memcpy(tail, outcome->out + (total - 512 * 1024), 512 * 1024);
    outcome->size = 0;
    gather(peer, outcome);
    assert_int_equal(outcome->size, 512 * 1024);
    assert_memory_equal(outcome->out, tail, outcome->size);
    free(tail);
    finish(peer, 1);
    free(outcome);
    peer_stop(peer);
}
BOTH(test_only_the_tail_is_kept)

/* Half a frame of stdin is cut off; HELLO says from where to send again, and the task gets each byte once. */
static void test_stdin_goes_on(bool attach)
{
    struct peer *peer = peer_start(attach, "60000");
    struct outcome *outcome = outcome_new();
    uint8_t data[40000], header[FRAME_HEADER_BYTES];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)('a' + i % 23);
    begin(peer, NULL);
    run_shell(peer, &(struct asked){.task = 2, .flags = RUN_FLAG_STDIN, .credit = 65536}, "cat");
    say_frame(peer, FRAME_STDIN, 0, 2, data, 1000);
    frame_encode_header(header, FRAME_STDIN, 0, 2, 39000);
    say(peer, header, sizeof header);
    say(peer, data + 1000, 20000);
    if (attach)
        lose_everything(peer, 300);
    else
        usleep(100000);
    begin(peer, &(struct message_sync){.task = 2, .granted = {65536, 65536}});
    assert_int_equal(peer->hello.task_state, HELLO_TASK_RUNNING);
    assert_int_equal(peer->hello.stdin_received, 1000);
    assert_true(peer->hello.stdin_consumed <= 1000);
    outcome->credited = (uint32_t)peer->hello.stdin_consumed;
    say_frame(peer, FRAME_STDIN, FRAME_FLAG_EOF, 2, data + 1000, 39000);
    gather(peer, outcome);
    assert_int_equal(outcome->size, sizeof data);
    assert_memory_equal(outcome->out, data, sizeof data);
    finish(peer, 2);
    free(outcome);
    peer_stop(peer);
}
BOTH(test_stdin_goes_on)

/* What a task reads while no daemon is there is told by HELLO, and by nothing before it. */
static void test_stdin_read_by_a_task_alone(bool attach)
{
    struct peer *peer = peer_start(attach, "60000");
    uint8_t data[STDIN_CREDIT_INITIAL] = {0}, payload[FRAME_DATA_MAX];
    begin(peer, NULL);
    run_shell(peer, &(struct asked){.task = 2, .flags = RUN_FLAG_STDIN, .credit = 65536}, "sleep 0.7; exec wc -c");
    say_frame(peer, FRAME_STDIN, 0, 2, data, sizeof data); /* fills the pipe */
    assert_int_equal(next_frame(peer, payload).type, FRAME_CREDIT);
    say_frame(peer, FRAME_STDIN, 0, 2, data, sizeof data); /* fills the runner's buffer */
    if (attach) {
        lose_everything(peer, 1000);
    } else {
        usleep(100000);
        close(peer->to);
        peer->to = -1;
        usleep(1000000);
    }
    struct outcome *outcome = outcome_new();
    begin(peer, &(struct message_sync){.task = 2, .granted = {65536, 65536}});
    assert_int_equal(peer->hello.stdin_received, 2 * sizeof data);
    say_frame(peer, FRAME_STDIN, FRAME_FLAG_EOF, 2, "", 0);
    gather(peer, outcome);
    assert_int_equal(peer->hello.stdin_consumed + outcome->credited, 2 * sizeof data);
    assert_string_equal((char *)outcome->out, "131072\n");
    finish(peer, 2);
    free(outcome);
    peer_stop(peer);
}
BOTH(test_stdin_read_by_a_task_alone)

/* Small pieces of stdin, each of which credit is given for, while nobody takes the output that fills the link: the
 * conversation outlives it. */
static void test_small_stdin_beside_a_flood(bool attach)
{
    struct peer *peer = peer_start(attach, "60000");
    uint8_t payload[FRAME_DATA_MAX];
    uint32_t credited = 0;
    const uint32_t pieces = 3000;
    begin(peer, NULL);
    run_shell(peer, &(struct asked){.task = 4, .flags = RUN_FLAG_STDIN, .credit = 2000000}, "cat >/dev/null & yes");
    usleep(200000); /* until the link is full */
    for (uint32_t i = 0; i < pieces; i++)
        say_frame(peer, FRAME_STDIN, 0, 4, "x", 1);
    usleep(200000);
    while (credited < pieces) {
        struct frame frame = next_frame(peer, payload);
        struct message_credit credit;
        if (frame.type == FRAME_STDOUT)
            continue;
        assert_int_equal(frame.type, FRAME_CREDIT);
        assert_int_equal(message_credit_decode(frame.payload, frame.length, &credit), 0);
        credited += credit.bytes;
    }
    assert_int_equal(credited, pieces);
    uint8_t grace[4] = {0};
    say_frame(peer, FRAME_CANCEL, 0, 4, grace, sizeof grace);
    while (next_frame(peer, payload).type != FRAME_EXIT)
        ;
    finish(peer, 4);
    peer_stop(peer);
}
BOTH(test_small_stdin_beside_a_flood)

/* RUN that did not arrive whole was never there. */
static void test_half_a_run_is_none(bool attach)
{
    struct peer *peer = peer_start(attach, "60000");
    char *large = malloc(100001);
    memset(large, 'x', 100000);
    large[100000] = '\0';
    const char *const argv[] = {"sh", "-c", "exit 1", large, NULL}, *const env[] = {NULL};
    uint8_t *frame;
    begin(peer, NULL);
    size_t size = encode_run(peer, &(struct asked){.task = 4, .credit = 65536}, argv, env, &frame);
    for (size_t part = 1; part < size; part += size / 5) {
        say(peer, frame, part);
        begin(peer, NULL);
        assert_int_equal(peer->hello.task_state, HELLO_TASK_NONE);
        assert_int_equal(peer->hello.generation, 0);
        assert_int_equal(peer->hello.flags, 0);
    }
    struct outcome *outcome = outcome_new();
    put_tail(peer, frame + size - (attach ? FRAME_TAIL_BYTES : 0)); /* of this conversation now */
    say(peer, frame, size);
    gather(peer, outcome);
    assert_int_equal(outcome->exit.exit_code, 1);
    finish(peer, 4);
    free(outcome);
    free(frame);
    free(large);
    peer_stop(peer);
}
BOTH(test_half_a_run_is_none)

static void test_cpu_limit(bool attach)
{
    struct peer *peer = peer_start(attach, "60000");
    struct outcome *outcome = outcome_new();
    begin(peer, NULL);
    run_shell(peer, &(struct asked){.task = 1, .credit = 65536, .cpu_limit_s = 1}, "ulimit -t; while :; do :; done");
    gather(peer, outcome);
    assert_string_equal((char *)outcome->out, "1\n");
    assert_int_equal(outcome->exit.signal, SIGXCPU);
    finish(peer, 1);
    free(outcome);
    peer_stop(peer);
}
BOTH(test_cpu_limit)

static void test_terminal(bool attach)
{
    struct peer *peer = peer_start(attach, "60000");
    struct outcome *outcome = outcome_new();
    uint8_t size[MESSAGE_WINCH_BYTES];
    begin(peer, NULL);
    run_shell(
        peer,
        &(struct asked){.task = 1, .flags = RUN_FLAG_STDIN | RUN_FLAG_TERMINAL, .credit = 65536, .rows = 10, .columns = 20}, "trap 'stty size' WINCH; stty -echo; stty size; until read line; do :; done; echo \"<$line>\"" /* the signal may end a read */);
    while (memmem(peer->in, peer->length, "10 20", 5) == NULL)
        assert_true(hear(peer, WAIT_MS));
    message_winch_encode(&(struct message_winch){.rows = 30, .columns = 40}, size);
    say_frame(peer, FRAME_WINCH, 0, 1, size, sizeof size);
    say_frame(peer, FRAME_STDIN, FRAME_FLAG_EOF, 1, "a\n", 2);
    gather(peer, outcome);
    outcome->out[outcome->size] = '\0';
    assert_non_null(strstr((char *)outcome->out, "30 40"));
    assert_non_null(strstr((char *)outcome->out, "<a>"));
    assert_int_equal(outcome->exit.exit_code, 0);
    finish(peer, 1); /* no descriptor of a terminal is left */
    free(outcome);
    peer_stop(peer);
}
BOTH(test_terminal)

/* What a short task in a lease wrote last is still on its way through the terminal when it ends. */
static void test_terminal_beside_background(bool attach)
{
    struct peer *peer = peer_start(attach, "60000");
    begin(peer, NULL);
    for (uint32_t task = 1; task <= 200; task++) {
        struct outcome *outcome = outcome_new();
        run_shell(peer,
                  &(struct asked){.task = task,
                                  .flags = RUN_FLAG_TERMINAL | RUN_FLAG_KEEP_BACKGROUND,
                                  .credit = 65536,
                                  .rows = 10,
                                  .columns = 20},
                  task == 1 ? "trap '' HUP; sleep 100 & echo hello" : "echo hello");
        gather(peer, outcome);
        assert_string_equal((char *)outcome->out, "hello\r\n");
        assert_true(outcome->exit.wall_us < 900000);
        free(outcome);
        say_frame(peer, FRAME_ACK, 0, task, NULL, 0);
    }
    finish(peer, 200);
    peer_stop(peer);
}
BOTH(test_terminal_beside_background)

/* --- the attach stream alone ------------------------------------------------------------------------------------ */

static void test_nothing_is_heard_before_the_token(void **state)
{
    (void)state;
    struct peer *peer = peer_start(true, "60000");
    uint8_t garbage[4096], sync[256];
    memset(garbage, 0x5a, sizeof garbage);
    for (int i = 0; i < 100; i++)
        say(peer, garbage, sizeof garbage);
    say(peer, sync, encode_sync(peer, NULL, sync)); /* no token */
    say(peer, token, sizeof token - 1);             /* not all of it */
    say(peer, garbage, 10);
    assert_false(hear(peer, 300));
    begin(peer, NULL);
    peer_stop(peer);
}

static void test_a_token_in_pieces(void **state)
{
    (void)state;
    struct peer *peer = peer_start(true, "60000");
    uint8_t all[256];
    memcpy(all, token, sizeof token);
    for (int round = 0; round < 3; round++) {
        size_t size = sizeof token + encode_sync(peer, NULL, all + sizeof token);
        for (size_t i = 0; i < size; i++) {
            say(peer, all + i, 1);
            usleep(500);
        }
        await_hello(peer);
        say_frame(peer, FRAME_ACK, 0, 0, NULL, 0);
        say(peer, "WP", 2); /* half a header is left for the next round */
    }
    peer_stop(peer);
}

/* Every cut of a frame, then a new conversation in the same write and in two: no byte of the token gets to the task. */
static void test_every_cut_of_a_frame(void **state)
{
    (void)state;
    struct peer *peer = peer_start(true, "60000");
    const struct message_sync resume = {.task = 3, .granted = {65536, 65536}};
    uint8_t input[FRAME_HEADER_BYTES + 40 + FRAME_TAIL_BYTES] = {0}, all[512];
    frame_encode_header(input, FRAME_STDIN, 0, 3, 40);
    begin(peer, NULL);
    run_shell(peer, &(struct asked){.task = 3, .flags = RUN_FLAG_STDIN, .credit = 65536}, "cat");
    for (size_t cut = 0; cut < sizeof input; cut++) {
        put_tail(peer, input + FRAME_HEADER_BYTES + 40);
        for (size_t pause = 0; pause <= SYNC_TOKEN_BYTES; pause += 5) {
            memcpy(all, input, cut);
            memcpy(all + cut, token, sizeof token);
            size_t size = cut + sizeof token;
            size += encode_sync(peer, &resume, all + size);
            say(peer, all, cut + pause);
            usleep(500);
            say(peer, all + cut + pause, size - cut - pause);
            await_hello(peer);
            assert_int_equal(peer->hello.task_state, HELLO_TASK_RUNNING);
            assert_int_equal(peer->hello.stdin_received, 0);
        }
    }
    struct outcome *outcome = outcome_new();
    say_frame(peer, FRAME_STDIN, FRAME_FLAG_EOF, 3, "all", 3);
    gather(peer, outcome);
    assert_string_equal((char *)outcome->out, "all");
    finish(peer, 3);
    free(outcome);
    peer_stop(peer);
}

/* What the engine still passes on of a lost stream, behind the beginning of the next one. */
static void test_frames_of_a_lost_stream_are_passed_over(void **state)
{
    (void)state;
    struct peer *peer = peer_start(true, "60000");
    struct outcome *outcome = outcome_new();
    uint8_t grace[4] = {0};
    begin(peer, NULL);
    run_shell(peer, &(struct asked){.task = 6, .flags = RUN_FLAG_STDIN, .credit = 65536}, "cat");
    say_frame(peer, FRAME_STDIN, 0, 6, "one ", 4);
    usleep(100000);
    begin(peer, &(struct message_sync){.task = 6, .granted = {65536, 65536}});
    peer->marker--;
    say_frame(peer, FRAME_STDIN, 0, 6, "two ", 4);
    say_frame(peer, FRAME_CANCEL, 0, 6, grace, sizeof grace);
    say_frame(peer, FRAME_RESET, 0, 0, NULL, 0); /* would be a breach of the protocol */
    peer->marker++;
    say_frame(peer, FRAME_STDIN, FRAME_FLAG_EOF, 6, "three", 5);
    gather(peer, outcome);
    assert_string_equal((char *)outcome->out, "one three");
    assert_int_equal(outcome->exit.outcome, EXIT_EXITED);
    finish(peer, 6);
    free(outcome);
    peer_stop(peer);
}

static void test_broken_protocol_is_told_and_mended(void **state)
{
    (void)state;
    struct peer *peer = peer_start(true, "60000");
    uint8_t payload[FRAME_DATA_MAX];
    begin(peer, NULL);
    say_frame(peer, FRAME_HELLO, 0, 0, "x", 1); /* not a daemon's to send */
    struct frame frame = next_frame(peer, payload);
    assert_int_equal(frame.type, FRAME_LOG);
    assert_int_equal(frame.payload[0], 0);
    say_frame(peer, FRAME_PING, 0, 0, "12345678", 8);
    assert_false(hear(peer, 300));
    begin(peer, NULL);
    peer_stop(peer);
}

static void test_the_runner_ends_when_nobody_speaks(void **state)
{
    (void)state;
    struct peer *peer = peer_start(true, "700");
    begin(peer, NULL);
    for (int i = 0; i < 8; i++) { /* longer than the timeout, but never silent for so long */
        say_frame(peer, FRAME_ACK, 0, 0, NULL, 0);
        usleep(200000);
    }
    say_frame(peer, FRAME_PING, 0, 0, "12345678", 8);
    assert_true(hear(peer, WAIT_MS));
    assert_int_equal(peer_wait(peer), 0);
    peer_stop(peer);
}

int main(int argc, char *argv[])
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    signal(SIGPIPE, SIG_IGN);
#define PAIR(name) cmocka_unit_test(name##_attach), cmocka_unit_test(name##_socket)
    const struct CMUnitTest tests[] = {
        PAIR(test_tasks_and_resets),
        PAIR(test_lost_output_comes_again),
        PAIR(test_bursts_come_whole),
        PAIR(test_unacknowledged_end_comes_again),
        PAIR(test_only_the_tail_is_kept),
        PAIR(test_stdin_goes_on),
        PAIR(test_stdin_read_by_a_task_alone),
        PAIR(test_small_stdin_beside_a_flood),
        PAIR(test_half_a_run_is_none),
        PAIR(test_cpu_limit),
        PAIR(test_terminal),
        PAIR(test_terminal_beside_background),
        cmocka_unit_test(test_nothing_is_heard_before_the_token),
        cmocka_unit_test(test_a_token_in_pieces),
        cmocka_unit_test(test_every_cut_of_a_frame),
        cmocka_unit_test(test_frames_of_a_lost_stream_are_passed_over),
        cmocka_unit_test(test_broken_protocol_is_told_and_mended),
        cmocka_unit_test(test_the_runner_ends_when_nobody_speaks),
    };
    return cmocka_run_group_tests_name("runner", tests, NULL, NULL);
}
